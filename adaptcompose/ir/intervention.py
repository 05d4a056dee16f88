"""Interventions: updates of the hidden state at the first and last tokens of each row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from adaptcompose.ir.primitives import FREE_IN_MERGE, ParametricPrimitive, Placement

PREFIX, SUFFIX, TIED = "prefix", "suffix", "tied"


@dataclass(frozen=True)
class Intervention(ParametricPrimitive):
    """u = Rᵀ(σ(W h + b) − R h) at some tokens, u = 0 at all others (ReFT, Wu et al., 2024, eq. 3).

    h is [batch, tokens, d], with d the `width`, r the `rank`: W and R are [r, d], b [r]. Without
    `subtracts_projection` the term R h is left out (DiReFT). The tokens are the first
    `prefix_positions` and the last `suffix_positions` of each row, padding not counted. A token
    that is both belongs to the last. Unless `is_tied`, first and last tokens have their own W, b
    and R. In training, `dropout` acts on h + u.

    The last tokens are those of the prompt: a call that continues from a cache has none.
    """

    stackable: ClassVar[bool] = True
    kind: ClassVar[str] = "intervention"

    width: int
    rank: int
    prefix_positions: int
    suffix_positions: int
    is_tied: bool = False
    activation: str = "linear"
    subtracts_projection: bool = True
    dropout: float = field(default=0.0, metadata=FREE_IN_MERGE)

    @property
    def units(self) -> tuple[str, ...]:
        """The names of the sets of weights."""
        return intervention_units(
            self.prefix_positions, self.suffix_positions, is_tied=self.is_tied
        )

    @property
    def placement(self) -> Placement:
        return Placement("output", "output")

    def multiplications(self) -> int:
        """Those of a token at which every unit is computed."""
        return len(self.units) * (2 + self.subtracts_projection) * self.width * self.rank

    def __str__(self) -> str:
        tokens = [
            f"{words} {count}"
            for words, count in (("first", self.prefix_positions), ("last", self.suffix_positions))
            if count
        ]
        flags = f"{' tied' * self.is_tied}{'' if self.subtracts_projection else ' no projection'}"
        words = f"{self.activation}{flags}{self.source_label}"
        shape = f"{self.width}→{self.rank}→{self.width}"
        return f"intervention {self.part} {shape} {words} at the {' and '.join(tokens)} tokens"


def intervention_units(
    prefix_positions: int, suffix_positions: int, *, is_tied: bool
) -> tuple[str, ...]:
    """The names of the sets of weights: one for the first tokens, one for the last, or one."""
    if is_tied:
        return (TIED,)
    counts = {PREFIX: prefix_positions, SUFFIX: suffix_positions}
    return tuple(name for name, count in counts.items() if count)
