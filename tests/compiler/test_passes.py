"""Passes keep the outputs; what they take away was doing nothing."""

from __future__ import annotations

import pytest
import torch

from adaptcompose.backbones.layout import Site
from adaptcompose.compiler.passes import optimise
from adaptcompose.compiler.passes.pass_log import PassLog
from adaptcompose.compiler.passes.prune import prune
from adaptcompose.ir.primitives import Chain
from adaptcompose.ir.program import Program
from tests.tiny import composed, distance, hidden

OUT = Site("ffn.out", 0)


def names(program: Program) -> list[str]:
    return list(program.sites[OUT].parts())


def both(text: str) -> tuple[Program, Program]:
    """The literal and the pruned program, after the outputs of all passes were compared."""
    literal, quick = composed(text, optimise=False), composed(text)
    assert distance(hidden(quick), hidden(literal)) <= 1e-12
    assert optimise(literal.program) == quick.program
    return literal.program, prune(literal.program, PassLog())


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        ("stack(a=pfeiffer(scale=0), b=pfeiffer())", ["a", "b"], ["b"]),
        ("stack(b=pfeiffer(), a=bottleneck(scale=0), c=pfeiffer())", ["b", "a", "c"], ["b", "c"]),
        ("stack(a=bottleneck(scale=0, gate=true), b=pfeiffer())", ["a", "b"], ["b"]),
        ("stack(a=bottleneck(scale=0, parallel=true), b=pfeiffer())", ["a", "b"], ["b"]),
        # what comes last says whether the backbone's norm follows
        ("stack(b=pfeiffer(), a=bottleneck(scale=0))", ["b", "a"], ["b", "a"]),
        # these change the state though they add nothing
        ("stack(a=bottleneck(scale=0, ln_after=true), b=pfeiffer())", ["a", "b"], ["a", "b"]),
        (
            "stack(a=bottleneck(scale=0, residual_before_ln=false), b=pfeiffer())",
            ["a", "b"],
            ["a", "b"],
        ),
        # a learned scale may be anything
        ("stack(a=bottleneck(scale=learned), b=pfeiffer())", ["a", "b"], ["a", "b"]),
    ],
)
def test_prune_takes_away_what_adds_nothing(text: str, before: list[str], after: list[str]) -> None:
    literal, quick = both(text)
    assert names(literal) == before
    assert names(quick) == after


def test_chains_in_chains_become_one() -> None:
    literal, quick = both("stack(x=stack(y=stack(pfeiffer(), pfeiffer()), z=pfeiffer()))")
    assert isinstance(literal.sites[OUT], Chain)
    assert any(isinstance(inner, Chain) for inner in literal.sites[OUT].inner())
    assert len(quick.sites[OUT].inner()) == 3
    assert not any(isinstance(inner, Chain) for inner in quick.sites[OUT].inner())


@pytest.mark.parametrize(
    "second", ["parallel=true", "residual_before_ln=false", "residual_before_ln=post_add"]
)
def test_a_branch_keeps_the_entry_that_its_fusion_reads(second: str) -> None:
    text = f"""
    let nothing = bottleneck(scale=0);
    fuse(stack(nothing, bottleneck({second})), stack(nothing, bottleneck({second}, reduction=4)))
    """
    literal, quick = both(text)
    assert quick.sites[OUT].placement == literal.sites[OUT].placement


def test_a_branch_loses_what_adds_nothing_where_it_may() -> None:
    text = "fuse(stack(a=bottleneck(scale=0), b=pfeiffer()), stack(c=pfeiffer()))"
    literal, quick = both(text)
    assert names(literal) == ["fuse", "a", "b", "c"]
    assert names(quick) == ["fuse", "b", "c"]


def test_passes_are_pure_and_done_after_one_round() -> None:
    model = composed("stack(a=bottleneck(scale=0), b=houlsby()) | fuse(pfeiffer(), pfeiffer())")
    assert optimise(model.program) == model.program
    literal = composed("stack(a=bottleneck(scale=0), b=pfeiffer())", optimise=False).program
    text = str(literal)
    prune(literal, PassLog())
    assert str(literal) == text


def test_without_passes_the_same_parts_have_weights() -> None:
    """So that what is saved does not depend on what was optimised."""
    text = "stack(a=bottleneck(scale=0), b=pfeiffer())"
    literal, quick = composed(text, optimise=False), composed(text)
    assert literal.parts.state_dict().keys() == quick.parts.state_dict().keys()
    assert torch.equal(hidden(literal), hidden(quick))
