"""LoReFT by its formula, and the tokens at which it acts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adaptcompose.backbones.layout import Site
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.runtime.call_context import TokenPositions
from adaptcompose.runtime.model import ComposedModel
from adaptcompose.runtime.ops.primitives import State, build_module
from tests.tiny import (
    GENERATING,
    WIDTH,
    backbone,
    batch,
    composed,
    distance,
    generated,
    hidden,
    make_backbone,
)

SITE = Site("layer.out", 1)
ACTIVATIONS = {"linear": lambda z: z, "tanh": torch.tanh}


def at_site(model: ComposedModel, h: Tensor, mask: Tensor | None = None, **places: int) -> Tensor:
    """What layer 1's intervention makes of h [rows, tokens, width]."""
    state = State(h).at_positions(TokenPositions(mask=mask, **places))
    module = build_module(model.program.sites[SITE], model.parts).eval()
    with torch.no_grad():
        out: Tensor = module(state)
    return out


def gram_schmidt(matrix: Tensor) -> Tensor:
    """Orthonormal rows, one after another."""
    rows: list[Tensor] = []
    for row in matrix:
        left = row - sum((row @ other) * other for other in rows)
        rows.append(left / left.norm())
    return torch.stack(rows)


def by_hand(
    model: ComposedModel, unit: str, h: Tensor, activation: str = "linear", *, is_bare: bool = False
) -> Tensor:
    """h + Rᵀ(σ(W h + b) − R h) of one token (Wu et al., 2024, equation 3)."""
    ((_, part),) = model.parts.items()
    w = dict(part[SITE].items())
    r = w[f"{unit}.projection.weight"]
    r = r if is_bare else gram_schmidt(r)
    edit = ACTIVATIONS[activation](w[f"{unit}.source.weight"] @ h + w[f"{unit}.source.bias"])
    return h + r.T @ (edit - r @ h)


@pytest.mark.parametrize("optimise", [True, False], ids=["optimised", "literal"])
@pytest.mark.parametrize(
    ("text", "units", "activation", "is_bare"),
    [
        ("loreft(rank=3, prefix_positions=2)", "pp---", "linear", False),
        ("loreft(rank=2, prefix_positions=1, suffix_positions=2)", "p--ss", "linear", False),
        ("loreft(rank=2, prefix_positions=4, suffix_positions=2)", "pppss", "linear", False),
        ("loreft(rank=2, prefix_positions=0, suffix_positions=9)", "sssss", "linear", False),
        (
            "loreft(prefix_positions=1, suffix_positions=1, tied_weights=true, activation=tanh)",
            "t---t",
            "tanh",
            False,
        ),
        ("noreft(rank=2, prefix_positions=1)", "p----", "linear", True),
    ],
)
def test_it_is_its_formula(
    text: str, units: str, activation: str, is_bare: bool, optimise: bool
) -> None:
    model = composed(text, optimise=optimise)
    h = torch.randn(2, len(units), WIDTH, dtype=torch.float64)
    out = at_site(model, h)
    names = {"p": "prefix", "s": "suffix", "t": "tied"}
    with torch.no_grad():
        for token, letter in enumerate(units):
            for row in range(2):
                expected = h[row, token]
                if letter != "-":
                    expected = by_hand(model, names[letter], expected, activation, is_bare=is_bare)
                assert distance(out[row, token], expected) <= 1e-12


def test_without_subtraction_it_adds_the_edit() -> None:
    model = composed("direft(rank=2, prefix_positions=1)")
    ((_, part),) = model.parts.items()
    w = dict(part[SITE].items())
    h = torch.randn(1, 1, WIDTH, dtype=torch.float64)
    source = w["prefix.source.weight"] @ h[0, 0] + w["prefix.source.bias"]
    expected = h[0, 0] + w["prefix.projection.weight"].T @ source
    assert distance(at_site(model, h)[0, 0], expected) <= 1e-12


def test_padding_is_not_counted() -> None:
    model = composed("loreft(rank=2, prefix_positions=1, suffix_positions=1)")
    h = torch.randn(2, 5, WIDTH, dtype=torch.float64)
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0]])
    changed = (at_site(model, h, mask) != h).any(dim=-1)
    assert changed.tolist() == [
        [False, False, True, False, True],
        [True, False, True, False, False],
    ]


def test_padding_on_the_left_and_on_the_right_are_the_same() -> None:
    model = composed("loreft(rank=2, prefix_positions=1, suffix_positions=2)", backbone("llama"))
    ids = torch.tensor([[7, 8, 9, 10]])
    pad = torch.zeros_like(ids[:, :2])
    right, left = torch.cat([ids, pad], 1), torch.cat([pad, ids], 1)
    places = torch.arange(4)[None]
    with torch.no_grad():
        alone = model(input_ids=ids).last_hidden_state
        behind = model(input_ids=right, attention_mask=right.ne(0).long()).last_hidden_state
        ahead = model(
            input_ids=left,
            attention_mask=left.ne(0).long(),
            position_ids=torch.cat([torch.zeros_like(places[:, :2]), places], 1),
        ).last_hidden_state
    assert distance(behind[:, :4], alone) <= 1e-10
    assert distance(ahead[:, 2:], alone) <= 1e-10


@pytest.mark.parametrize("family", GENERATING)
def test_a_cache_makes_no_difference_to_the_first_tokens(family: str) -> None:
    base = make_backbone(family, GENERATING[family]).double()
    model = composed("loreft(rank=2, prefix_positions=8)", base, head="backbone")
    found = [generated(model, batch(pad=False), use_cache=used) for used in (True, False)]
    assert torch.equal(found[0][0], found[1][0])
    assert distance(found[0][1], found[1][1]) <= 1e-9


def test_a_call_that_continues_from_a_cache_has_no_last_tokens() -> None:
    model = composed("loreft(prefix_positions=0, suffix_positions=2)")
    h, mask = torch.randn(1, 1, WIDTH, dtype=torch.float64), torch.ones(1, 6)
    assert torch.equal(at_site(model, h, mask, first=5, has_cache=True), h)
    assert not torch.equal(at_site(model, h, mask, first=5), h)


def test_tokens_are_counted_in_the_row_whatever_splits_it() -> None:
    text = "let a = loreft(rank=2, prefix_positions=4, suffix_positions=1);"
    whole = hidden(composed(f"{text} a"))
    assert distance(hidden(composed(f"{text} split(a, a, at=2)")), whole) <= 1e-11


def test_branches_over_one_batch_keep_their_rows_apart() -> None:
    text = "parallel(x=loreft(rank=2, suffix_positions=2), y=loreft(rank=3, leave_out=[0]))"
    model = composed(text)
    outs = model(**batch())
    for name in ("x", "y"):
        alone = model.branch(name)(**batch()).last_hidden_state
        assert distance(outs[name].last_hidden_state, alone) <= 1e-11


def test_a_new_projection_has_orthonormal_rows_and_training_keeps_them() -> None:
    model = composed("loreft(rank=3)")
    ((_, part),) = model.parts.items()
    optimiser = torch.optim.SGD([p for _, p in model.trained()], lr=1.0)
    for _ in range(2):
        model(**batch()).last_hidden_state.square().mean().backward()
        optimiser.step()
    with torch.no_grad():
        used = part.method.effective_weights(SITE, part.read(SITE), {})["prefix.projection.weight"]
        assert distance(used @ used.T, torch.eye(3, dtype=used.dtype)) <= 1e-12


@pytest.mark.parametrize(
    "text", ["loreft(prefix_positions=0)", "loreft(rank=13)", "loreft(activation=rellu)"]
)
def test_settings_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(Failed, match=r"AC209|AC212"):
        composed(text)
