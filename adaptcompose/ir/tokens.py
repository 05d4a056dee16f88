"""Virtual tokens: embeddings that are learned and stand among those of the input.

[P; E(x)]                                                 (Lester et al., 2021)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from adaptcompose.ir.prefix import PositionConvention
from adaptcompose.ir.primitives import ParametricPrimitive, Placement


@dataclass(frozen=True)
class VirtualTokens(ParametricPrimitive):
    """`length` virtual tokens in front of the input, or after its first token.

    In a chain the input of the next is what the ones before have made of it: its first token may be
    a virtual one.

    `shifted`: they are embedded like words, at the first positions. `kept`: they join the others
    behind the embeddings, without a position, and the positions of the others stay.
    """

    stackable: ClassVar[bool] = True

    length: int
    width: int
    positions: PositionConvention = "kept"
    after_first: bool = False

    @property
    def placement(self) -> Placement:
        return Placement("output", "output", False)

    def __str__(self) -> str:
        where = "after the first" if self.after_first else "in front"
        words = f"positions {self.positions}{self.source_label}"
        return f"tokens {self.part} {self.length} × {self.width} {where}, {words}"
