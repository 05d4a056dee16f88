"""Canonical text of graphs: reading it gives the same parts, and the same parts are shared."""

from __future__ import annotations

import pytest

from adaptcompose.catalogue.cards import Catalogue
from adaptcompose.composition.canonical_text import format_canonical
from adaptcompose.composition.checker import CheckContext, check_source
from adaptcompose.composition.drawing.terminal import render_terminal
from adaptcompose.composition.graph import Block, adapters_of
from adaptcompose.composition.operators import fusions_of
from adaptcompose.composition.operators.trainability import trainable_parts


def graph_of(text: str) -> Block:
    return check_source(text, CheckContext(Catalogue.open())).raise_errors()


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("lora()", "lora()"),
        ("let x = lora(); average(x, x)", "let x = lora(); average(x, x)"),
        ("average(lora(), lora())", "average(lora(), lora())"),
        ("let x = ./a; average(x, x)", "average(./a, ./a)"),
        (
            "let x = lora(); stack(x=x, y=x) | freeze(x)",
            "let x = lora(); stack(x=x, y=x) | freeze(x)",
        ),
        (
            "let x = stack(./a, lora()); average(x, x)",
            "let lora = lora(); average(stack(./a, lora), stack(./a, lora))",
        ),
        (
            "let p = pfeiffer(); let f = fuse(p, ./b); average(f, f) | p",
            "let p = bottleneck(); let f = fuse(p, ./b); stack(average(f, f), p)",
        ),
        (
            "average(stack(t=lora()), stack(t=lora())) | swap(t=ia3())",
            "let t = ia3(); average(stack(t=t), stack(t=t))",
        ),
        (
            "let x = lora(); route(a=x, b=x | scale(by=0.5), c=none) | freeze(x)",
            "let x = lora(); route(a=x, b=x | scale(by=0.5), c=none) | freeze(x)",
        ),
        (
            "let x = lora(); user/a | swap(s=x) | x",
            "let x = lora(); stack(user/a | swap(s=x), x)",
        ),
    ],
)
def test_shared_parts_are_bound_once(text: str, printed: str) -> None:
    graph = graph_of(text)
    assert format_canonical(graph) == printed
    again = graph_of(printed)
    assert format_canonical(again) == printed
    assert {*adapters_of(again), *fusions_of(again)} == {*adapters_of(graph), *fusions_of(graph)}
    assert {*trainable_parts(again)} == {*trainable_parts(graph)}


def test_a_fusion_with_other_members_elsewhere_is_written_out() -> None:
    text = "let f = fuse(stack(l=./a, m=./c), ./b); average(f, f | swap(l=./d))"
    assert "let" not in format_canonical(graph_of(text))


def test_a_drawing_notes_shared_weights() -> None:
    last = render_terminal(graph_of("let x = lora(); average(x, x)")).splitlines()[-1]
    assert last == "x: the same weights in 2 places"
    assert "same weights" not in render_terminal(graph_of("average(lora(), lora(), ./a, ./a)"))
