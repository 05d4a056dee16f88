"""How the weights of a merge are computed from those of its members."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from adaptcompose.ir.program import Leaf


@dataclass(frozen=True)
class Recipe:
    """How the weights of a merge come from those of leaves of one shape."""

    leaves: tuple[Leaf, ...]
    weights: tuple[float, ...]
    method: Literal["linear", "ties", "dare"] = "linear"
    density: float = 1.0
    seed: int = 0
    rank: int | None = None
