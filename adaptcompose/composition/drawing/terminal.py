"""A composition as a text drawing for the terminal, at most 100 columns wide.

>>> from adaptcompose.composition.graph import Adapter, Slot
>>> from adaptcompose.composition.operators import Drop, Stack
>>> from adaptcompose.syntax.references import parse_ref
>>> sw = Adapter("lang/sw", ref=parse_ref("lang/sw", ["lang"]))
>>> print(render_terminal(Drop(body=Stack((Slot("lang", sw),)), bottom=5)))
    ┌ lang ─────┐
h ─▶│ = lang/sw │─▶ h
    └───────────┘
<BLANKLINE>
with drop(bottom=5)
= loaded   + new
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from adaptcompose.backbones.layout import Facts
from adaptcompose.composition.canonical_text import shared_parts
from adaptcompose.composition.drawing.captions import (
    elide_middle,
    invertible_adapters,
    layer_usage,
    modifier_note,
    other_modifiers,
    strip_modifiers,
)
from adaptcompose.composition.graph import Adapter, Block, Empty, Slot, WeightedPart, walk
from adaptcompose.composition.operator import BlockOperator, Modifier
from adaptcompose.composition.operators import Stack

WIDTH = 100
_MAX_BRANCHES = 16  # a larger fusion does not fit on a screen
_MIN_TITLE_LENGTH = 8


def render_terminal(graph: Block, facts: Facts | None = None) -> str:
    """Draw a graph as text: the state `h` flows from left to right, with one row per branch.

    Without `facts` the drawing has no notes about layers and embeddings. If it would be wider than
    100 columns, names are shortened and rows are broken. A fusion of more than 16 members is drawn
    with `…` in place of some of them.
    """
    lines = [
        *_embeddings(graph, facts),
        *_rows(strip_modifiers(graph), facts),
        "",
        *_legend(graph, facts),
    ]
    return "\n".join(line.rstrip() for line in lines).rstrip()


def _embeddings(graph: Block, facts: Facts | None) -> list[str]:
    found = invertible_adapters(graph, facts)
    if not found:
        return []
    line = f"embeddings ─▶ {' ─▶ '.join(leaf.drawing_label() for leaf in found)}, invertible ─▶ h"
    if len(line) > WIDTH:
        line = f"embeddings ─▶ {len(found)} invertible parts ─▶ h"
    return [line, "(before the vocabulary of a language-model head: the inverse)", ""]


def _legend(graph: Block, facts: Facts | None) -> Iterator[str]:
    """Yield the notes on the whole drawing."""
    if facts is None:
        if isinstance(graph, Modifier):
            yield elide_middle(f"with {modifier_note(graph, None)}", WIDTH)
    else:
        if words := other_modifiers(graph):
            yield elide_middle(f"with {' | '.join(words)}", WIDTH)
        for layers, used in layer_usage(graph, facts):
            yield f"{layers}: {'as drawn' if used else 'backbone only'}"
    if any(isinstance(block, WeightedPart) for block in walk(graph)):
        yield "= loaded   + new"
    for name, count in shared_parts(graph).items():
        yield elide_middle(f"{name}: the same weights in {count} places", WIDTH)


def _rows(graph: Block, facts: Facts | None) -> list[str]:
    """The stages of the outermost stack, in as many rows as necessary."""
    longest = max((len(text) for text in _texts(graph, facts)), default=0)
    longest = min(max(longest, _MIN_TITLE_LENGTH), WIDTH)  # a longer title never fits
    limits = [(length, None) for length in range(longest, _MIN_TITLE_LENGTH - 1, -1)]
    for title_length, stages in [*limits, (_MIN_TITLE_LENGTH, 2)]:
        rows = _break_rows(_TextRenderer(facts, title_length, stages).stages(graph))
        if max(row.width for row in rows) <= WIDTH:
            break
    return [
        line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"
        for row in rows
        for line in row.lines
    ]


def _texts(graph: Block, facts: Facts | None) -> Iterator[str]:
    """Yield the texts in a drawing, whose longest one limits how far titles need shortening."""
    for block in walk(graph):
        if isinstance(block, Modifier):
            yield modifier_note(block, facts)
        elif isinstance(block, Stack):
            yield from (str(slot.name) for slot in block.named_slots)
        elif isinstance(block, WeightedPart | BlockOperator):
            yield block.drawing_label()


def _break_rows(stages: list[TextTile]) -> list[TextTile]:
    rows: list[list[TextTile]] = [[]]
    for stage in stages:
        if rows[-1] and sum(p.width for p in (*rows[-1], stage)) + 6 > WIDTH:
            rows.append([])
        rows[-1].append(stage)
    last = len(rows) - 1
    return [
        _join_horizontally(
            _text_tile("… " if number else "h "),
            *row,
            _text_tile("─▶ …" if number < last else "─▶ h"),
        )
        for number, row in enumerate(rows)
    ]


@dataclass(frozen=True)
class TextTile:
    """Lines of equal width; the arrow enters and leaves in line number `port`."""

    lines: tuple[str, ...]
    port: int = 0

    @property
    def width(self) -> int:
        return len(self.lines[0])

    def widen(self, width: int) -> TextTile:
        """Extend the lines to a width; the arrow is drawn on to the end."""
        lines = (
            line.ljust(width, "─" if number == self.port else " ")
            for number, line in enumerate(self.lines)
        )
        return TextTile(tuple(lines), self.port)


def _join_horizontally(*pictures: TextTile) -> TextTile:
    """Put tiles side by side, with their ports in one line."""
    above = max(picture.port for picture in pictures)
    below = max(len(picture.lines) - picture.port for picture in pictures)
    columns = []
    for picture in pictures:
        blank = (" " * picture.width,)
        before = above - picture.port
        after = below - len(picture.lines) + picture.port
        columns.append(blank * before + picture.lines + blank * after)
    return TextTile(tuple(map("".join, zip(*columns, strict=True))), above)


def _text_tile(text: str) -> TextTile:
    return TextTile((text,))


def _box(text: str, slot: str | None) -> TextTile:
    """An arrow to a box around `text`; the name of the slot is in the upper edge of the box."""
    width = max(len(text), len(slot) + 1 if slot else 0)
    top = f"┌{f' {slot} ' if slot else ''}".ljust(width + 3, "─")
    lines = (f"  {top}┐", f"─▶│ {text.ljust(width)} │", f"  └{'─' * (width + 2)}┘")
    return TextTile(lines, 1)


def _fan(branches: list[TextTile]) -> TextTile:
    """Draw a line that splits into the branches and joins after them."""
    width = max(branch.width for branch in branches)
    lines: list[str] = []
    ports: list[int] = []
    for branch in branches:
        ports.append(len(lines) + branch.port)
        lines += branch.widen(width).lines
    middle = ports[(len(ports) - 1) // 2]
    drawn = []
    for number, line in enumerate(lines):
        before = "─" if number == middle else " "
        left, right = _joints(number, ports, middle)
        filler = "─" if number in ports else " "
        drawn.append(f"{before}{left}{line}{filler}{right}")
    return TextTile(tuple(drawn), middle)


def _joints(number: int, ports: list[int], middle: int) -> tuple[str, str]:
    """The characters at the left and the right end of a line of a fan."""
    if len(ports) == 1:
        return ("─", "─") if number == middle else (" ", " ")
    if not ports[0] <= number <= ports[-1]:
        return " ", " "
    if number == middle:
        return ("┬", "┬") if number == ports[0] else ("┼", "┼")
    if number == ports[0]:
        return "┌", "┐"
    if number == ports[-1]:
        return "└", "┘"
    return ("├", "┤") if number in ports else ("│", "│")


@dataclass(frozen=True)
class _TextRenderer:
    """Draws blocks as tiles, each of which begins with its own arrow.

    Titles have at most `max_title_length` characters; of the stages of inner stacks at most
    `max_stages` are drawn.
    """

    facts: Facts | None
    max_title_length: int
    max_stages: int | None = None

    def stages(self, block: Block) -> list[TextTile]:
        """The stages of a stack; any other block is one stage."""
        if not isinstance(block, Stack):
            return [] if isinstance(block, Empty) else [self.block(block)]
        return [self.slot(s) for s in block.members if s.name or not isinstance(s.block, Empty)]

    def slot(self, slot: Slot, *, framed: bool = True) -> TextTile:
        """Draw a block with its slot: in the edge of a box, or on a brace below other tiles."""
        name = elide_middle(slot.name, self.max_title_length) if slot.name else None
        carries = isinstance(slot.block, Adapter | BlockOperator) and not isinstance(
            slot.block, Stack
        )
        if name is None or carries:
            return self.block(slot.block, slot.name, framed=framed)
        if isinstance(slot.block, Empty):
            return _box("none", name)
        return _add_brace(self.block(slot.block, framed=framed), name)

    def block(self, block: Block, slot: str | None = None, *, framed: bool = True) -> TextTile:
        if isinstance(block, Modifier):
            words = elide_middle(modifier_note(block, self.facts), self.max_title_length)
            return _add_brace(self.block(strip_modifiers(block), slot, framed=framed), words)
        if isinstance(block, Stack):
            return self._chain(block, framed=framed)
        if isinstance(block, Empty):
            return _text_tile("─▶ ")
        name = elide_middle(slot, self.max_title_length) if slot else None
        text = elide_middle(block.drawing_label(slot), self.max_title_length)
        if isinstance(block, BlockOperator):
            return _join_horizontally(self._branches(block), _box(text, name))
        return _box(text, name) if framed or name else _text_tile(f"─▶ {text} ")

    def _chain(self, stack: Stack, *, framed: bool) -> TextTile:
        members = list(stack.members)
        if self.max_stages is not None and len(members) > self.max_stages:
            first, last = (self.slot(members[end], framed=framed) for end in (0, -1))
            return _join_horizontally(first, _text_tile(f"─▶ … {len(members) - 2} more "), last)
        return _join_horizontally(*(self.slot(member, framed=framed) for member in members))

    def _branches(self, block: BlockOperator) -> TextTile:
        members = list(block.members)
        if (hidden := len(members) - _MAX_BRANCHES) <= 0:
            return _fan([self.slot(member, framed=False) for member in members])
        shown = [self.slot(member, framed=False) for member in members[: _MAX_BRANCHES - 2]]
        more = _text_tile(f"─▶ … {hidden + 1} more ")
        return _fan([*shown, more, self.slot(members[-1], framed=False)])


def _add_brace(inner: TextTile, words: str) -> TextTile:
    """Draw a brace with a note below a tile."""
    inner = inner.widen(max(inner.width, len(words) + 6))
    brace = f"  ╰ {words} ".ljust(inner.width - 1, "─") + "╯"
    return TextTile((*inner.lines, brace), inner.port)
