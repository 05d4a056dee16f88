"""`train` and `freeze` as text: parts named by a `let` become slots with the same meaning."""

from __future__ import annotations

import pytest

from adaptcompose.catalogue.cards import Catalogue
from adaptcompose.composition.checker import CheckContext, check_source
from adaptcompose.composition.graph import Block, adapters_of
from adaptcompose.composition.operators import fusions_of
from adaptcompose.composition.operators.trainability import trainable_parts

LET = "let x = bottleneck();"


def graph_of(text: str) -> Block:
    return check_source(text, CheckContext(Catalogue.open())).raise_errors()


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        (f"{LET} x | train(x)", "stack(x=bottleneck()) | train(x)"),
        (f"{LET} ./a | x | freeze(x)", "stack(./a, x=bottleneck()) | freeze(x)"),
        (f"{LET} stack(k=x) | freeze(x)", "stack(k=stack(x=bottleneck())) | freeze(x)"),
        (
            f"{LET} stack(x, x) | freeze(x)",
            "stack(x=bottleneck(), x2=bottleneck()) | freeze(x, x2)",
        ),
        (
            "let f = fuse(./a, ./b); ./c | f | freeze(f)",
            "stack(./c, f=fuse(./a, ./b)) | freeze(f)",
        ),
        (
            f"{LET} fuse(x, ./b) | freeze(x) | train(fuse)",
            "fuse(stack(x=bottleneck()), ./b) | freeze(x) | train(fuse)",
        ),
        (
            f"{LET} average(x:0.5, ./b:0.5) | freeze(x) | train(x)",
            "average(stack(x=bottleneck()):0.5, ./b:0.5) | freeze(x) | train(x)",
        ),
        ("stack(lang=./a, bottleneck()) | train(lang)", None),
        ("fuse(./a, ./b) | freeze(./a, fuse)", None),
        ("bottleneck() | freeze()", None),
    ],
)
def test_named_parts_are_written_and_read_again(text: str, printed: str | None) -> None:
    graph = graph_of(text)
    assert str(graph) == (printed or text)
    again = graph_of(str(graph))
    assert str(again) == str(graph)
    assert trained(again) == trained(graph)


def trained(graph: Block) -> set[str]:
    """What is trained of what is there, parts that are written twice without their numbers."""
    assert {*trainable_parts(graph)} <= {*adapters_of(graph), *fusions_of(graph)}
    return {name.removesuffix("2") for name in trainable_parts(graph)}


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("let x = ./a; x | train(x)", "./a | train(./a)"),
        ("let x = ./a; let y = ./b; x | y | train(x, y)", "stack(./a, ./b) | train(./a, ./b)"),
        ("let x = stack(./a, ./b); x | ./c | train(x)", "stack(./a, ./b, ./c) | train(./a, ./b)"),
        ("let x = ./a; stack(x=./b, x2=x) | train(x)", "stack(x=./b, x2=./a) | train(x)"),
        (
            "let x = stack(./a, lora()); x | freeze(x)",
            "stack(./a, lora=lora()) | freeze(./a, lora)",
        ),
        ("let x = fuse(./a, ./b); x | freeze(x)", "stack(x=fuse(./a, ./b)) | freeze(x)"),
    ],
)
def test_a_let_means_the_parts_that_it_names(text: str, printed: str) -> None:
    graph = graph_of(text)
    assert str(graph) == printed
    assert trained(graph_of(printed)) == trained(graph)


def test_a_let_that_is_not_to_the_left_means_nothing() -> None:
    found = check_source(
        "let x = lora(); stack(y=lora()) | train(x)", CheckContext(Catalogue.open())
    )
    assert [one.code for one in found.diagnostics] == ["AC310"]
