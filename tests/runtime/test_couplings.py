"""GLOW: the coupling by its formula, and its inverse. The peer cannot run it on sequences."""

from __future__ import annotations

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from adaptcompose.backbones.layout import Site
from adaptcompose.runtime.model import ComposedModel
from adaptcompose.runtime.ops.primitives import State, build_module
from tests.sampling import sampled
from tests.tiny import GENERATING, OTHERS, SPECIAL, backbone, batch, composed, distance, hidden

FAMILIES = (*SPECIAL, *OTHERS)
GLOW = "bottleneck(invertible=glow, activation={activation}, invertible_reduction={reduction})"


def through(model: ComposedModel, name: str, state: Tensor) -> Tensor:
    with torch.no_grad():
        out: Tensor = build_module(model.program.sites[Site(name)], model.parts).eval()(
            State(state)
        )
    return out


def by_hand(model: ComposedModel, state: Tensor) -> Tensor:
    """y₁ = e(s)·x₁ + t of x₂, then y₂ = e(s)·x₂ + t of y₁."""
    ((_, part),) = model.parts.items()
    w = dict(part[Site("embed.out")].items())
    half = state.shape[-1] // 2
    one, two = state[..., :half], state[..., half:]

    def factor_and_shift(net: str, z: Tensor) -> tuple[Tensor, Tensor]:
        inner = torch.tanh(z @ w[f"{net}.0.weight"].T + w[f"{net}.0.bias"])
        out = inner @ w[f"{net}.2.weight"].T + w[f"{net}.2.bias"]
        scale, shift = out.tensor_split(2, dim=-1)
        return torch.exp(5 * 0.636 * torch.atan(scale / 5)), shift

    factor, shift = factor_and_shift("s2", two)
    one = factor * one + shift
    factor, shift = factor_and_shift("s1", one)
    return torch.cat([one, factor * two + shift], dim=-1)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_its_formula(family: str) -> None:
    model = composed(GLOW.format(activation="tanh", reduction=2), backbone(family))
    state = torch.randn(2, 3, model.composition.facts.embedding, dtype=torch.float64)
    with torch.no_grad():
        assert distance(through(model, "embed.out", state), by_hand(model, state)) <= 1e-12


@sampled(
    15,
    family=st.sampled_from(FAMILIES),
    activation=st.sampled_from(["relu", "gelu", "swish"]),
    reduction=st.sampled_from([0.5, 1, 2, 3.5]),
    size=st.floats(0.01, 100),
)
def test_the_inverse_undoes_it(family: str, activation: str, reduction: float, size: float) -> None:
    body = backbone(family, GENERATING.get(family, "AutoModelForMaskedLM"))
    text = GLOW.format(activation=activation, reduction=reduction)
    model = composed(text, body, head="backbone")
    state = size * torch.randn(2, 3, model.composition.facts.embedding, dtype=torch.float64)
    there = through(model, "embed.out", state)
    assert distance(there, state) > 1e-3
    assert distance(through(model, "head.in", there), state) <= 1e-9


def test_factors_stay_within_bounds() -> None:
    model = composed(GLOW.format(activation="relu", reduction=2))
    ((_, part),) = model.parts.items()
    with torch.no_grad():
        for name, tensor in part[Site("embed.out")].items():
            if name.startswith("s2.2"):  # no shift: what is left is the factor
                tensor.zero_()
        part[Site("embed.out")]["s2.2.bias"][:6] = 1e6
    state = torch.ones(1, 1, 12, dtype=torch.float64)
    first = through(model, "embed.out", state)[..., :6]
    assert torch.allclose(first.log(), torch.full_like(first, 5 * 0.636 * torch.pi / 2))


def test_the_two_kinds_differ_and_say_which_they_are() -> None:
    nice, glow = (composed(f"bottleneck(invertible={kind})") for kind in ("nice", "glow"))
    assert distance(hidden(nice), hidden(glow)) > 1e-3
    assert "scale-couple" in str(glow.program) and "scale-couple" not in str(nice.program)


def test_its_own_activation() -> None:
    """As files of 2020 have it."""
    texts = [
        f"bottleneck(invertible=nice, {more})"
        for more in (
            "activation=relu",
            "activation=relu, invertible_activation=tanh",
            "activation=tanh",
        )
    ]
    one, both, other = (
        through(composed(f"let a = {text}; a"), "embed.out", states()) for text in texts
    )
    assert distance(both, one) > 1e-3
    assert torch.equal(both, other)


def states() -> Tensor:
    return batch()["input_ids"][..., None].double() * torch.linspace(-1, 1, 12, dtype=torch.float64)
