"""UniPELT: a prefix, a bottleneck and a LoRA, each with a gate per example (Mao et al., 2022).

    g = mean_t σ(w·x_t + v)

The gates decide how much of each an example gets: they multiply keys and values of the prefix, what
the bottleneck adds, and B A x of the LoRA. The mean is over all tokens of a call, later
ones among them; `generate` computes a text anew for each token, unless it is told to use a cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from adaptcompose.ir.prefix import Positions
from adaptcompose.methods.bottleneck import Bottleneck
from adaptcompose.methods.lora import Lora
from adaptcompose.methods.method import Method, method
from adaptcompose.methods.prefix import Prefix
from adaptcompose.methods.union import Joint
from adaptcompose.syntax.signature import option


@method
@dataclass(frozen=True)
class UniPelt(Joint):
    """A prefix, a bottleneck and a LoRA, each with a learned gate per example.

    Example:
        unipelt(length=10, reduction=16, rank=8)
    """

    word: ClassVar[str] = "unipelt"

    length: int = option(10, "how many virtual keys and values a head gets", least=1)
    flat: bool = option(False, "learn keys and values themselves, not a network that makes them")
    hidden: int = option(512, "width of that network", least=1)
    positions: Positions = option("kept", "whether the prefix takes the first positions")
    shared_gate: bool = option(True, "one gate for the keys and the values of the prefix")
    reduction: float | tuple[float, ...] = option(
        16.0, "width divided by rank; a list gives one number per layer", least=0.001
    )
    activation: str = option("relu", "of the bottleneck: any that transformers knows")
    rank: int = option(8, "of the LoRA", least=1)
    alpha: float = option(2.0, "of the LoRA; its gate stands in the place of alpha / rank")
    targets: tuple[str, ...] = option(("attn.q", "attn.v"), "linear maps that the LoRA changes")
    dropout: float = option(0.0, "on what the LoRA reads, in training", least=0, below=1)

    def names(self) -> tuple[tuple[str, ...], ...]:
        prefix = ("length", "flat", "hidden", "positions", "shared_gate", "leave_out")
        bottleneck = ("reduction", "activation", "leave_out")
        lora = ("rank", "alpha", "targets", "dropout", "leave_out")
        return prefix, bottleneck, lora

    def members(self) -> tuple[Method, ...]:
        prefix, bottleneck, lora = self.settings()
        return (
            Prefix(**prefix, gate=True),
            Bottleneck(**bottleneck, gate=True),
            Lora(**lora, gate=True),
        )

    def owner(self, name: str) -> Method:
        prefix, bottleneck, lora = self.members()
        if name in ("A", "B"):
            return lora
        # gates start alike in all three
        return bottleneck if name.partition(".")[0] in ("down", "up") else prefix
