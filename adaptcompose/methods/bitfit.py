"""BitFit (Ben Zaken et al., 2022): nothing but biases."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from adaptcompose.backbones.layout import Facts, Kind, Site
from adaptcompose.ir.linear import Shift
from adaptcompose.ir.primitives import Primitive
from adaptcompose.methods.method import Shape, method
from adaptcompose.methods.targeted import Changing
from adaptcompose.syntax.signature import option

if TYPE_CHECKING:
    import torch


@method
@dataclass(frozen=True)
class BitFit(Changing):
    """Other biases of linear maps and norms, as differences from the backbone's.

    Without targets these are all biases that the backbone has; named maps get one in any case.

    Examples:
        bitfit()
        bitfit(targets=[attn.q, ffn.in])
    """

    word: ClassVar[str] = "bitfit"
    kinds: ClassVar[tuple[Kind, ...]] = ("linear", "norm")
    stem: ClassVar[str] = "biases"
    mergeable: ClassVar[bool] = True

    targets: tuple[str, ...] = option((), "the maps that get another bias; none: all that have one")

    def names(self, facts: Facts) -> Collection[str]:
        places = facts.layout.sites
        return self.targets or [
            name
            for name in self.known(facts)
            if facts.biased(name) and not (places[name].joint or places[name].outside)
        ]

    def tensors(self, site: Site, facts: Facts) -> dict[str, Shape]:
        return {"bias": (facts.size(site),)}

    def start(self, name: str, tensor: torch.Tensor) -> None:
        tensor.zero_()

    def lower(self, part: str, site: Site, facts: Facts) -> Primitive | None:
        if site not in self.places(facts):
            return None
        return Shift(part, site, width=facts.size(site))
