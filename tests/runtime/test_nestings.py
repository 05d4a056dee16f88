"""Operators in each other: what is accepted runs, folded as literally; what is not has a reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import adaptcompose as ac
from adaptcompose.composition.canonical_text import format_canonical
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.runtime.model import ComposedModel
from tests.sampling import daily
from tests.workshop import Workshop, inside

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

LINES = (Path(__file__).parent / "nestings.compose").read_text().splitlines()
CASES = [tuple(line.split("  =>  ")) for line in LINES]
IDS = torch.tensor([[0, 5, 9, 7, 10, 2], [0, 6, 11, 2, 1, 1]])


def made(shop: Workshop, text: str, *, optimise: bool = True) -> ComposedModel:
    torch.manual_seed(1)
    with inside(shop.root):
        model = ac.compose(text, "./base", hub="./hub", head=None, optimise=optimise)
    for _, part in model.parts.items():
        for parameter in part.parameters() if part.is_trained else ():
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def states(model: ComposedModel) -> list[Tensor]:
    """The last hidden states of every branch, or of rows with the first and the last one."""
    graph, given = model.composition.graph, {"input_ids": IDS, "attention_mask": (IDS != 1).long()}
    names = list(graph.branches)
    with torch.no_grad():
        if names and not graph.broadcasts_batch:
            return [model(**given, rows=[names[0], names[-1]]).last_hidden_state]
        out = model(**given)
    return [one.last_hidden_state for one in (out.values() if names else [out])]


@daily(("text", "told"), CASES, days=3)
def test_operators_stand_in_each_other(workshop: Workshop, text: str, told: str) -> None:
    if told != "fine":
        with pytest.raises(Failed) as failed:
            made(workshop, text)
        assert " ".join(found.code for found in failed.value.diagnostics) == told
        return
    model = made(workshop, text)
    literal = states(made(workshop, text, optimise=False))
    for one, other in zip(states(model), literal, strict=True):
        assert torch.isfinite(one).all()
        assert (one - other).abs().max() <= 1e-5 * other.abs().max()
    written = format_canonical(model.composition.graph)
    again = made(workshop, written)
    assert format_canonical(again.composition.graph) == written
    for one, other in zip(states(again), states(model), strict=True):
        assert torch.equal(one, other)


def test_both_kinds_are_there() -> None:
    assert sum(told == "fine" for _, told in CASES) >= 60
    assert len({told for _, told in CASES}) >= 10
