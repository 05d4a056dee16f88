"""Mix-and-match adapters: a prefix, and a scaled parallel bottleneck (He et al., 2022).

    attention:     Attn(x W_q, [P_k; x W_k], [P_v; x W_v])
    feed-forward:  h + s·(U relu(D x + b) + c)

The paper gives the larger part of its parameters to the feed-forward.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from adaptcompose.ir.prefix import PositionConvention
from adaptcompose.methods.bottleneck import PARALLEL
from adaptcompose.methods.method import Method, register_method
from adaptcompose.methods.prefix import Prefix
from adaptcompose.methods.union import UnionMethod
from adaptcompose.syntax.signature import option


@register_method
@dataclass(frozen=True)
class Mam(UnionMethod):
    """A prefix in attention and a scaled bottleneck in parallel to the feed-forward block.

    Example:
        mam(length=16, reduction=48, scale=2.0, flat=true)
    """

    word: ClassVar[str] = "mam"

    length: int = option(30, "number of virtual keys and values per head", minimum=1)
    flat: bool = option(
        False, "train keys and values directly, without a network that computes them"
    )
    hidden: int = option(800, "width of that network", minimum=1)
    positions: PositionConvention = option(
        "kept", "shifted if the prefix takes the first positions, else kept"
    )
    reduction: float | tuple[float, ...] = option(
        2.0, "width divided by the bottleneck size; a list has one number per layer", minimum=0.001
    )
    activation: str = option("relu", "activation of the bottleneck: any that transformers has")
    scale: float | Literal["learned", "channel"] = option(
        4.0, "factor of the bottleneck: a number, one learned number, or one per channel"
    )

    def member_fields(self) -> tuple[tuple[str, ...], ...]:
        prefix = ("length", "flat", "hidden", "positions", "leave_out")
        return prefix, ("reduction", "activation", "scale", "leave_out")

    def members(self) -> tuple[Method, ...]:
        prefix, bottleneck = self.member_settings()
        return Prefix(**prefix), replace(PARALLEL, **bottleneck)

    def member_of_tensor(self, name: str) -> Method:
        prefix, bottleneck = self.members()
        return bottleneck if name.partition(".")[0] in ("down", "up", "scale") else prefix
