"""Plots as SVG: curves with a band over seeds, bars, and heat maps.

An SVG needs no script, font or style sheet. Its colours follow the light or dark theme of the
reader, and every value that a colour or a height shows is also written as text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from adaptcompose.compiler.plan import elide_middle

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 620.0, 240.0, 64.0, 30.0, 46.0
_LETTER, _BAR, _LONGEST = 6.6, 22.0, 44
_DASHES = ("", ' stroke-dasharray="6 4"')
_PALE, _DEEP = (233, 240, 249), (23, 70, 130)  # RGB of heat maps, the same in both themes

_STYLE = """\
.plot text{font:12px system-ui,sans-serif;fill:#1b2a41}
.plot .small{font-size:11px;fill:#4d5866}
.plot .grid{stroke:#d8dde4;fill:none}
.plot .a{stroke:#1f66b0;fill:none;stroke-width:2}.plot .b{stroke:#b3590a;fill:none;stroke-width:2}
.plot .a.full{fill:#1f66b0;stroke:none}.plot .b.full{fill:#b3590a;stroke:none}
.plot .band{fill-opacity:.2}
.plot .whisker{stroke:#1b2a41;fill:none;stroke-width:1.4}
.plot .cell.pale{fill:#000}.plot .cell.deep{fill:#fff}
@media (prefers-color-scheme:dark){
.plot text{fill:#e6e9ee}.plot .small{fill:#b4bcc7}.plot .grid{stroke:#3a424d}
.plot .a{stroke:#4c8fdc}.plot .b{stroke:#d07f22}
.plot .a.full{fill:#4c8fdc}.plot .b.full{fill:#d07f22}.plot .whisker{stroke:#fff}
}"""


@dataclass(frozen=True)
class Point:
    """The values of several seeds at one x of a curve."""

    x: float
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return math.fsum(self.values) / len(self.values)


@dataclass(frozen=True)
class Bar:
    """A bar: its mean, its standard deviation, and the text that shows both."""

    name: str
    mean: float
    sd: float
    value_text: str
    is_highlighted: bool = False


@dataclass(frozen=True)
class Axis:
    """A linear axis. The first tick is at pixel `start`, the last one at pixel `end`."""

    ticks: tuple[float, ...]
    start: float
    end: float

    def position_of(self, value: float) -> float:
        share = (value - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])
        return self.start + share * (self.end - self.start)


def round_ticks(low: float, high: float, min_step: float = 0.0) -> tuple[float, ...]:
    """Round, equally spaced numbers that enclose low and high, at least `min_step` apart.

    >>> round_ticks(0.013, 0.94), round_ticks(0, 150), round_ticks(0, 2, min_step=1)
    ((0.0, 0.2, 0.4, 0.6, 0.8, 1.0), (0.0, 50.0, 100.0, 150.0), (0.0, 1.0, 2.0))
    """
    if high - low <= max(1e-7 * abs(low), 1e-300):
        spare = abs(low) / 10 or 1.0
        low, high = low - spare, high + spare
    rough = max((high - low) / 5, min_step)
    power = math.floor(math.log10(rough))
    step = next(s for n in (1, 2, 5, 10) if (s := n * 10.0**power) >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return tuple(round(number * step, max(0, 1 - power)) for number in range(first, last + 1))


def render_curves(title: str, x: str, y: str, lines: Mapping[str, Sequence[Point]]) -> str:
    """At most two curves: the mean over seeds, in a band from the lowest value to the highest."""
    points = [point for line in lines.values() for point in line]
    values = [value for point in points for value in point.values]
    across = Axis(round_ticks(0, max(p.x for p in points), min_step=1), _LEFT, _WIDTH - 20)
    up = Axis(round_ticks(min(values), max(values)), _HEIGHT - _BOTTOM, _TOP)
    body = [*_frame(across, up, x, y)]
    for number, (name, line) in enumerate(lines.items()):
        body += _curve(name, line, across, up, number)
        left = _LEFT + 200 * number
        body.append(f'<path class="{"ab"[number]}"{_DASHES[number]} d="M{left:.0f} 14h28"/>')
        body.append(_text(name, left + 34, 18))
    return _picture(title, _WIDTH, _HEIGHT, body)


def _frame(across: Axis, up: Axis, x: str, y: str) -> Iterator[str]:
    """The axes of curves, with ticks and labels."""
    for tick in up.ticks:
        height = up.position_of(tick)
        yield f'<path class="grid" d="M{across.start:.1f} {height:.1f}H{across.end:.1f}"/>'
        yield _text(f"{tick:.10g}", across.start - 6, height + 4, "small", "end")
    for tick in across.ticks:
        yield _text(f"{tick:.10g}", across.position_of(tick), up.start + 16, "small", "middle")
    yield _text(x, (across.start + across.end) / 2, up.start + 36, "small", "middle")
    transform = f"translate(14 {(up.start + up.end) / 2:.1f}) rotate(-90)"
    yield f'<g transform="{transform}">{_text(y, 0, 0, "small", "middle")}</g>'


def _curve(name: str, line: Sequence[Point], across: Axis, up: Axis, number: int) -> Iterator[str]:
    kind = "ab"[number]
    edge = [(point.x, max(point.values)) for point in line]
    edge += [(point.x, min(point.values)) for point in reversed(line)]
    if any(len(point.values) > 1 for point in line):
        yield f'<polygon class="{kind} full band" points="{_path_points(edge, across, up)}"/>'
    if len(line) == 1:  # the band of a single point has no area
        yield f'<polyline class="{kind}" points="{_path_points(edge, across, up)}"/>'
    middle = _path_points([(point.x, point.mean) for point in line], across, up)
    yield f'<polyline class="{kind}"{_DASHES[number]} points="{middle}"/>'
    for point in line:
        text = f"{name}, step {point.x:.10g}: {point.mean:.5g}"
        if len(point.values) > 1:
            seeds = f"{len(point.values)} seeds"
            text += f" ({min(point.values):.5g} to {max(point.values):.5g}, {seeds})"
        centre = f'cx="{across.position_of(point.x):.1f}" cy="{up.position_of(point.mean):.1f}"'
        yield f'<circle class="{kind} full" r="2.6" {centre}>{_tooltip(text)}</circle>'


def _path_points(points: Sequence[tuple[float, float]], across: Axis, up: Axis) -> str:
    return " ".join(f"{across.position_of(x):.1f},{up.position_of(y):.1f}" for x, y in points)


def render_bars(title: str, unit: str, groups: Mapping[str, Sequence[Bar]]) -> str:
    """Horizontal bars from zero, in groups. Whiskers show the standard deviation."""
    every = [bar for group in groups.values() for bar in group]
    left = 16 + _LETTER * max(min(len(bar.name), _LONGEST) for bar in every)
    right = 16 + _LETTER * max(len(bar.value_text) for bar in every)
    across = Axis(round_ticks(0, max(bar.mean + bar.sd for bar in every) or 1), left, left + 380)
    bottom = sum(34 + _BAR * len(group) for group in groups.values())
    body = []
    for tick in across.ticks:
        x = across.position_of(tick)
        body.append(f'<path class="grid" d="M{x:.1f} 24V{bottom:.1f}"/>')
        body.append(_text(f"{tick:.10g}", x, bottom + 16, "small", "middle"))
    y = 0.0
    for name, group in groups.items():
        body.append(_text(elide_middle(name, 60), across.start, y + 18))
        for number, bar in enumerate(group):
            body += _bar(bar, name, across, y + 26 + _BAR * number)
        y += 34 + _BAR * len(group)
    body.append(_text(unit, (across.start + across.end) / 2, bottom + 36, "small", "middle"))
    return _picture(title, across.end + right, bottom + 46, body)


def _bar(bar: Bar, group: str, across: Axis, y: float) -> Iterator[str]:
    end, middle = across.position_of(bar.mean), y + (_BAR - 6) / 2
    kind = "b" if bar.is_highlighted else "a"
    size = f'width="{max(end - across.start, 0):.1f}" height="{_BAR - 6:.0f}"'
    corner = f'x="{across.start:.1f}" y="{y:.1f}"'
    tooltip = _tooltip(f"{bar.name}, {group}: {bar.value_text}")
    yield f'<rect class="{kind} full" {corner} {size}>{tooltip}</rect>'
    low, high = across.position_of(max(bar.mean - bar.sd, 0)), across.position_of(bar.mean + bar.sd)
    if bar.sd > 0:
        caps = f"M{low:.1f} {middle - 4:.1f}v8M{high:.1f} {middle - 4:.1f}v8"
        yield f'<path class="whisker" d="M{low:.1f} {middle:.1f}H{high:.1f}{caps}"/>'
    yield _text(elide_middle(bar.name, _LONGEST), across.start - 8, middle + 4, "", "end")
    yield _text(bar.value_text, high + 6, middle + 4, "small")


def render_heatmap(
    title: str, corner: str, rows: Mapping[str, Sequence[float]], names: Sequence[str]
) -> str:
    """A heat map: a number in each cell, darker if it is larger. A cell with 0 stays empty."""
    top = 26 + 0.7 * _LETTER * max(min(len(name), _LONGEST) for name in names)
    left = 20 + _LETTER * max(len(corner), *(len(row) for row in rows))
    maximum = max((value for row in rows.values() for value in row), default=0.0) or 1.0
    body = [_text(corner, left - 8, top - 6, "small", "end")]
    for column, name in enumerate(names):
        turned = (
            f'<g transform="translate({left + 56 * column + 24:.0f} {top - 8:.0f}) rotate(-45)">'
        )
        body.append(f"{turned}{_tooltip(name)}{_text(elide_middle(name, _LONGEST), 0, 0)}</g>")
    for number, (row, values) in enumerate(rows.items()):
        y = top + 24 * number
        body.append(_text(row, left - 8, y + 16, "", "end"))
        for column, value in enumerate(values):
            text = f"{row}, {names[column]}: {value:.4f}"
            body += _cell(value, value / maximum, text, left + 56 * column, y)
    width = left + 56 * len(names) + top
    return _picture(title, width, top + 24 * len(rows) + 8, body)


def _cell(value: float, share: float, text: str, x: float, y: float) -> Iterator[str]:
    box = f'x="{x:.1f}" y="{y:.1f}" width="54" height="22"'
    if value == 0:
        yield f'<rect class="grid" {box}>{_tooltip(text)}</rect>'
        return
    colour = ",".join(f"{a + share * (b - a):.0f}" for a, b in zip(_PALE, _DEEP, strict=True))
    yield f'<rect fill="rgb({colour})" {box}>{_tooltip(text)}</rect>'
    kind = "cell deep" if share > 0.7 else "cell pale"
    yield _text(f"{value:.2f}", x + 27, y + 15, kind, "middle")


def _picture(title: str, width: float, height: float, body: Sequence[str]) -> str:
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    start = '<svg xmlns="http://www.w3.org/2000/svg" class="plot" role="img" '
    start += f'aria-label="{_strip_unprintable(title)}" {size}>'
    return "\n".join([start, f"<style>{_STYLE}</style>", *body, "</svg>"])


def _text(words: str, x: float, y: float, kind: str = "", anchor: str = "start") -> str:
    mark = f' class="{kind}"' if kind else ""
    start = f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{mark}>'
    return f"{start}{_strip_unprintable(words)}</text>"


def _tooltip(words: str) -> str:
    """The text that appears under the pointer."""
    return f"<title>{_strip_unprintable(words)}</title>"


def _strip_unprintable(words: str) -> str:
    """Escape a text for XML, which does not allow control characters; they become spaces."""
    return escape("".join(char if char.isprintable() else " " for char in words))
