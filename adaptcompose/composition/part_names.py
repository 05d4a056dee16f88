"""Names for new parts: their weights are trained, saved and published under these names."""

from __future__ import annotations

from dataclasses import replace

from adaptcompose.composition.graph import Adapter, Block, WeightedPart, transform
from adaptcompose.composition.operators import parts_of
from adaptcompose.composition.operators.trainability import unique_name
from adaptcompose.diagnostics.diagnostic import Span


def name_new_parts(graph: Block) -> Block:
    """Give every new part a name: that of its `let` or slot, otherwise fuse, fuse2, bottleneck, …

    One call is one part, even if `let` or `swap` puts it into several places. Two calls are two
    parts, even if their slots have the same name.
    """
    taken = set(parts_of(graph))
    assigned: dict[tuple[str, Span | None], str] = {}

    def name(block: Block) -> Block:
        if not isinstance(block, WeightedPart):
            return block.with_names(assigned)
        if isinstance(block, Adapter) and not block.is_new:
            return block
        call = (block.name, block.span)
        if call not in assigned or not (block.name or block.span):
            is_free = block.name and block.name not in assigned.values()
            wanted = block.name or block.default_name
            assigned[call] = block.name if is_free else unique_name(wanted, taken)
            taken.add(assigned[call])
        return replace(block, name=assigned[call])

    return transform(graph, name)
