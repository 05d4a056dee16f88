"""LayerNorm tuning (Houlsby et al., 2019, as a baseline; Zhao et al., 2024)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from adaptcompose.backbones.layout import Facts, Kind, Site
from adaptcompose.ir.linear import Renorm
from adaptcompose.ir.primitives import Primitive
from adaptcompose.methods.method import Shape, method
from adaptcompose.methods.targeted import Changing
from adaptcompose.syntax.signature import option

if TYPE_CHECKING:
    import torch


@method
@dataclass(frozen=True)
class LayerNorm(Changing):
    """Other weights and biases of the backbone's norms. Without targets these are all norms.

    Examples:
        layernorm()
        stack(lang=sw, task=bottleneck(attention=true), norms=layernorm())
    """

    word: ClassVar[str] = "layernorm"
    kinds: ClassVar[tuple[Kind, ...]] = ("norm",)
    stem: ClassVar[str] = "norms"

    targets: tuple[str, ...] = option((), "the norms that it changes; none: all")

    def names(self, facts: Facts) -> Collection[str]:
        return self.targets or self.known(facts)

    def tensors(self, site: Site, facts: Facts) -> dict[str, Shape]:
        width: Shape = (facts.size(site),)
        bias = facts.biased(site.name)
        return {"weight": width} | ({"bias": width} if bias else {})

    def start(self, name: str, tensor: torch.Tensor) -> None:
        tensor.fill_(1.0 if name == "weight" else 0.0)

    def begin(self, tensors: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            if name in own:
                tensor.copy_(own[name])

    def lower(self, part: str, site: Site, facts: Facts) -> Primitive | None:
        if site not in self.places(facts):
            return None
        bias = facts.biased(site.name)
        return Renorm(part, site, width=facts.size(site), bias=bias)
