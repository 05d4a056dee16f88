"""Mix-and-match adapters: a prefix, and a scaled parallel bottleneck (He et al., 2022).

    attention:     Attn(x W_q, [P_k; x W_k], [P_v; x W_v])
    feed-forward:  h + s·(U relu(D x + b) + c)

The paper gives the larger part of its parameters to the feed-forward.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from adaptcompose.ir.prefix import Positions
from adaptcompose.methods.bottleneck import PARALLEL
from adaptcompose.methods.method import Method, method
from adaptcompose.methods.prefix import Prefix
from adaptcompose.methods.union import Joint
from adaptcompose.syntax.signature import option


@method
@dataclass(frozen=True)
class Mam(Joint):
    """A prefix in attention and a scaled parallel bottleneck beside the feed-forward block.

    Example:
        mam(length=16, reduction=48, scale=2.0, flat=true)
    """

    word: ClassVar[str] = "mam"

    length: int = option(30, "how many virtual keys and values a head gets", least=1)
    flat: bool = option(False, "learn keys and values themselves, not a network that makes them")
    hidden: int = option(800, "width of that network", least=1)
    positions: Positions = option("kept", "whether the prefix takes the first positions")
    reduction: float | tuple[float, ...] = option(
        2.0, "width divided by rank; a list gives one number per layer", least=0.001
    )
    activation: str = option("relu", "of the bottleneck: any that transformers knows")
    scale: float | Literal["learned", "channel"] = option(
        4.0, "factor of what the bottleneck adds: a number, one learned number, or one per channel"
    )

    def names(self) -> tuple[tuple[str, ...], ...]:
        prefix = ("length", "flat", "hidden", "positions", "leave_out")
        return prefix, ("reduction", "activation", "scale", "leave_out")

    def members(self) -> tuple[Method, ...]:
        prefix, bottleneck = self.settings()
        return Prefix(**prefix), replace(PARALLEL, **bottleneck)

    def owner(self, name: str) -> Method:
        prefix, bottleneck = self.members()
        return bottleneck if name.partition(".")[0] in ("down", "up", "scale") else prefix
