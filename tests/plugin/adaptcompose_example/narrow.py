"""`narrow`: a method that computes with an operation that adaptcompose has."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.ir.primitives import BottleneckMLP, Placement, Primitive
from adaptcompose.methods.method import Method, Shape, register_method
from adaptcompose.syntax.signature import option

if TYPE_CHECKING:
    import torch


@register_method
@dataclass(frozen=True)
class Narrow(Method):
    """A bottleneck behind each feed-forward block whose rank is written, not divided.

    Example:
        stack(lang=sw, task=narrow(rank=2))
    """

    word: ClassVar[str] = "narrow"
    fusible: ClassVar[bool] = True

    rank: int = option(4, "width of the middle", minimum=1)
    activation: str = option("tanh", "any activation that transformers knows")

    def sites(self, facts: Facts) -> tuple[Site, ...]:
        return facts.sites("ffn.out")

    def restrict_to(self, sites: Collection[Site], facts: Facts) -> Self:
        return self

    def tensors(self, site: Site, facts: Facts) -> dict[str, Shape]:
        width = facts.width_at(site)
        return {
            "down.weight": (self.rank, width),
            "down.bias": (self.rank,),
            "up.weight": (width, self.rank),
            "up.bias": (width,),
        }

    def init_tensor(self, name: str, tensor: torch.Tensor) -> None:
        from torch.nn import init

        init.zeros_(tensor) if name.endswith("bias") else init.normal_(tensor, std=0.02)

    def lower(self, part: str, site: Site, facts: Facts) -> Primitive | None:
        if site.name != "ffn.out":
            return None
        where = Placement("norm", "output", True)
        return BottleneckMLP(
            part,
            site,
            width=facts.width_at(site),
            rank=self.rank,
            activation=self.activation,
            where=where,
        )
