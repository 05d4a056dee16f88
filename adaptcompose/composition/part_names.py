"""Names of new parts: under these their weights are trained, saved and published."""

from __future__ import annotations

from dataclasses import replace

from adaptcompose.composition.graph import Adapter, Block, adapters_of, transform, walk
from adaptcompose.composition.operators import Fuse, Trainability
from adaptcompose.composition.operators.trainability import unique_name
from adaptcompose.diagnostics.diagnostic import Span


def name_new_parts(graph: Block) -> Block:
    """Give every new part its name: its let's or slot's, else fuse, fuse2, bottleneck, …

    One call is one part wherever a let or a swap puts it, and two calls are two, whatever the
    names of their slots.
    """
    taken = {leaf.name for leaf in adapters_of(graph).values()}
    taken |= {block.name for block in walk(graph) if isinstance(block, Fuse)}
    assigned_names: dict[tuple[str, Span | None], str] = {}

    def name(block: Block) -> Block:
        if isinstance(block, Trainability) and block.unnamed_parts:
            meant = [assigned_names[part.name, part.span] for part in block.unnamed_parts]
            return replace(block, names=(*block.names, *meant), unnamed_parts=())
        if not isinstance(block, Adapter | Fuse) or (
            isinstance(block, Adapter) and not block.is_new
        ):
            return block
        call = (block.name, block.span)
        if call not in assigned_names or not (block.name or block.span):
            free = block.name and block.name not in assigned_names.values()
            assigned_names[call] = (
                block.name if free else unique_name(block.name or _default_name(block), taken)
            )
            taken.add(assigned_names[call])
        return replace(block, name=assigned_names[call])

    return transform(graph, name)


def _default_name(block: Adapter | Fuse) -> str:
    if isinstance(block, Fuse):
        return block.word
    assert block.method is not None
    return block.method.word
