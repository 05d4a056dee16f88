"""The canonical text of a graph, with a `let` for every part that occurs more than once."""

from __future__ import annotations

import re

from adaptcompose.composition.graph import Adapter, Block, WeightedPart, walk
from adaptcompose.composition.operators.swap import as_written
from adaptcompose.syntax.references import Ref

_NAME = re.compile(r"(?!(?:let|none|true|false)$)[a-z][a-z0-9_]*")


def format_canonical(graph: Block) -> str:
    """Write a graph as an expression that reads as the same graph.

    >>> from adaptcompose.catalogue.cards import Catalogue
    >>> from adaptcompose.composition.checker import CheckContext, check_source
    >>> text = "let x = lora(); average(x, stack(./a, x))"
    >>> format_canonical(check_source(text, CheckContext(Catalogue.open())).raise_errors())
    'let x = lora(); average(x, stack(./a, x))'
    """
    graph = as_written(graph)
    shared = shared_parts(graph)
    bindings: dict[str, str] = {}

    def bind(block: Block) -> Block:
        bound = block.rebuild(tuple(map(bind, block.inner())))
        if not isinstance(block, WeightedPart) or block.name not in shared:
            return bound
        bindings.setdefault(block.name, str(bound))
        return Adapter(block.name, ref=Ref("bare", name=block.name))

    body = bind(graph)
    return "".join([*(f"let {name} = {text}; " for name, text in bindings.items()), str(body)])


def shared_parts(graph: Block) -> dict[str, int]:
    """The new parts that occur more than once in a graph, with the number of occurrences."""
    texts: dict[str, list[str]] = {}
    for block in walk(graph):
        if isinstance(block, WeightedPart) and block.is_new and _NAME.fullmatch(block.name):
            texts.setdefault(block.name, []).append(str(block))
    return {name: len(found) for name, found in texts.items() if len(found) > 1 == len({*found})}
