"""Prefixes: keys and values that attention sees in front of those of the tokens.

    head = Attn(x W_q, [P_k; x W_k], [P_v; x W_v])            (Li & Liang, 2021)

They are visible to every token, whatever the mask says of tokens. Where virtual keys count as the
first positions, those of the tokens move up: `Shift`, beside whatever reads position ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from adaptcompose.ir.primitives import ParametricPrimitive, Placement

PositionConvention = Literal["kept", "shifted"]
"""What virtual tokens do to the positions of the others: nothing, or they take the first ones."""


@dataclass(frozen=True)
class KVPrefix(ParametricPrimitive):
    """[P_k; K], [P_v; V]: `length` keys and values for each of `heads` heads of `size` numbers.

    With `gates`, P_k is multiplied by g = mean_t σ(w·x_t + v), x what attention reads, and P_v by
    the same g or by one of its own (Mao et al., 2022). Where attention has scores by distance,
    `moves` has queries move up by `length`, as the tokens' keys do.
    """

    stackable: ClassVar[bool] = True

    length: int
    heads: int
    head_size: int
    width: int
    shifts_queries: bool = False
    gate_count: int = 0
    dropout: float = 0.0

    @property
    def placement(self) -> Placement:
        return Placement("output", "output", False)

    def multiplications(self) -> int:
        """Scores and mixing, at least: heads that share keys multiply them once each."""
        return 2 * self.length * self.heads * self.head_size + self.gate_count * self.width

    def __str__(self) -> str:
        gates = " gate" if self.gate_count == 1 else " gates" if self.gate_count else ""
        shape = f"{self.length} × {self.heads}·{self.head_size}"
        return f"prefix {self.part} {shape}{gates}{self.source_label}"


@dataclass(frozen=True)
class PositionShift(ParametricPrimitive):
    """Positions of tokens begin `by` later."""

    stackable: ClassVar[bool] = True

    offset: int

    @property
    def placement(self) -> Placement:
        return Placement("output", "output", False)

    def __str__(self) -> str:
        return f"shift {self.part} by {self.offset}"
