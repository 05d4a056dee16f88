"""A composition as boxes in rows, fans and frames: what DOT and SVG are written from.

>>> from adaptcompose.composition.graph import Adapter, Slot
>>> from adaptcompose.composition.operators import Stack
>>> from adaptcompose.syntax.references import parse_ref
>>> sw = Adapter("lang/sw", ref=parse_ref("lang/sw", ["lang"]))
>>> picture(Stack((Slot("lang", sw),)))
Row(items=(Box(text='= lang/sw', style='loaded', slot='lang'),))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from adaptcompose.backbones.layout import Facts
from adaptcompose.composition.drawing.terminal import besides, inside, note, scope, title
from adaptcompose.composition.graph import Adapter, Block, Empty, Slot
from adaptcompose.composition.operator import Members, Modifier
from adaptcompose.composition.operators import Fuse, Stack

Style = Literal["loaded", "new", "plain"]


@dataclass(frozen=True)
class Box:
    """A block that holds no other; `slot` is its name in what it stands in."""

    text: str
    style: Style = "plain"
    slot: str | None = None


@dataclass(frozen=True)
class Row:
    """One after another."""

    items: tuple[Picture, ...]


@dataclass(frozen=True)
class Fan:
    """One state to all of these; what follows takes all they give."""

    branches: tuple[Picture, ...]


@dataclass(frozen=True)
class Frame:
    """Something that holds for all inside."""

    label: str
    inner: Picture


Picture = Box | Row | Fan | Frame


def picture(graph: Block, facts: Facts | None = None) -> Picture:
    """The boxes of a graph. Without `facts` nothing is said about layers."""
    if facts is None:
        return _of(graph, None, None)
    found = list(scope(graph, facts))
    words = [layers if used else f"{layers}: backbone only" for layers, used in found]
    inner = _of(inside(graph), None, facts)
    more = besides(graph)
    label = "; ".join([*words, *more])
    return Frame(label, inner) if more or any(used for _, used in found) else inner


def _of(block: Block, slot: str | None, facts: Facts | None) -> Picture:
    if isinstance(block, Modifier):
        words = note(block, facts)
        return Frame(f"{slot}: {words}" if slot else words, _of(inside(block), None, facts))
    if isinstance(block, Stack):
        row = Row(tuple(_slot(member, facts) for member in block.members))
        return Frame(slot, row) if slot else row
    if isinstance(block, Empty):
        return Box("none", "plain", slot) if slot else Row(())
    if isinstance(block, Members):
        fan = Fan(tuple(_slot(member, facts) for member in block.members))
        return Row((fan, _leaf(block, slot)))
    return _leaf(block, slot)


def _slot(slot: Slot, facts: Facts | None) -> Picture:
    return _of(slot.block, slot.name, facts)


def _leaf(block: Block, slot: str | None) -> Box:
    if isinstance(block, Adapter | Fuse):
        return Box(title(block, slot), "new" if block.new else "loaded", slot)
    return Box(block.label if isinstance(block, Members) else str(block), "plain", slot)
