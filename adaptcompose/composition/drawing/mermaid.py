"""A composition as a Mermaid flowchart, which GitHub renders in Markdown and in model cards.

>>> from adaptcompose.composition.graph import Adapter, Slot
>>> from adaptcompose.composition.operators import Stack
>>> from adaptcompose.syntax.references import parse_ref
>>> sw = Adapter("lang/sw", ref=parse_ref("lang/sw", ["lang"]))
>>> print(render_mermaid(Stack((Slot("lang", sw),))))
flowchart LR
  h(["h"])
  n1["lang: = lang/sw"]:::loaded
  out(["h"])
  h --> n1
  n1 --> out
  classDef loaded fill:#e8eef7,stroke:#4a6fa5,color:#1b2a41
  classDef new fill:#fdf1dc,stroke:#c98a1b,color:#4a3206
"""

from __future__ import annotations

from adaptcompose.backbones.layout import Facts
from adaptcompose.composition.drawing.captions import (
    invertible_adapters,
    strip_modifiers,
    usage_note,
)
from adaptcompose.composition.drawing.chart import Chart
from adaptcompose.composition.drawing.picture import Frame, Style, picture_of
from adaptcompose.composition.graph import Block

_STYLES = (
    "classDef loaded fill:#e8eef7,stroke:#4a6fa5,color:#1b2a41",
    "classDef new fill:#fdf1dc,stroke:#c98a1b,color:#4a3206",
)
_ESCAPES = {char: f"#{ord(char)};" for char in '#"<>&`*'}


def render_mermaid(graph: Block, facts: Facts | None = None) -> str:
    """Write a graph as a Mermaid flowchart; equal graphs give equal texts.

    All members of a fusion are drawn. Without `facts` the chart has no notes about layers and
    no embeddings.
    """
    chart = _MermaidChart()
    chart.line(chart.state("h", "h"))
    if invertible := invertible_adapters(graph, facts):
        chart.join(chart.embeddings(invertible), "h")
    picture = picture_of(graph, None)
    if facts is not None:
        picture = Frame(usage_note(graph, facts), picture_of(strip_modifiers(graph), facts))
    ends = chart.draw(picture, ["h"])
    chart.line(chart.state("out", "h"))
    chart.join(ends, "out")
    body = [*chart.lines, *(f"  {edge}" for edge in chart.edges), *(f"  {s}" for s in _STYLES)]
    return "\n".join(["flowchart LR", *body])


def quote_label(text: str) -> str:
    """Quote a text for Mermaid, with entity codes for the characters that Mermaid would interpret.

    >>> quote_label('"./a b" #1')
    '"#34;./a b#34; #35;1"'
    """
    cleaned = "".join(_ESCAPES.get(char, char if char.isprintable() else " ") for char in text)
    if cleaned.startswith("+ "):  # with a plain space, Mermaid reads the text as a list item
        cleaned = "+\N{NO-BREAK SPACE}" + cleaned[2:]
    return f'"{cleaned}"'


class _MermaidChart(Chart):
    """A flowchart; a frame is a subgraph."""

    groups = 0

    def node(self, name: str, text: str, style: Style) -> str:
        return f"{name}[{quote_label(text)}]{'' if style == 'plain' else f':::{style}'}"

    def state(self, name: str, text: str) -> str:
        return f"{name}([{quote_label(text)}])"

    def edge(self, start: str, end: str) -> str:
        return f"{start} --> {end}"

    def frame(self, frame: Frame, starts: list[str]) -> list[str]:
        """Draw a group; a group without nodes is left out, because Mermaid would draw it."""
        self.groups += 1
        before = len(self.lines)
        self.line(f"subgraph g{self.groups}[{quote_label(frame.label)}]")
        self.depth += 1
        ends = self.draw(frame.inner, starts)
        self.depth -= 1
        if len(self.lines) == before + 1:
            self.lines.pop()
        else:
            self.line("end")
        return ends
