"""Names of new parts: under these their weights are trained, saved and published."""

from __future__ import annotations

from dataclasses import replace

from adaptcompose.composition.graph import Adapter, Block, adapters, transform, walk
from adaptcompose.composition.operators import Fuse, Training
from adaptcompose.composition.operators.training import fresh
from adaptcompose.diagnostics.diagnostic import Span


def name_new_parts(graph: Block) -> Block:
    """Give every new part its name: its let's or slot's, else fuse, fuse2, bottleneck, …

    One call is one part wherever a let or a swap puts it, and two calls are two, whatever the
    names of their slots.
    """
    taken = {leaf.name for leaf in adapters(graph).values()}
    taken |= {block.name for block in walk(graph) if isinstance(block, Fuse)}
    given: dict[tuple[str, Span | None], str] = {}

    def name(block: Block) -> Block:
        if isinstance(block, Training) and block.unnamed:
            meant = [given[part.name, part.span] for part in block.unnamed]
            return replace(block, names=(*block.names, *meant), unnamed=())
        if not isinstance(block, Adapter | Fuse) or (isinstance(block, Adapter) and not block.new):
            return block
        call = (block.name, block.span)
        if call not in given or not (block.name or block.span):
            free = block.name and block.name not in given.values()
            given[call] = block.name if free else fresh(block.name or _word(block), taken)
            taken.add(given[call])
        return replace(block, name=given[call])

    return transform(graph, name)


def _word(block: Adapter | Fuse) -> str:
    if isinstance(block, Fuse):
        return block.word
    assert block.method is not None
    return block.method.word
