"""A composition as a Mermaid flowchart, which GitHub and model cards draw.

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
from adaptcompose.composition.drawing.terminal import (
    block_title,
    invertible_adapters,
    layer_usage,
    modifier_note,
    other_modifiers,
    strip_modifiers,
)
from adaptcompose.composition.graph import Adapter, Block, Empty, Slot
from adaptcompose.composition.operator import BlockOperator, Modifier
from adaptcompose.composition.operators import Fuse, Stack

_STYLES = (
    "classDef loaded fill:#e8eef7,stroke:#4a6fa5,color:#1b2a41",
    "classDef new fill:#fdf1dc,stroke:#c98a1b,color:#4a3206",
)
_ESCAPES = {char: f"#{ord(char)};" for char in '#"<>&`*'}


def render_mermaid(graph: Block, facts: Facts | None = None) -> str:
    """The graph as flowchart text; equal graphs give equal texts.

    Every member of a fusion is there. Without `facts` nothing is said about layers and embeddings.
    """
    chart = _Chart(facts)
    start = ["h"]
    chart.line(_rounded_node("h", "h"))
    if found := invertible_adapters(graph, facts):
        chart.embeddings(found)
    if isinstance(graph, Modifier) or facts is not None:
        ends = chart.group(_usage_label(graph, facts), strip_modifiers(graph), start)
    else:
        ends = chart.block(graph, start)
    chart.line(_rounded_node("out", "h"))
    chart.join(ends, "out")
    body = [*chart.lines, *(f"  {edge}" for edge in chart.edges), *(f"  {s}" for s in _STYLES)]
    return "\n".join(["flowchart LR", *body])


def quote_label(text: str) -> str:
    """Text between quotation marks; what Mermaid would read becomes its entity codes.

    >>> quote_label('"./a b" #1')
    '"#34;./a b#34; #35;1"'
    """
    cleaned = "".join(_ESCAPES.get(char, char if char.isprintable() else " ") for char in text)
    if cleaned.startswith("+ "):  # read as an item of a list, but not with a no-break space
        cleaned = "+\N{NO-BREAK SPACE}" + cleaned[2:]
    return f'"{cleaned}"'


def _rounded_node(name: str, text: str) -> str:
    return f"{name}([{quote_label(text)}])"


def _usage_label(graph: Block, facts: Facts | None) -> str:
    """What is written over the whole graph."""
    if facts is None:
        assert isinstance(graph, Modifier)
        return modifier_note(graph, None)
    found = layer_usage(graph, facts)
    words = [layers if used else f"{layers}: backbone only" for layers, used in found]
    return "; ".join([*words, *other_modifiers(graph)])


@dataclass
class _Chart:
    """Nodes in their groups first, edges after them; ids count up in the order of writing."""

    facts: Facts | None
    lines: list[str] = field(default_factory=list)
    edges: list[str] = field(default_factory=list)
    depth: int = 1
    nodes: int = 0
    groups: int = 0

    def line(self, text: str) -> None:
        self.lines.append("  " * self.depth + text)

    def node(self, text: str, style: str = "") -> str:
        self.nodes += 1
        name = f"n{self.nodes}"
        self.line(f"{name}[{quote_label(text)}]{style}")
        return name

    def join(self, starts: list[str], end: str) -> None:
        self.edges += [f"{start} --> {end}" for start in starts]

    def group(self, text: str, block: Block, starts: list[str]) -> list[str]:
        """A block in a frame; a frame around nothing is left out."""
        self.groups += 1
        before = len(self.lines)
        self.line(f"subgraph g{self.groups}[{quote_label(text)}]")
        self.depth += 1
        ends = self.block(block, starts)
        self.depth -= 1
        if len(self.lines) == before + 1:
            self.lines.pop()
        else:
            self.line("end")
        return ends

    def block(self, block: Block, starts: list[str], slot: str | None = None) -> list[str]:
        """Draw a block behind the nodes `starts`; the nodes that it ends with."""
        if isinstance(block, Modifier):
            words = modifier_note(block, self.facts)
            text = f"{slot}: {words}" if slot else words
            return self.group(text, strip_modifiers(block), starts)
        if isinstance(block, Stack):
            if slot:
                return self.group(slot, block, starts)
            for member in block.members:
                starts = self.slot(member, starts)
            return starts
        if isinstance(block, Empty):
            return starts if slot is None else self._append_node(f"{slot}: none", "", starts)
        if isinstance(block, BlockOperator):
            ends = [end for member in block.members for end in self.slot(member, starts)]
            starts = list(dict.fromkeys(ends))
        return self._leaf(block, starts, slot)

    def slot(self, slot: Slot, starts: list[str]) -> list[str]:
        return self.block(slot.block, starts, slot.name)

    def _leaf(self, block: Block, starts: list[str], slot: str | None) -> list[str]:
        known = isinstance(block, Adapter | Fuse)
        word = block.drawing_label if isinstance(block, BlockOperator) else str(block)
        text = block_title(block, slot) if isinstance(block, Adapter | Fuse) else word
        style = "" if not known else ":::new" if text.startswith("+") else ":::loaded"
        return self._append_node(f"{slot}: {text}" if slot else text, style, starts)

    def _append_node(self, text: str, style: str, starts: list[str]) -> list[str]:
        name = self.node(text, style)
        self.join(starts, name)
        return [name]

    def embeddings(self, found: list[Adapter]) -> None:
        """The invertible parts in front of h."""
        self.line(_rounded_node("embeddings", "embeddings"))
        last = ["embeddings"]
        for leaf in found:
            style = ":::new" if leaf.is_new else ":::loaded"
            last = self._append_node(f"{block_title(leaf)}, invertible part", style, last)
        self.join(last, "h")
