"""How large a composition is, counted before it is built, and how much is said about it.

A name stands for all that it means: forty lets that each use the one before twice are 2⁴⁰ adapters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from adaptcompose.composition.graph import Block
from adaptcompose.diagnostics.codes import AC904, AC905
from adaptcompose.diagnostics.diagnostic import Diagnostic, Span, counted, select_errors

PART_LIMIT, DEPTH_LIMIT, WORK_LIMIT = 10_000, 100, 1_000_000
MESSAGE_LIMIT = 100  # messages: nobody reads thousands


class SizeBudget:
    """Counts the blocks of graphs, those used twice twice, and looks at each of them once."""

    def __init__(self) -> None:
        self._sizes: dict[int, tuple[Block, int, int]] = {}
        self._work = 0

    def measure(self, block: Block) -> tuple[int, int]:
        """How many blocks it has, and how many stand in each other."""
        known = self._sizes.get(id(block))
        if known is None:
            inner = [self.measure(one) for one in block.inner()]
            parts = 1 + sum(parts for parts, _ in inner)
            depth = 1 + max((depth for _, depth in inner), default=0)
            known = self._sizes[id(block)] = (block, parts, depth)
        return known[1], known[2]

    def excess_problems(self, blocks: Iterable[Block | None], span: Span) -> Iterator[Diagnostic]:
        """AC904 if these blocks in one are more than any composition needs."""
        found = [self.measure(block) for block in blocks if block is not None]
        parts = 1 + sum(parts for parts, _ in found)
        depth = 1 + max((depth for _, depth in found), default=0)
        self._work += parts
        if parts > PART_LIMIT:
            yield AC904.at(span, what=f"has {parts:,} blocks", limit=f"{PART_LIMIT:,}")
        elif depth > DEPTH_LIMIT:
            yield AC904.at(span, what=f"nests blocks {depth:,} deep", limit=DEPTH_LIMIT)
        elif self._work > WORK_LIMIT:
            yield AC904.at(
                span, what=f"takes {self._work:,} steps to expand", limit=f"{WORK_LIMIT:,}"
            )


def sort_and_cap(found: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """What there is to say, sorted by place; of very many messages the first errors."""
    ordered = sorted(found, key=Diagnostic.position)
    more = len(ordered) - MESSAGE_LIMIT
    if more <= 0:
        return tuple(ordered)
    kept = (select_errors(ordered) or ordered)[:MESSAGE_LIMIT]
    return (*kept, AC905.at(count=counted(len(ordered) - len(kept), "more problem")))
