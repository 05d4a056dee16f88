"""Limits on the size of a composition and on the number of messages about it.

Sizes are counted before a graph is built, because a short text can mean a huge graph: forty lets,
each of which uses the one before it twice, are 2⁴⁰ adapters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from adaptcompose.composition.graph import Block
from adaptcompose.diagnostics.codes import AC904, AC905
from adaptcompose.diagnostics.diagnostic import Diagnostic, Span, counted, select_errors

PART_LIMIT, DEPTH_LIMIT, WORK_LIMIT = 10_000, 100, 1_000_000
MESSAGE_LIMIT = 100  # nobody reads thousands of messages


class SizeBudget:
    """Counts the blocks of graphs, including repeated ones, but visits each block only once."""

    def __init__(self) -> None:
        self._sizes: dict[int, tuple[Block, int, int]] = {}
        self._work = 0

    def measure(self, block: Block) -> tuple[int, int]:
        """The number of blocks in a graph, and the depth to which they are nested."""
        known = self._sizes.get(id(block))
        if known is None:
            inner = [self.measure(child) for child in block.inner()]
            count = 1 + sum(count for count, _ in inner)
            depth = 1 + max((depth for _, depth in inner), default=0)
            known = self._sizes[id(block)] = (block, count, depth)
        return known[1], known[2]

    def excess_problems(self, blocks: Iterable[Block | None], span: Span) -> Iterator[Diagnostic]:
        """Yield AC904 if a block with `blocks` inside is larger than any useful composition."""
        sizes = [self.measure(block) for block in blocks if block is not None]
        count = 1 + sum(count for count, _ in sizes)
        depth = 1 + max((depth for _, depth in sizes), default=0)
        self._work += count
        if count > PART_LIMIT:
            yield AC904.at(span, what=f"has {count:,} blocks", limit=f"{PART_LIMIT:,}")
        elif depth > DEPTH_LIMIT:
            yield AC904.at(span, what=f"nests blocks {depth:,} deep", limit=DEPTH_LIMIT)
        elif self._work > WORK_LIMIT:
            yield AC904.at(
                span, what=f"takes {self._work:,} steps to expand", limit=f"{WORK_LIMIT:,}"
            )


def sort_and_cap(diagnostics: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """Sort diagnostics by position; if there are more than 100, the first errors and AC905."""
    ordered = sorted(diagnostics, key=Diagnostic.position)
    if len(ordered) <= MESSAGE_LIMIT:
        return tuple(ordered)
    first = (select_errors(ordered) or ordered)[:MESSAGE_LIMIT]
    return (*first, AC905.at(count=counted(len(ordered) - len(first), "more problem")))
