"""The text of a whole graph: what stands in several places is bound by a `let` and shared."""

from __future__ import annotations

import re

from adaptcompose.composition.graph import Adapter, Block, walk
from adaptcompose.composition.operators import Fuse
from adaptcompose.composition.operators.swap import as_written
from adaptcompose.syntax.references import Ref

_NAME = re.compile(r"(?!(?:let|none|true|false)$)[a-z][a-z0-9_]*")


def format_canonical(graph: Block) -> str:
    """What a graph says, so that reading it again gives the same parts in the same places.

    >>> from adaptcompose.catalogue.cards import Catalogue
    >>> from adaptcompose.composition.checker import CheckContext, check_source
    >>> text = "let x = lora(); average(x, stack(./a, x))"
    >>> format_canonical(check_source(text, CheckContext(Catalogue.open())).raise_errors())
    'let x = lora(); average(x, stack(./a, x))'
    """
    graph = as_written(graph)
    several = shared_parts(graph)
    bound: dict[str, str] = {}

    def write(block: Block) -> Block:
        written = block.rebuild(tuple(map(write, block.inner())))
        name = getattr(block, "name", "")
        if name not in several or not isinstance(block, Adapter | Fuse):
            return written
        bound.setdefault(name, str(written))
        return Adapter(name, ref=Ref("bare", name=name))

    body = write(graph)
    return "".join([*(f"let {name} = {text}; " for name, text in bound.items()), str(body)])


def shared_parts(graph: Block) -> dict[str, int]:
    """The new parts that stand in several places, and in how many."""
    found: dict[str, list[Block]] = {}
    for block in walk(graph):
        if isinstance(block, Adapter | Fuse) and block.is_new and _NAME.fullmatch(block.name):
            found.setdefault(block.name, []).append(block)
    alike = {name: len(all_) for name, all_ in found.items() if len({*map(str, all_)}) == 1}
    return {name: count for name, count in alike.items() if count > 1}
