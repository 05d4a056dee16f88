"""LayerNorm tuning (Houlsby et al., 2019, as a baseline; Zhao et al., 2024)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from adaptcompose.backbones.layout import Facts, Site, SiteKind
from adaptcompose.ir.linear import NormReplacement
from adaptcompose.ir.primitives import Primitive
from adaptcompose.methods.method import Shape, register_method
from adaptcompose.methods.targeted import TargetedMethod
from adaptcompose.syntax.signature import option

if TYPE_CHECKING:
    import torch


@register_method
@dataclass(frozen=True)
class LayerNorm(TargetedMethod):
    """Trained weights and biases of the norms of the backbone; without targets, of all norms.

    Examples:
        layernorm()
        stack(lang=sw, task=bottleneck(attention=true), norms=layernorm())
    """

    word: ClassVar[str] = "layernorm"
    target_kinds: ClassVar[tuple[SiteKind, ...]] = ("norm",)
    adapterhub_stem: ClassVar[str] = "norms"

    targets: tuple[str, ...] = option((), "the norms to adapt (default: all)")

    def target_names(self, facts: Facts) -> Collection[str]:
        return self.targets or self.possible_targets(facts)

    def tensors(self, site: Site, facts: Facts) -> dict[str, Shape]:
        width: Shape = (facts.width_at(site),)
        bias = facts.has_bias(site.name)
        return {"weight": width} | ({"bias": width} if bias else {})

    def init_tensor(self, name: str, tensor: torch.Tensor) -> None:
        tensor.fill_(1.0 if name == "weight" else 0.0)

    def init_from_backbone(
        self, tensors: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]
    ) -> None:
        for name, tensor in tensors.items():
            if name in own:
                tensor.copy_(own[name])

    def lower(self, part: str, site: Site, facts: Facts) -> Primitive | None:
        if site not in self.target_sites(facts):
            return None
        bias = facts.has_bias(site.name)
        return NormReplacement(part, site, width=facts.width_at(site), bias=bias)
