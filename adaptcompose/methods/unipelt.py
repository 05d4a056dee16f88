"""UniPELT: a prefix, a bottleneck and a LoRA, each with a gate per example (Mao et al., 2022).

    g = mean_t σ(w·x_t + v)

The gates decide how much of each an example gets: they multiply keys and values of the prefix, what
the bottleneck adds, and B A x of the LoRA. The mean is over all tokens of a call, later
ones among them; `generate` computes a text anew for each token, unless it is told to use a cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from adaptcompose.ir.prefix import PositionConvention
from adaptcompose.methods.bottleneck import Bottleneck
from adaptcompose.methods.lora import Lora
from adaptcompose.methods.method import Method, register_method
from adaptcompose.methods.prefix import Prefix
from adaptcompose.methods.union import UnionMethod
from adaptcompose.syntax.signature import option


@register_method
@dataclass(frozen=True)
class UniPelt(UnionMethod):
    """A prefix, a bottleneck and a LoRA, each with a learned gate per example.

    Example:
        unipelt(length=10, reduction=16, rank=8)
    """

    word: ClassVar[str] = "unipelt"

    length: int = option(10, "number of virtual keys and values per head", minimum=1)
    flat: bool = option(
        False, "train keys and values directly, without a network that computes them"
    )
    hidden: int = option(512, "width of that network", minimum=1)
    positions: PositionConvention = option(
        "kept", "shifted if the prefix takes the first positions, else kept"
    )
    shared_gate: bool = option(True, "use one gate for the keys and values of the prefix")
    reduction: float | tuple[float, ...] = option(
        16.0, "width divided by the bottleneck size; a list has one number per layer", minimum=0.001
    )
    activation: str = option("relu", "activation of the bottleneck: any that transformers has")
    rank: int = option(8, "rank of the LoRA", minimum=1)
    alpha: float = option(2.0, "alpha of the LoRA; its gate replaces alpha / rank")
    targets: tuple[str, ...] = option(("attn.q", "attn.v"), "the linear maps that the LoRA adapts")
    dropout: float = option(
        0.0, "dropout on the input of the LoRA, in training", minimum=0, exclusive_maximum=1
    )

    def member_fields(self) -> tuple[tuple[str, ...], ...]:
        prefix = ("length", "flat", "hidden", "positions", "shared_gate", "leave_out")
        bottleneck = ("reduction", "activation", "leave_out")
        lora = ("rank", "alpha", "targets", "dropout", "leave_out")
        return prefix, bottleneck, lora

    def members(self) -> tuple[Method, ...]:
        prefix, bottleneck, lora = self.member_settings()
        return (
            Prefix(**prefix, gate=True),
            Bottleneck(**bottleneck, gate=True),
            Lora(**lora, gate=True),
        )

    def member_of_tensor(self, name: str) -> Method:
        prefix, bottleneck, lora = self.members()
        if name in ("A", "B"):
            return lora
        # gates start alike in all three
        return bottleneck if name.partition(".")[0] in ("down", "up") else prefix
