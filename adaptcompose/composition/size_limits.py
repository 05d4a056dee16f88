"""How large a composition is, counted before it is built, and how much is said about it.

A name stands for all that it means: forty lets that each use the one before twice are 2⁴⁰ adapters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from adaptcompose.composition.graph import Block
from adaptcompose.diagnostics.codes import AC904, AC905
from adaptcompose.diagnostics.diagnostic import Diagnostic, Span, errors

PARTS, DEPTH, WORK = 10_000, 100, 1_000_000
MOST = 100  # messages: nobody reads thousands


class Extent:
    """Counts the blocks of graphs, those used twice twice, and looks at each of them once."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Block, int, int]] = {}
        self._work = 0

    def of(self, block: Block) -> tuple[int, int]:
        """How many blocks it has, and how many stand in each other."""
        known = self._known.get(id(block))
        if known is None:
            inner = [self.of(one) for one in block.inner()]
            parts = 1 + sum(parts for parts, _ in inner)
            depth = 1 + max((depth for _, depth in inner), default=0)
            known = self._known[id(block)] = (block, parts, depth)
        return known[1], known[2]

    def excess(self, blocks: Iterable[Block | None], span: Span) -> Iterator[Diagnostic]:
        """AC904 if these blocks in one are more than any composition needs."""
        found = [self.of(block) for block in blocks if block is not None]
        parts = 1 + sum(parts for parts, _ in found)
        depth = 1 + max((depth for _, depth in found), default=0)
        self._work += parts
        if parts > PARTS:
            yield AC904.at(span, what=f"has {parts} parts", limit=PARTS)
        elif depth > DEPTH:
            yield AC904.at(span, what=f"is {depth} blocks deep", limit=DEPTH)
        elif self._work > WORK:
            yield AC904.at(span, what=f"takes {self._work} steps to write out", limit=WORK)


def told(found: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """What there is to say, sorted by place; of very many messages the first errors."""
    ordered = sorted(found, key=Diagnostic.position)
    more = len(ordered) - MOST
    if more <= 0:
        return tuple(ordered)
    kept = (errors(ordered) or ordered)[:MOST]
    return (*kept, AC905.at(count=len(ordered) - len(kept)))
