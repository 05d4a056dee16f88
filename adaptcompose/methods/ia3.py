"""IA³ (Liu et al., 2022): learned factors of keys, values and the inside of the feed-forward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.ir.linear import Rescale
from adaptcompose.ir.primitives import Primitive
from adaptcompose.methods.lora import Lora, hub_places, is_lora, lora_settings
from adaptcompose.methods.method import Shape, method
from adaptcompose.methods.targeted import Changing
from adaptcompose.syntax.signature import option

if TYPE_CHECKING:
    import torch


@method
@dataclass(frozen=True)
class IA3(Changing):
    """One learned factor per channel, on what comes out of some maps or goes into others.

    As in the paper, the factors of the feed-forward stand behind its activation: at the input of
    its second map. AdapterHub's files have them in front of it, at the output of the first.

    Examples:
        ia3()
        ia3(targets=[attn.k, attn.v, ffn.in], inputs=[])
    """

    word: ClassVar[str] = "ia3"
    columns: ClassVar[tuple[str, ...]] = ("l",)
    mergeable: ClassVar[bool] = True

    targets: tuple[str, ...] = option(("attn.k", "attn.v", "ffn.mid"), "the maps that it changes")
    inputs: tuple[str, ...] = option(("ffn.mid",), "those of which it scales the input")
    scale: float = option(1.0, "a constant factor of all factors", least=0.001)
    gate: bool = option(False, "a learned gate per example instead of scale")

    @property
    def gated(self) -> bool:
        return self.gate

    def _side(self, site: Site) -> Any:
        return "input" if site.name in self.inputs else "output"

    def tensors(self, site: Site, facts: Facts) -> dict[str, Shape]:
        inner = self._side(site) == "input"
        shapes: dict[str, Shape] = {"l": (facts.size_in(site) if inner else facts.size(site),)}
        if self.gate:
            shapes |= {"gate.weight": (1, facts.size_in(site)), "gate.bias": (1,)}
        return shapes

    def start(self, name: str, tensor: torch.Tensor) -> None:
        from torch.nn import init

        if name == "l":
            init.constant_(tensor, 2.0 if self.gate else 1 / self.scale)  # a new gate is ½
        else:
            init.zeros_(tensor)

    def neutral(self, name: str) -> float:
        return 1.0 if name == "l" else 0.0

    def lower(self, part: str, site: Site, facts: Facts) -> Primitive | None:
        if site not in self.places(facts):
            return None
        sizes: dict[str, Any] = {"width": facts.size(site), "width_in": facts.size_in(site)}
        side = self._side(site)
        return Rescale(part, site, **sizes, side=side, scale=self.scale, gate=self.gate)

    def key(self, tensor: str) -> str:
        return "lora_B" if tensor == "l" else tensor

    def adapterhub_config(self, facts: Facts) -> dict[str, Any]:
        places = hub_places(self, facts)
        if places is None or set(self.inputs) & set(self.targets):
            return super().adapterhub_config(facts)
        return places | _PEER | {"alpha": self.scale, "use_gating": self.gate}

    @classmethod
    def from_adapterhub(cls, config: dict[str, Any], facts: Facts) -> IA3 | None:
        if not is_lora(config, mode="scale"):
            return super().from_adapterhub(config, facts)
        settings = lora_settings(Lora, config, facts)
        if settings.get("rank", 8) != 1 or settings.get("dropout"):
            raise ValueError("r must be 1 and dropout 0 where composition_mode is scale")
        kept = {
            name: settings[name] for name in ("targets", "leave_out", "gate") if name in settings
        }
        return cls(**kept, inputs=(), scale=settings.get("alpha", 1.0))


_PEER: dict[str, Any] = {
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
"""Keys that the peer's files always carry."""
