"""A composition as text for Graphviz.

>>> from adaptcompose.composition.graph import Adapter, Slot
>>> from adaptcompose.composition.operators import Stack
>>> from adaptcompose.syntax.references import parse_ref
>>> sw = Adapter("lang/sw", ref=parse_ref("lang/sw", ["lang"]))
>>> print(render_dot(Stack((Slot("lang", sw),))))
digraph composition {
  rankdir=LR;
  node [shape=box, style="rounded,filled", fillcolor="#ffffff", fontname="sans-serif"];
  h [label="h", shape=plaintext, style=""];
  n1 [label="lang: = lang/sw", fillcolor="#e8eef7", color="#4a6fa5"];
  out [label="h", shape=plaintext, style=""];
  h -> n1;
  n1 -> out;
}
"""

from __future__ import annotations

from dataclasses import dataclass, field

from adaptcompose.backbones.layout import Facts
from adaptcompose.composition.drawing.captions import invertible_adapters
from adaptcompose.composition.drawing.picture import (
    Box,
    Fan,
    Frame,
    Picture,
    Row,
    Style,
    build_picture,
)
from adaptcompose.composition.graph import Block

_COLOURS: dict[Style, str] = {
    "loaded": ', fillcolor="#e8eef7", color="#4a6fa5"',
    "new": ', fillcolor="#fdf1dc", color="#c98a1b"',
    "plain": "",
}
_STATE = ', shape=plaintext, style=""'


def render_dot(graph: Block, facts: Facts | None = None) -> str:
    """Write a graph as a DOT digraph; equal graphs give equal texts."""
    chart = _Chart()
    chart.line("rankdir=LR;")
    fill = 'style="rounded,filled", fillcolor="#ffffff", fontname="sans-serif"'
    chart.line(f"node [shape=box, {fill}];")
    starts = []
    if found := invertible_adapters(graph, facts):
        chart.line(f"embeddings [label={_quote('embeddings')}{_STATE}];")
        starts = ["embeddings"]
        for leaf in found:
            text = f"{leaf.drawing_label()}, invertible part"
            starts = chart.box(Box(text, "new" if leaf.is_new else "loaded"), starts)
    chart.line(f"h [label={_quote('h')}{_STATE}];")
    chart.join(starts, "h")
    ends = chart.draw(build_picture(graph, facts), ["h"])
    chart.line(f"out [label={_quote('h')}{_STATE}];")
    chart.join(ends, "out")
    return "\n".join(["digraph composition {", *chart.lines, *chart.edges, "}"])


def _quote(text: str) -> str:
    r"""Quote a text for DOT.

    >>> print(_quote('"./a b"'))
    "\"./a b\""
    """
    clean = "".join(char if char.isprintable() else " " for char in text)
    escaped = clean.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@dataclass
class _Chart:
    """The lines of a digraph: nodes in their clusters, then edges; nodes are numbered in order."""

    lines: list[str] = field(default_factory=list)
    edges: list[str] = field(default_factory=list)
    depth: int = 1
    count: int = 0

    def line(self, text: str) -> None:
        self.lines.append("  " * self.depth + text)

    def join(self, starts: list[str], end: str) -> None:
        self.edges += [f"  {start} -> {end};" for start in starts]

    def draw(self, drawn: Picture, starts: list[str]) -> list[str]:
        """Draw a picture after the nodes `starts`; returns the nodes at its end."""
        if isinstance(drawn, Box):
            return self.box(drawn, starts)
        if isinstance(drawn, Frame):
            return self.frame(drawn, starts)
        if isinstance(drawn, Fan):
            ends = [end for branch in drawn.branches for end in self.draw(branch, starts)]
            return list(dict.fromkeys(ends))
        for item in drawn.items if isinstance(drawn, Row) else ():
            starts = self.draw(item, starts)
        return starts

    def box(self, box: Box, starts: list[str]) -> list[str]:
        self.count += 1
        name = f"n{self.count}"
        text = f"{box.slot}: {box.text}" if box.slot else box.text
        self.line(f"{name} [label={_quote(text)}{_COLOURS[box.style]}];")
        self.join(starts, name)
        return [name]

    def frame(self, frame: Frame, starts: list[str]) -> list[str]:
        self.count += 1
        self.line(f"subgraph cluster_{self.count} {{")
        self.depth += 1
        self.line(f'label={_quote(frame.label)}; style="rounded,dashed"; color="#888888";')
        ends = self.draw(frame.inner, starts)
        self.depth -= 1
        self.line("}")
        return ends
