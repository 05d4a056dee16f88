"""IA³ (Liu et al., 2022): learned factors of keys, values and the inside of the feed-forward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.ir.linear import Rescale
from adaptcompose.ir.primitives import Primitive
from adaptcompose.methods.lora import Lora, adapterhub_targets, is_lora, read_lora_settings
from adaptcompose.methods.method import Shape, register_method
from adaptcompose.methods.targeted import TargetedMethod
from adaptcompose.syntax.signature import option

if TYPE_CHECKING:
    import torch


@register_method
@dataclass(frozen=True)
class IA3(TargetedMethod):
    """One learned factor per channel, at the output of some maps or the input of others.

    As in the paper, the feed-forward is scaled after its activation, at the input of its second
    map. Files of AdapterHub scale it before the activation, at the output of the first map.

    Examples:
        ia3()
        ia3(targets=[attn.k, attn.v, ffn.in], inputs=[])
    """

    word: ClassVar[str] = "ia3"
    column_vectors: ClassVar[tuple[str, ...]] = ("l",)
    mergeable: ClassVar[bool] = True

    targets: tuple[str, ...] = option(("attn.k", "attn.v", "ffn.mid"), "the maps to adapt")
    inputs: tuple[str, ...] = option(
        ("ffn.mid",), "the targets whose input is scaled instead of their output"
    )
    scale: float = option(1.0, "constant to multiply all factors by", minimum=0.001)
    gate: bool = option(False, "use a learned gate per example instead of scale")

    @property
    def is_gated(self) -> bool:
        return self.gate

    def _side(self, site: Site) -> Any:
        return "input" if site.name in self.inputs else "output"

    def tensors(self, site: Site, facts: Facts) -> dict[str, Shape]:
        inner = self._side(site) == "input"
        shapes: dict[str, Shape] = {
            "l": (facts.input_width_at(site) if inner else facts.width_at(site),)
        }
        if self.gate:
            shapes |= {"gate.weight": (1, facts.input_width_at(site)), "gate.bias": (1,)}
        return shapes

    def init_tensor(self, name: str, tensor: torch.Tensor) -> None:
        from torch.nn import init

        if name == "l":
            init.constant_(tensor, 2.0 if self.gate else 1 / self.scale)  # a new gate is ½
        else:
            init.zeros_(tensor)

    def identity_value(self, name: str) -> float:
        return 1.0 if name == "l" else 0.0

    def lower(self, part: str, site: Site, facts: Facts) -> Primitive | None:
        if site not in self.target_sites(facts):
            return None
        sizes: dict[str, Any] = {
            "width": facts.width_at(site),
            "width_in": facts.input_width_at(site),
        }
        side = self._side(site)
        return Rescale(part, site, **sizes, side=side, scale=self.scale, gate=self.gate)

    def adapterhub_key(self, tensor: str) -> str:
        return "lora_B" if tensor == "l" else tensor

    def adapterhub_config(self, facts: Facts) -> dict[str, Any]:
        places = adapterhub_targets(self, facts)
        if places is None or set(self.inputs) & set(self.targets):
            return super().adapterhub_config(facts)
        return places | _CONSTANTS | {"alpha": self.scale, "use_gating": self.gate}

    @classmethod
    def from_adapterhub(cls, config: dict[str, Any], facts: Facts) -> IA3 | None:
        if not is_lora(config, mode="scale"):
            return super().from_adapterhub(config, facts)
        settings = read_lora_settings(Lora, config, facts)
        if settings.get("rank", 8) != 1 or settings.get("dropout"):
            raise ValueError("r must be 1 and dropout 0 where composition_mode is scale")
        kept = {
            name: settings[name] for name in ("targets", "leave_out", "gate") if name in settings
        }
        return cls(**kept, inputs=(), scale=settings.get("alpha", 1.0))


_CONSTANTS: dict[str, Any] = {
    "architecture": "lora",
    "composition_mode": "scale",
    "dropout": 0.0,
    "dtype": None,
    "init_weights": "ia3",
    "init_weights_seed": None,
    "r": 1,
    "use_dora": False,
    "vera_b": None,
    "vera_d": None,
}
"""The keys that AdapterHub's files always contain."""
