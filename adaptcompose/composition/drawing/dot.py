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

from adaptcompose.backbones.layout import Facts
from adaptcompose.composition.drawing.captions import invertible_adapters
from adaptcompose.composition.drawing.chart import Chart
from adaptcompose.composition.drawing.picture import Frame, Style, build_picture
from adaptcompose.composition.graph import Block

_COLOURS: dict[Style, str] = {
    "loaded": ', fillcolor="#e8eef7", color="#4a6fa5"',
    "new": ', fillcolor="#fdf1dc", color="#c98a1b"',
    "plain": "",
}
_STATE = ', shape=plaintext, style=""'


def render_dot(graph: Block, facts: Facts | None = None) -> str:
    """Write a graph as a DOT digraph; equal graphs give equal texts."""
    chart = _DotChart()
    chart.line("rankdir=LR;")
    fill = 'style="rounded,filled", fillcolor="#ffffff", fontname="sans-serif"'
    chart.line(f"node [shape=box, {fill}];")
    invertible = invertible_adapters(graph, facts)
    starts = chart.embeddings(invertible) if invertible else []
    chart.line(chart.state("h", "h"))
    chart.join(starts, "h")
    ends = chart.draw(build_picture(graph, facts), ["h"])
    chart.line(chart.state("out", "h"))
    chart.join(ends, "out")
    edges = (f"  {edge}" for edge in chart.edges)
    return "\n".join(["digraph composition {", *chart.lines, *edges, "}"])


def _quote(text: str) -> str:
    r"""Quote a text for DOT.

    >>> print(_quote('"./a b"'))
    "\"./a b\""
    """
    clean = "".join(char if char.isprintable() else " " for char in text)
    escaped = clean.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


class _DotChart(Chart):
    """A digraph; a frame is a cluster, numbered with the nodes."""

    def node(self, name: str, text: str, style: Style) -> str:
        return f"{name} [label={_quote(text)}{_COLOURS[style]}];"

    def state(self, name: str, text: str) -> str:
        return f"{name} [label={_quote(text)}{_STATE}];"

    def edge(self, start: str, end: str) -> str:
        return f"{start} -> {end};"

    def frame(self, frame: Frame, starts: list[str]) -> list[str]:
        self.nodes += 1
        self.line(f"subgraph cluster_{self.nodes} {{")
        self.depth += 1
        self.line(f'label={_quote(frame.label)}; style="rounded,dashed"; color="#888888";')
        ends = self.draw(frame.inner, starts)
        self.depth -= 1
        self.line("}")
        return ends
