"""A composition laid out as boxes in rows, fans and frames, for DOT, Mermaid and SVG.

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
from adaptcompose.composition.drawing.captions import (
    layer_usage,
    modifier_note,
    other_modifiers,
    strip_modifiers,
    usage_note,
)
from adaptcompose.composition.graph import Block, Empty, WeightedPart
from adaptcompose.composition.operator import BlockOperator, Modifier
from adaptcompose.composition.operators import Stack

Style = Literal["loaded", "new", "plain"]


@dataclass(frozen=True)
class Box:
    """One block; `slot` is the name of the slot that contains it."""

    text: str
    style: Style = "plain"
    slot: str | None = None


@dataclass(frozen=True)
class Row:
    """Pictures one after another: each reads the state that the one before it writes."""

    items: tuple[Picture, ...]


@dataclass(frozen=True)
class Fan:
    """Branches that read the same state; the next picture reads the states of all of them."""

    branches: tuple[Picture, ...]


@dataclass(frozen=True)
class Frame:
    """A labelled frame: the label applies to everything inside."""

    label: str
    inner: Picture


Picture = Box | Row | Fan | Frame


def build_picture(graph: Block, facts: Facts | None = None) -> Picture:
    """Lay out a graph. Without `facts` the picture has no notes about layers."""
    if facts is None:
        return picture_of(graph, None)
    inner = picture_of(strip_modifiers(graph), facts)
    is_used = any(used for _, used in layer_usage(graph, facts))
    if is_used or other_modifiers(graph):
        return Frame(usage_note(graph, facts), inner)
    return inner


def picture_of(block: Block, facts: Facts | None, slot: str | None = None) -> Picture:
    """Lay out one block; `slot` is the name of the slot that contains it."""
    if isinstance(block, Modifier):
        note = modifier_note(block, facts)
        label = f"{slot}: {note}" if slot else note
        return Frame(label, picture_of(strip_modifiers(block), facts))
    if isinstance(block, Stack):
        row = Row(_members(block, facts))
        return Frame(slot, row) if slot else row
    if isinstance(block, Empty):
        return Box("none", "plain", slot) if slot else Row(())
    if isinstance(block, BlockOperator):
        return Row((Fan(_members(block, facts)), _box(block, slot)))
    return _box(block, slot)


def _members(block: BlockOperator, facts: Facts | None) -> tuple[Picture, ...]:
    return tuple(picture_of(slot.block, facts, slot.name) for slot in block.members)


def _box(block: Block, slot: str | None) -> Box:
    style: Style = "plain"
    if isinstance(block, WeightedPart):
        style = "new" if block.is_new else "loaded"
    return Box(block.drawing_label(slot), style, slot)
