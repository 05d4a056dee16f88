"""A composition as boxes in rows, fans and frames: what DOT and SVG are written from.

>>> from adaptcompose.composition.graph import Adapter, Slot
>>> from adaptcompose.composition.operators import Stack
>>> from adaptcompose.syntax.references import parse_ref
>>> sw = Adapter("lang/sw", ref=parse_ref("lang/sw", ["lang"]))
>>> build_picture(Stack((Slot("lang", sw),)))
Row(items=(Box(text='= lang/sw', style='loaded', slot='lang'),))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from adaptcompose.backbones.layout import Facts
from adaptcompose.composition.drawing.terminal import (
    block_title,
    layer_usage,
    modifier_note,
    other_modifiers,
    strip_modifiers,
)
from adaptcompose.composition.graph import Adapter, Block, Empty, Slot
from adaptcompose.composition.operator import BlockOperator, Modifier
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


def build_picture(graph: Block, facts: Facts | None = None) -> Picture:
    """The boxes of a graph. Without `facts` nothing is said about layers."""
    if facts is None:
        return _picture_of(graph, None, None)
    found = list(layer_usage(graph, facts))
    words = [layers if used else f"{layers}: backbone only" for layers, used in found]
    inner = _picture_of(strip_modifiers(graph), None, facts)
    more = other_modifiers(graph)
    label = "; ".join([*words, *more])
    return Frame(label, inner) if more or any(used for _, used in found) else inner


def _picture_of(block: Block, slot: str | None, facts: Facts | None) -> Picture:
    if isinstance(block, Modifier):
        words = modifier_note(block, facts)
        return Frame(
            f"{slot}: {words}" if slot else words, _picture_of(strip_modifiers(block), None, facts)
        )
    if isinstance(block, Stack):
        row = Row(tuple(_slot(member, facts) for member in block.members))
        return Frame(slot, row) if slot else row
    if isinstance(block, Empty):
        return Box("none", "plain", slot) if slot else Row(())
    if isinstance(block, BlockOperator):
        fan = Fan(tuple(_slot(member, facts) for member in block.members))
        return Row((fan, _leaf(block, slot)))
    return _leaf(block, slot)


def _slot(slot: Slot, facts: Facts | None) -> Picture:
    return _picture_of(slot.block, slot.name, facts)


def _leaf(block: Block, slot: str | None) -> Box:
    if isinstance(block, Adapter | Fuse):
        return Box(block_title(block, slot), "new" if block.is_new else "loaded", slot)
    return Box(
        block.drawing_label if isinstance(block, BlockOperator) else str(block), "plain", slot
    )
