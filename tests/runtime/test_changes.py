"""What changes weights is, on every family, a stock backbone with other weights, by the formulas.

The peer has no golden of some of them: DoRA and VeRA where queries, keys and values are one map,
VeRA where maps differ in shape, IA³ with a constant factor there, LoRAs in a stack.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from adaptcompose.backbones.layout import Site, layout_of
from adaptcompose.methods import Method
from adaptcompose.methods.method import SHARED_SITE
from adaptcompose.runtime.model import ComposedModel
from adaptcompose.runtime.parts import Part
from tests.runtime.test_families import refused
from tests.tiny import OTHERS, SPECIAL, backbone, composed, distance, hidden

Weights = dict[str, Tensor]
Changed = tuple[Tensor, Tensor | None]
"""A weight [out, in] and its bias."""

ALL = "targets=[attn.q, attn.k, attn.v, attn.o, ffn.in, ffn.mid]"
WHOLE = "stored=true, matrices=true"


def lora(method: Method, w: Weights, shared: Weights, old: Changed) -> Changed:
    return old[0] + method.alpha / method.rank * w["B"] @ w["A"], old[1]


def dora(method: Method, w: Weights, shared: Weights, old: Changed) -> Changed:
    """By the paper the lengths are those of the whole, and the bias stays as it is."""
    delta, scale = w["B"] @ w["A"], method.alpha / method.rank
    if method.norm == "adapterhub":
        return lengthened(w, old, delta, scale)
    whole = old[0] + scale * delta
    return w["m"][:, None] * whole / whole.norm(dim=1, keepdim=True), old[1]


def lengthened(w: Weights, old: Changed, delta: Tensor, scale: float) -> Changed:
    """As AdapterHub's: lengths without the factor, and the bias is multiplied."""
    factor = w["m"] / (old[0] + delta).norm(dim=1)
    bias = None if old[1] is None else factor * old[1]
    return factor[:, None] * (old[0] + scale * delta), bias


def vera(method: Method, w: Weights, shared: Weights, old: Changed) -> Changed:
    width, width_in = old[0].shape
    first, second = shared["A"][:, :width_in], shared["B"][:width]
    if not method.matrices:
        delta = w["b"][:, None] * second @ (w["d"][:, None] * first)
        return old[0] + method.scale * delta, old[1]
    delta = w["b"] @ second @ w["d"] @ first
    if method.dora:
        return lengthened(w, old, delta, method.scale)
    return old[0] + method.scale * delta, old[1]


def ia3(method: Method, w: Weights, shared: Weights, old: Changed) -> Changed:
    factor = method.scale * w["l"]
    if len(factor) == old[0].shape[1] and len(factor) != len(old[0]):  # at the input of ffn.mid
        return old[0] * factor, old[1]
    return factor[:, None] * old[0], None if old[1] is None else factor * old[1]


FORMULAS: dict[str, Callable[[Method, Weights, Weights, Changed], Changed]] = {
    formula.__name__: formula for formula in (lora, dora, vera, ia3)
}
TEXTS = (
    f"lora(rank=2, alpha=3, {ALL})",
    f"dora(rank=2, alpha=3, {ALL})",
    f"dora(rank=2, alpha=3, norm=adapterhub, {ALL})",
    f"vera(rank=3, stored=true, scale=2, {ALL})",
    f"vera(rank=3, scale=2, {WHOLE}, targets=[attn.k, attn.v])",
    f"vera(rank=3, scale=2, {WHOLE}, targets=[ffn.in])",
    f"vera(rank=3, scale=2, {WHOLE}, dora=true, targets=[attn.k, attn.v])",
    f"vera(rank=3, scale=2, {WHOLE}, dora=true, targets=[ffn.mid])",
    "ia3(scale=2, inputs=[], targets=[attn.k, attn.v])",
    "ia3(scale=2)",
)


def change(base: PreTrainedModel, part: Part) -> None:
    """Change the weights of the backbone as a part says."""
    layout = layout_of(base.config.model_type)
    own = {site: {key: t.detach() for key, t in part[site].items()} for site in part.sites}
    shared = own.pop(SHARED_SITE, {})
    for site, weights in own.items():
        module = base.get_submodule(layout.path(site))
        weight = module.weight.T if isinstance(module, Conv1D) else module.weight
        index, count = layout.sites[site.name].piece
        rows = slice(index * len(weight) // count, (index + 1) * len(weight) // count)
        bias = None if module.bias is None else module.bias[rows]
        formula = FORMULAS[part.method.word]
        made = formula(part.method, weights, shared, (weight[rows].clone(), bias))
        weight[rows] = made[0]
        if bias is not None and made[1] is not None:
            bias.copy_(made[1])


@torch.no_grad()
def stock(family: str, *parts: Part) -> Tensor:
    """The states of a backbone of transformers whose weights were changed."""
    base = copy.deepcopy(backbone(family))
    for part in parts:
        change(base, part)
    return hidden(base)


def parts_of(model: ComposedModel) -> list[Part]:
    return [part for _, part in model.parts.items()]


FAMILIES = (*SPECIAL, *OTHERS)
CASES = [(family, text) for family in FAMILIES for text in TEXTS if not refused(family, text)]


@pytest.mark.parametrize(("family", "text"), CASES, ids=str)
def test_a_change_is_another_weight(family: str, text: str) -> None:
    model = composed(text, backbone(family))
    expected = stock(family, *parts_of(model))
    assert distance(expected, stock(family)) > 1e-3
    assert distance(hidden(model), expected) <= 1e-11


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("optimise", [True, False], ids=["optimised", "literal"])
def test_loras_of_a_stack_add(family: str, optimise: bool) -> None:
    text = f"let a = lora(rank=2, {ALL}); let b = lora(rank=3, alpha=2); stack(a, b)"
    model = composed(text, backbone(family), optimise=optimise)
    assert distance(hidden(model), stock(family, *parts_of(model))) <= 1e-11


def test_only_the_chosen_of_joint_maps_are_multiplied() -> None:
    """The peer multiplies the queries of GPT-2 by alpha, too."""
    model = composed("ia3(scale=2, inputs=[], targets=[attn.k, attn.v])", backbone("gpt2"))
    seen: list[Tensor] = []
    for body in (model.body, backbone("gpt2")):
        attention = body.h[0].attn.c_attn
        handle = attention.register_forward_hook(lambda _, args, out: seen.append(out))
        hidden(model if body is model.body else body)
        handle.remove()
    changed, plain = (one.detach().chunk(3, dim=-1) for one in seen)
    assert torch.equal(changed[0], plain[0])
    for letter, one, other in zip("kv", changed[1:], plain[1:], strict=True):
        factor = model.parts["ia3"][Site(f"attn.{letter}", 0)]["l"].detach()
        assert distance(one, 2 * factor * other) <= 1e-12
