"""A composition as an SVG picture of its own: no program, font or style sheet is needed.

The state runs from left to right; branches stand one above another. Colours follow the reader's
light or dark theme.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from adaptcompose.backbones.layout import Facts
from adaptcompose.composition.canonical import canonical
from adaptcompose.composition.drawing.picture import Box, Fan, Frame, Picture, picture
from adaptcompose.composition.drawing.terminal import embedded, shorten, title
from adaptcompose.composition.graph import Block

_LETTER, _HEIGHT, _SLOT, _PAD = 7.3, 34.0, 16.0, 14.0
_GAP, _BETWEEN, _FRAME, _MARGIN = 34.0, 12.0, 14.0, 16.0
_LONGEST = 48

# in a page, the style of one picture would hold for all the others
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
class _Drawn:
    """Lines of SVG around the origin of their own; the state enters and leaves at height `port`."""

    width: float
    above: float
    below: float
    lines: tuple[str, ...] = ()
    forked: bool = False


def svg(graph: Block, facts: Facts | None = None) -> str:
    """The picture as one text; equal graphs give equal texts."""
    drawn = _row([_state("h"), _draw(picture(graph, facts)), _state("h")])
    if found := embedded(graph, facts):
        leaves = [
            _box(Box(f"{title(leaf)}, invertible", "new" if leaf.new else "loaded"))
            for leaf in found
        ]
        drawn = _row([_state("embeddings"), *leaves, drawn])
    width, height = drawn.width + 2 * _MARGIN, drawn.above + drawn.below + 2 * _MARGIN
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    name = quoteattr(_printable(shorten(canonical(graph), 300)))
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" class="composition" '
            f'{size} role="img" aria-label={name}>',
            f"<style>{_STYLE}</style>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>',
            *_moved(drawn, _MARGIN, _MARGIN + drawn.above),
            "</svg>",
        ]
    )


def _draw(drawn: Picture) -> _Drawn:
    if isinstance(drawn, Box):
        return _box(drawn)
    if isinstance(drawn, Frame):
        return _frame(drawn)
    if isinstance(drawn, Fan):
        return _fan([_draw(branch) for branch in drawn.branches])
    return _row([_draw(item) for item in drawn.items])


def _moved(drawn: _Drawn, x: float, y: float) -> Iterator[str]:
    if drawn.lines:
        yield f'<g transform="translate({x:.1f} {y:.1f})">'
        yield from drawn.lines
        yield "</g>"


def _text(words: str, x: float, y: float, kind: str = "", anchor: str = "middle") -> str:
    mark = f' class="{kind}"' if kind else ""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f"<text {place}{mark}>{escape(_printable(words))}</text>"


def _printable(words: str) -> str:
    """XML has no place for the rest, whatever a folder is called."""
    return "".join(char if char.isprintable() else " " for char in words)


def _state(name: str) -> _Drawn:
    width = len(name) * _LETTER + 8
    return _Drawn(width, 8, 8, (_text(name, width / 2, 4),))


def _box(box: Box) -> _Drawn:
    words = shorten(box.text, _LONGEST)
    slot = shorten(box.slot, _LONGEST) if box.slot else ""
    width = max(len(words) * _LETTER, len(slot) * 6.4) + 2 * _PAD
    half = _HEIGHT / 2
    lines = [f'<g class="{box.style}"><title>{escape(_printable(box.text))}</title>']
    lines.append(f'<rect y="{-half:.1f}" width="{width:.1f}" height="{_HEIGHT:.0f}"/>')
    lines += [_text(words, width / 2, 4), "</g>"]
    if slot:
        lines.append(_text(slot, 4, -half - 5, "small", "start"))
    return _Drawn(width, half + (_SLOT if slot else 0), half, tuple(lines))


def _arrow(x: float, end: float, *, forked: bool) -> str:
    """Into what forks by itself there is a line without a tip."""
    if forked:
        return f'<path d="M{x:.1f} 0H{end + 3:.1f}"/>'
    return f'<path d="M{x:.1f} 0H{end:.1f}" marker-end="url(#tip)"/>'


def _row(items: list[_Drawn]) -> _Drawn:
    """In one line, with an arrow into each that is something by itself."""
    present = [item for item in items if item.width]
    lines: list[str] = []
    x = 0.0
    for number, item in enumerate(present):
        if number:
            lines.append(_arrow(x + 3, x + _GAP - 3, forked=item.forked))
            x += _GAP
        lines += _moved(item, x, 0)
        x += item.width
    above = max((item.above for item in present), default=0.0)
    below = max((item.below for item in present), default=0.0)
    return _Drawn(x, above, below, tuple(lines), bool(present) and present[0].forked)


def _fan(branches: list[_Drawn]) -> _Drawn:
    """One above another, with curves from the left and to the right."""
    height = sum(one.above + one.below for one in branches) + _BETWEEN * (len(branches) - 1)
    widest = max((one.width for one in branches), default=0.0)
    lines: list[str] = []
    y, end = -height / 2, widest + 2 * _GAP
    for one in branches:
        port = y + one.above
        half = _GAP / 2
        curve = f"M0 0C{half:.1f} 0 {half:.1f} {port:.1f} {_GAP - 3:.1f} {port:.1f}"
        lines.append(f'<path d="{curve}" marker-end="url(#tip)"/>')
        lines += _moved(one, _GAP, port)
        start = _GAP + one.width + 3
        bend = widest + _GAP + half
        back = f"M{start:.1f} {port:.1f}H{widest + _GAP:.1f}"
        lines.append(f'<path d="{back}C{bend:.1f} {port:.1f} {bend:.1f} 0 {end:.1f} 0"/>')
        y += one.above + one.below + _BETWEEN
    return _Drawn(end, height / 2, height / 2, tuple(lines), forked=True)


def _frame(frame: Frame) -> _Drawn:
    inner = _draw(frame.inner)
    label = shorten(frame.label, 100)
    width = max(inner.width, len(label) * 6.4) + 2 * _FRAME
    above, below = inner.above + _FRAME + _SLOT, inner.below + _FRAME
    box = f'y="{-above:.1f}" width="{width:.1f}" height="{above + below:.1f}"'
    lines = [f'<rect class="frame" {box}/>', _text(label, 10, -above + 15, "small", "start")]
    lines += [f'<path d="M0 0H{_FRAME:.1f}"/>', *_moved(inner, _FRAME, 0)]
    lines.append(f'<path d="M{_FRAME + inner.width:.1f} 0H{width:.1f}"/>')
    return _Drawn(width, above, below, tuple(lines))
