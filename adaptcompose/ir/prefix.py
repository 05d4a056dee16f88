"""Prefixes: keys and values that attention reads in front of those of the tokens.

    head = Attn(x W_q, [P_k; x W_k], [P_v; x W_v])            (Li & Liang, 2021)

Every token attends to them; the attention mask never hides them. Where the virtual keys count as
the first positions, a `PositionShift` at the module that reads position ids moves the tokens up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from adaptcompose.ir.primitives import ParametricPrimitive, Placement

PositionConvention = Literal["kept", "shifted"]
"""`kept`: the tokens keep their positions. `shifted`: virtual tokens take the first positions."""


@dataclass(frozen=True)
class KVPrefix(ParametricPrimitive):
    """K' = [g_k P_k; K], V' = [g_v P_v; V]: virtual keys and values (Li & Liang, 2021).

    P_k and P_v are [length, heads · head_size], a block of columns for each head; the keys K and
    values V of the tokens are [batch, heads, tokens, head_size]. Without gates, g_k = g_v = 1. One
    gate (`gate_count` 1) is g_k = g_v = mean_t σ(w·x_t + v), with x [batch, tokens, width] the
    state that attention reads, w [1, width] and v [1]; with two gates, keys and values each have
    their own (Mao et al., 2022). Where attention has scores by distance, `shifts_queries` moves the
    positions of queries up by `length`, as those of the tokens' keys are. In training, `dropout`
    acts on P_k and P_v.
    """

    stackable: ClassVar[bool] = True
    kind: ClassVar[str] = "kvprefix"

    length: int
    heads: int
    head_size: int = field(metadata={"label": "size"})
    width: int
    shifts_queries: bool = field(default=False, metadata={"label": "moves"})
    gate_count: int = field(default=0, metadata={"label": "gates"})
    dropout: float = 0.0

    @property
    def placement(self) -> Placement:
        return Placement("output", "output", False)

    @property
    def averages_over_tokens(self) -> bool:
        return self.gate_count > 0

    def multiplications(self) -> int:
        """At least those of scores and mixing: heads that share keys multiply them once each."""
        return 2 * self.length * self.heads * self.head_size + self.gate_count * self.width

    def __str__(self) -> str:
        gates = " gate" if self.gate_count == 1 else " gates" if self.gate_count else ""
        shape = f"{self.length} × {self.heads}·{self.head_size}"
        return f"prefix {self.part} {shape}{gates}{self.source_label}"


@dataclass(frozen=True)
class PositionShift(ParametricPrimitive):
    """p' = p + k: the position ids p [batch, tokens] of the tokens start at k, the `offset`.

    The virtual keys then have the first positions, as in P-tuning v2 (Liu et al., 2022).
    """

    stackable: ClassVar[bool] = True
    kind: ClassVar[str] = "shift"

    offset: int = field(metadata={"label": "by"})

    @property
    def placement(self) -> Placement:
        return Placement("output", "output", False)

    def __str__(self) -> str:
        return f"shift {self.part} by {self.offset}"
