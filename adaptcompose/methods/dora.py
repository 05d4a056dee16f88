"""DoRA (Liu et al., 2024): LoRA on the directions of a weight's rows, and their lengths apart.

m ⊙ V x / ‖V‖ + b with V = W + s·B A, and m the lengths of the rows, which start as those of W.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.ir.linear import Decomposed
from adaptcompose.ir.primitives import Primitive
from adaptcompose.methods.lora import Lora, is_lora, is_vera, lora_settings
from adaptcompose.methods.method import Shape, method
from adaptcompose.methods.targeted import native_config, read_native
from adaptcompose.syntax.signature import option

if TYPE_CHECKING:
    import torch


@method
@dataclass(frozen=True)
class Dora(Lora):
    """A LoRA that trains the directions of a weight's rows and their lengths apart.

    `norm=adapterhub` is what AdapterHub's files were trained with: the norm is that of W + B A
    without alpha / rank, and the bias of the map is multiplied as well.

    Examples:
        dora(rank=16)
    """

    word: ClassVar[str] = "dora"
    mergeable: ClassVar[bool] = False
    columns: ClassVar[tuple[str, ...]] = ("m",)

    norm: Literal["paper", "adapterhub"] = option("paper", "what is normalised")

    def tensors(self, site: Site, facts: Facts) -> dict[str, Shape]:
        found = super().tensors(site, facts)
        return found | {"m": (facts.size(site),)} if "A" in found else found

    def start(self, name: str, tensor: torch.Tensor) -> None:
        from torch.nn import init

        if name == "m":
            init.ones_(tensor)
        else:
            super().start(name, tensor)

    def begin(self, tensors: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> None:
        super().begin(tensors, own)
        if "m" not in tensors:
            return
        tensors["m"].copy_(own["weight"].to(tensors["m"].dtype).norm(dim=1))

    def lower(self, part: str, site: Site, facts: Facts) -> Primitive | None:
        if site not in self.places(facts):
            return self.other(part, site, facts)
        fields = self.shared_fields(site, facts)
        return Decomposed(part, site, **fields, peer=self.norm == "adapterhub")

    def key(self, tensor: str) -> str:
        return "m.weight" if tensor == "m" else super().key(tensor)

    def adapterhub_config(self, facts: Facts) -> dict[str, Any]:
        if self.norm == "paper":
            return native_config(self)
        config = super().adapterhub_config(facts)
        return config | {"use_dora": True} if config["architecture"] == "lora" else config

    @classmethod
    def from_adapterhub(cls, config: dict[str, Any], facts: Facts) -> Dora | None:
        if not is_lora(config, mode="add") or not config.get("use_dora") or is_vera(config):
            found: Dora | None = read_native(cls, config)
            return found
        return cls(**lora_settings(cls, config, facts), norm="adapterhub")
