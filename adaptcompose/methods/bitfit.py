"""BitFit (Ben Zaken et al., 2022): only biases are trained."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from adaptcompose.backbones.layout import Facts, Site, SiteKind
from adaptcompose.ir.linear import BiasDelta
from adaptcompose.ir.primitives import Primitive
from adaptcompose.methods.method import Shape, register_method
from adaptcompose.methods.targeted import TargetedMethod
from adaptcompose.syntax.signature import option

if TYPE_CHECKING:
    import torch


@register_method
@dataclass(frozen=True)
class BitFit(TargetedMethod):
    """Trained biases of linear maps and norms, stored as differences from the backbone.

    Without targets, all biases of the backbone are trained. A map that you name gets a bias even
    if the backbone has none there.

    Examples:
        bitfit()
        bitfit(targets=[attn.q, ffn.in])
    """

    word: ClassVar[str] = "bitfit"
    target_kinds: ClassVar[tuple[SiteKind, ...]] = ("linear", "norm")
    adapterhub_stem: ClassVar[str] = "biases"
    mergeable: ClassVar[bool] = True

    targets: tuple[str, ...] = option(
        (), "the maps whose bias changes (default: all that have one)"
    )

    def target_names(self, facts: Facts) -> Collection[str]:
        places = facts.layout.sites
        return self.targets or [
            name
            for name in self.possible_targets(facts)
            if facts.has_bias(name)
            and not (places[name].spans_module or places[name].is_outside_base)
        ]

    def tensors(self, site: Site, facts: Facts) -> dict[str, Shape]:
        return {"bias": (facts.width_at(site),)}

    def init_tensor(self, name: str, tensor: torch.Tensor) -> None:
        tensor.zero_()

    def lower(self, part: str, site: Site, facts: Facts) -> Primitive | None:
        if site not in self.target_sites(facts):
            return None
        return BiasDelta(part, site, width=facts.width_at(site))
