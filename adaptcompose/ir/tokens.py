"""Virtual tokens: learned embeddings that are added to those of the input.

[P; E(x)]                                             (prompt tuning, Lester et al., 2021)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from adaptcompose.ir.prefix import PositionConvention
from adaptcompose.ir.primitives import ParametricPrimitive, Placement


@dataclass(frozen=True)
class VirtualTokens(ParametricPrimitive):
    """[P; E(x)], or [E(x)₁; P; E(x)₂…] with `after_first`: virtual tokens (Lester et al., 2021).

    P is [length, width], E(x) is [batch, tokens, width], and the result has length + tokens tokens.
    In a chain, each member extends the result of the members before it, so the first token that
    `after_first` refers to can be a virtual one.

    With `positions` set to `shifted`, virtual tokens are embedded like words, at the first
    positions. With `kept`, they are inserted after the embeddings, without position embeddings, and
    the tokens keep their positions.
    """

    stackable: ClassVar[bool] = True
    kind: ClassVar[str] = "tokens"

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
