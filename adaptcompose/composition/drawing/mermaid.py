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

from dataclasses import dataclass, field

from adaptcompose.backbones.layout import Facts
from adaptcompose.composition.drawing.captions import (
    invertible_adapters,
    strip_modifiers,
    usage_note,
)
from adaptcompose.composition.drawing.picture import (
    Box,
    Fan,
    Frame,
    Picture,
    Row,
    Style,
    picture_of,
)
from adaptcompose.composition.graph import Adapter, Block

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
    chart = _Chart()
    chart.line(_rounded_node("h", "h"))
    if invertible := invertible_adapters(graph, facts):
        chart.embeddings(invertible)
    picture = picture_of(graph, None)
    if facts is not None:
        picture = Frame(usage_note(graph, facts), picture_of(strip_modifiers(graph), facts))
    ends = chart.draw(picture, ["h"])
    chart.line(_rounded_node("out", "h"))
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


def _rounded_node(name: str, text: str) -> str:
    return f"{name}([{quote_label(text)}])"


@dataclass
class _Chart:
    """The lines of a flowchart: nodes in their groups, then edges; nodes are numbered in order."""

    lines: list[str] = field(default_factory=list)
    edges: list[str] = field(default_factory=list)
    depth: int = 1
    nodes: int = 0
    groups: int = 0

    def line(self, text: str) -> None:
        self.lines.append("  " * self.depth + text)

    def join(self, starts: list[str], end: str) -> None:
        self.edges += [f"{start} --> {end}" for start in starts]

    def draw(self, picture: Picture, starts: list[str]) -> list[str]:
        """Draw a picture after the nodes `starts`; returns the nodes at its end."""
        if isinstance(picture, Box):
            return self.box(picture, starts)
        if isinstance(picture, Frame):
            return self.frame(picture, starts)
        if isinstance(picture, Fan):
            ends = [end for branch in picture.branches for end in self.draw(branch, starts)]
            return list(dict.fromkeys(ends))
        for item in picture.items if isinstance(picture, Row) else ():
            starts = self.draw(item, starts)
        return starts

    def box(self, box: Box, starts: list[str]) -> list[str]:
        self.nodes += 1
        name = f"n{self.nodes}"
        text = f"{box.slot}: {box.text}" if box.slot else box.text
        self.line(f"{name}[{quote_label(text)}]{'' if box.style == 'plain' else f':::{box.style}'}")
        self.join(starts, name)
        return [name]

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

    def embeddings(self, invertible: list[Adapter]) -> None:
        """Draw the invertible parts between the embeddings and h."""
        self.line(_rounded_node("embeddings", "embeddings"))
        ends = ["embeddings"]
        for leaf in invertible:
            style: Style = "new" if leaf.is_new else "loaded"
            ends = self.box(Box(f"{leaf.drawing_label()}, invertible part", style), ends)
        self.join(ends, "h")
