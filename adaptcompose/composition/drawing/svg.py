"""A composition as a self-contained SVG image: it needs no font, style sheet or script.

The state flows from left to right, and branches are drawn above each other. The colours follow
the light or dark theme of the reader.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from adaptcompose.backbones.layout import Facts
from adaptcompose.composition.canonical_text import format_canonical
from adaptcompose.composition.drawing.captions import elide_middle, invertible_adapters
from adaptcompose.composition.drawing.picture import Box, Fan, Frame, Picture, build_picture
from adaptcompose.composition.graph import Block

_CHAR_WIDTH, _BOX_HEIGHT, _SLOT_HEIGHT, _PAD = 7.3, 34.0, 16.0, 14.0
_COLUMN_GAP, _BRANCH_GAP, _FRAME_PADDING, _MARGIN = 34.0, 12.0, 14.0, 16.0
_MAX_TEXT_LENGTH = 48

# the class keeps this style away from other images in the same page
_STYLE = """\
.composition text{font:12px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;fill:#1b2a41}
.composition .small{font-size:10.5px;fill:#5b6675}
.composition rect{rx:7px;fill:#fff;stroke:#8a94a3;stroke-width:1.2}
.composition .loaded rect{fill:#e8eef7;stroke:#4a6fa5}
.composition .new rect{fill:#fdf1dc;stroke:#c98a1b}
.composition .frame{fill:none;stroke:#a8b0bb;stroke-dasharray:5 4}
.composition path{fill:none;stroke:#5b6675;stroke-width:1.4}
.composition marker path{fill:#5b6675;stroke:none}
@media (prefers-color-scheme:dark){
.composition text{fill:#e6e9ee}
.composition .small{fill:#a8b0bb}
.composition rect{fill:#222831;stroke:#7b8594}
.composition .loaded rect{fill:#1f2d43;stroke:#6f97d1}
.composition .new rect{fill:#3a2c12;stroke:#e0a63a}
.composition .frame{fill:none;stroke:#5b6675}
.composition path{stroke:#a8b0bb}
.composition marker path{fill:#a8b0bb}
}"""


@dataclass(frozen=True)
class _SvgTile:
    """Lines of SVG; the state enters at (0, 0) and leaves at (width, 0).

    The tile extends `above` and `below` that line. A forked tile begins with several branches.
    """

    width: float
    above: float
    below: float
    lines: tuple[str, ...] = ()
    is_forked: bool = False


def render_svg(graph: Block, facts: Facts | None = None) -> str:
    """Draw a graph as SVG; equal graphs give equal texts."""
    drawn = _row([_state("h"), _draw(build_picture(graph, facts)), _state("h")])
    if found := invertible_adapters(graph, facts):
        leaves = [
            _box(Box(f"{leaf.drawing_label()}, invertible", "new" if leaf.is_new else "loaded"))
            for leaf in found
        ]
        drawn = _row([_state("embeddings"), *leaves, drawn])
    width, height = drawn.width + 2 * _MARGIN, drawn.above + drawn.below + 2 * _MARGIN
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    name = quoteattr(_printable(elide_middle(format_canonical(graph), 300)))
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" class="composition" '
            f'{size} role="img" aria-label={name}>',
            f"<style>{_STYLE}</style>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>',
            *_translate(drawn, _MARGIN, _MARGIN + drawn.above),
            "</svg>",
        ]
    )


def _draw(drawn: Picture) -> _SvgTile:
    if isinstance(drawn, Box):
        return _box(drawn)
    if isinstance(drawn, Frame):
        return _frame(drawn)
    if isinstance(drawn, Fan):
        return _fan([_draw(branch) for branch in drawn.branches])
    return _row([_draw(item) for item in drawn.items])


def _translate(drawn: _SvgTile, x: float, y: float) -> Iterator[str]:
    if drawn.lines:
        yield f'<g transform="translate({x:.1f} {y:.1f})">'
        yield from drawn.lines
        yield "</g>"


def _text(words: str, x: float, y: float, kind: str = "", anchor: str = "middle") -> str:
    mark = f' class="{kind}"' if kind else ""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f"<text {place}{mark}>{escape(_printable(words))}</text>"


def _printable(words: str) -> str:
    """Replace the characters that XML does not allow, which a folder's name may contain."""
    return "".join(char if char.isprintable() else " " for char in words)


def _state(name: str) -> _SvgTile:
    width = len(name) * _CHAR_WIDTH + 8
    return _SvgTile(width, 8, 8, (_text(name, width / 2, 4),))


def _box(box: Box) -> _SvgTile:
    words = elide_middle(box.text, _MAX_TEXT_LENGTH)
    slot = elide_middle(box.slot, _MAX_TEXT_LENGTH) if box.slot else ""
    width = max(len(words) * _CHAR_WIDTH, len(slot) * 6.4) + 2 * _PAD
    half = _BOX_HEIGHT / 2
    lines = [f'<g class="{box.style}"><title>{escape(_printable(box.text))}</title>']
    lines.append(f'<rect y="{-half:.1f}" width="{width:.1f}" height="{_BOX_HEIGHT:.0f}"/>')
    lines += [_text(words, width / 2, 4), "</g>"]
    if slot:
        lines.append(_text(slot, 4, -half - 5, "small", "start"))
    return _SvgTile(width, half + (_SLOT_HEIGHT if slot else 0), half, tuple(lines))


def _arrow(x: float, end: float, *, is_forked: bool) -> str:
    """A horizontal line to `end`; it has no tip before a fork, whose branches have tips."""
    if is_forked:
        return f'<path d="M{x:.1f} 0H{end + 3:.1f}"/>'
    return f'<path d="M{x:.1f} 0H{end:.1f}" marker-end="url(#tip)"/>'


def _row(items: list[_SvgTile]) -> _SvgTile:
    """Put tiles in one line, with an arrow between them; tiles without content are left out."""
    present = [item for item in items if item.width]
    lines: list[str] = []
    x = 0.0
    for number, item in enumerate(present):
        if number:
            lines.append(_arrow(x + 3, x + _COLUMN_GAP - 3, is_forked=item.is_forked))
            x += _COLUMN_GAP
        lines += _translate(item, x, 0)
        x += item.width
    above = max((item.above for item in present), default=0.0)
    below = max((item.below for item in present), default=0.0)
    return _SvgTile(x, above, below, tuple(lines), bool(present) and present[0].is_forked)


def _fan(branches: list[_SvgTile]) -> _SvgTile:
    """Put tiles above each other, with curves from the left end and to the right end."""
    height = sum(branch.above + branch.below for branch in branches) + _BRANCH_GAP * (
        len(branches) - 1
    )
    widest = max((branch.width for branch in branches), default=0.0)
    lines: list[str] = []
    y, end = -height / 2, widest + 2 * _COLUMN_GAP
    for branch in branches:
        port = y + branch.above
        half = _COLUMN_GAP / 2
        curve = f"M0 0C{half:.1f} 0 {half:.1f} {port:.1f} {_COLUMN_GAP - 3:.1f} {port:.1f}"
        lines.append(f'<path d="{curve}" marker-end="url(#tip)"/>')
        lines += _translate(branch, _COLUMN_GAP, port)
        start = _COLUMN_GAP + branch.width + 3
        bend = widest + _COLUMN_GAP + half
        back = f"M{start:.1f} {port:.1f}H{widest + _COLUMN_GAP:.1f}"
        lines.append(f'<path d="{back}C{bend:.1f} {port:.1f} {bend:.1f} 0 {end:.1f} 0"/>')
        y += branch.above + branch.below + _BRANCH_GAP
    return _SvgTile(end, height / 2, height / 2, tuple(lines), is_forked=True)


def _frame(frame: Frame) -> _SvgTile:
    inner = _draw(frame.inner)
    label = elide_middle(frame.label, 100)
    width = max(inner.width, len(label) * 6.4) + 2 * _FRAME_PADDING
    above, below = inner.above + _FRAME_PADDING + _SLOT_HEIGHT, inner.below + _FRAME_PADDING
    box = f'y="{-above:.1f}" width="{width:.1f}" height="{above + below:.1f}"'
    lines = [f'<rect class="frame" {box}/>', _text(label, 10, -above + 15, "small", "start")]
    lines += [f'<path d="M0 0H{_FRAME_PADDING:.1f}"/>', *_translate(inner, _FRAME_PADDING, 0)]
    lines.append(f'<path d="M{_FRAME_PADDING + inner.width:.1f} 0H{width:.1f}"/>')
    return _SvgTile(width, above, below, tuple(lines))
