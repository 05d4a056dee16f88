"""A picture as a chart in text, nodes first and then edges: what DOT and Mermaid share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field

from adaptcompose.composition.drawing.picture import Box, Fan, Frame, Picture, Row, Style
from adaptcompose.composition.graph import Adapter


@dataclass
class Chart(ABC):
    """The lines of a chart: nodes in their groups, then edges. Nodes are numbered in order."""

    lines: list[str] = field(default_factory=list)
    edges: list[str] = field(default_factory=list)
    depth: int = 1
    nodes: int = 0

    @abstractmethod
    def node(self, name: str, text: str, style: Style) -> str:
        """The line that declares a block."""

    @abstractmethod
    def state(self, name: str, text: str) -> str:
        """The line that declares a state, such as h."""

    @abstractmethod
    def edge(self, start: str, end: str) -> str:
        """The text of an edge."""

    @abstractmethod
    def frame(self, frame: Frame, starts: list[str]) -> list[str]:
        """Draw a labelled group after the nodes `starts`; returns the nodes at its end."""

    def line(self, text: str) -> None:
        """Append a line, indented by the groups around it."""
        self.lines.append("  " * self.depth + text)

    def join(self, starts: Iterable[str], end: str) -> None:
        """Draw an edge from every start."""
        self.edges += [self.edge(start, end) for start in starts]

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
        """Draw one block after the nodes `starts`; returns its node."""
        self.nodes += 1
        name = f"n{self.nodes}"
        text = f"{box.slot}: {box.text}" if box.slot else box.text
        self.line(self.node(name, text, box.style))
        self.join(starts, name)
        return [name]

    def embeddings(self, invertible: Iterable[Adapter]) -> list[str]:
        """Draw the embeddings and the invertible parts after them; returns the last node."""
        self.line(self.state("embeddings", "embeddings"))
        ends = ["embeddings"]
        for leaf in invertible:
            style: Style = "new" if leaf.is_new else "loaded"
            ends = self.box(Box(f"{leaf.drawing_label()}, invertible part", style), ends)
        return ends
