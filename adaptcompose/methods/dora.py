"""DoRA (Liu et al., 2024): LoRA on the directions of a weight's rows, and their lengths apart.

m ⊙ V x / ‖V‖ + b with V = W + s·B A, and m the lengths of the rows, which start as those of W.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.ir.linear import DecomposedLowRank
from adaptcompose.ir.primitives import Primitive
from adaptcompose.methods.lora import Lora, is_lora, is_vera, read_lora_settings
from adaptcompose.methods.method import Shape, register_method
from adaptcompose.methods.targeted import native_config, read_native_config
from adaptcompose.syntax.signature import option

if TYPE_CHECKING:
    import torch


@register_method
@dataclass(frozen=True)
class Dora(Lora):
    """A LoRA that trains the direction and the length of each weight row separately.

    Use `norm=adapterhub` for files of AdapterHub: they were trained with the norm of W + B A,
    without alpha / rank, and with the bias of the map multiplied as well.

    Examples:
        dora(rank=16)
    """

    word: ClassVar[str] = "dora"
    mergeable: ClassVar[bool] = False
    column_vectors: ClassVar[tuple[str, ...]] = ("m",)

    norm: Literal["paper", "adapterhub"] = option("paper", "the norm to divide by")

    def tensors(self, site: Site, facts: Facts) -> dict[str, Shape]:
        found = super().tensors(site, facts)
        return found | {"m": (facts.width_at(site),)} if "A" in found else found

    def init_tensor(self, name: str, tensor: torch.Tensor) -> None:
        from torch.nn import init

        if name == "m":
            init.ones_(tensor)
        else:
            super().init_tensor(name, tensor)

    def init_from_backbone(
        self, tensors: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]
    ) -> None:
        super().init_from_backbone(tensors, own)
        if "m" not in tensors:
            return
        tensors["m"].copy_(own["weight"].to(tensors["m"].dtype).norm(dim=1))

    def lower(self, part: str, site: Site, facts: Facts) -> Primitive | None:
        if site not in self.target_sites(facts):
            return self.lower_replacement(part, site, facts)
        fields = self.low_rank_fields(site, facts)
        return DecomposedLowRank(part, site, **fields, adapterhub_norm=self.norm == "adapterhub")

    def adapterhub_key(self, tensor: str) -> str:
        return "m.weight" if tensor == "m" else super().adapterhub_key(tensor)

    def adapterhub_config(self, facts: Facts) -> dict[str, Any]:
        if self.norm == "paper":
            return native_config(self)
        config = super().adapterhub_config(facts)
        return config | {"use_dora": True} if config["architecture"] == "lora" else config

    @classmethod
    def from_adapterhub(cls, config: dict[str, Any], facts: Facts) -> Dora | None:
        if not is_lora(config, mode="add") or not config.get("use_dora") or is_vera(config):
            found: Dora | None = read_native_config(cls, config)
            return found
        return cls(**read_lora_settings(cls, config, facts), norm="adapterhub")
