"""VeRA (Kopiczko et al., 2024): one random pair of matrices for all maps, scaled by vectors.

W + s·Λ_b B Λ_d A. A and B are random and never trained: they come out of a generator whose seed is
all that is stored of them, unless a file brings them. d starts as 0.1, b as 0.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.diagnostics.diagnostic import Diagnostic
from adaptcompose.ir.linear import DecomposedLowRank, LowRank, SharedLowRank
from adaptcompose.ir.primitives import Primitive
from adaptcompose.methods.lora import adapterhub_targets, is_lora, is_vera, read_lora_settings
from adaptcompose.methods.method import SHARED_SITE, Shape, register_method
from adaptcompose.methods.targeted import TargetedMethod
from adaptcompose.syntax.signature import option

if TYPE_CHECKING:
    import torch


@register_method
@dataclass(frozen=True)
class Vera(TargetedMethod):
    """Two trained vectors per map around a random pair of matrices that all maps share.

    Files of AdapterHub have full matrices instead of the vectors (`matrices=true`), which start
    as diagonal matrices, and contain the random pair (`stored=true`).

    Examples:
        vera(rank=1024, seed=7)
    """

    word: ClassVar[str] = "vera"
    column_vectors: ClassVar[tuple[str, ...]] = ("m",)

    rank: int = option(256, "rank: columns of B and rows of A", minimum=1)
    scale: float = option(1.0, "factor of the update")
    targets: tuple[str, ...] = option(("attn.q", "attn.v"), "the linear maps to adapt")
    seed: int = option(0, "seed of the generator of A and B", minimum=0)
    d: float = option(0.1, "initial value of the vector after A")
    b: float = option(0.0, "initial value of the vector after B")
    dropout: float = option(
        0.0, "dropout on the input of A, in training", minimum=0, exclusive_maximum=1
    )
    stored: bool = option(False, "store A and B with the weights, not only their seed")
    matrices: bool = option(False, "use full matrices instead of vectors")
    dora: bool = option(False, "train the row lengths separately, as DVoRA of AdapterHub does")
    gate: bool = option(
        False, "use a learned gate per example instead of scale, as AdapterHub does"
    )

    def problems(self, facts: Facts) -> Iterator[Diagnostic]:
        yield from super().problems(facts)
        if self.matrices and not self.stored:
            yield self._wrong_argument("matrices", "false unless `stored=true`", True)
        shapes = {
            (facts.width_at(site), facts.input_width_at(site)) for site in self.target_sites(facts)
        }
        if self.matrices and len(shapes) > 1:
            yield self._wrong_argument("matrices", "false when the maps differ in shape", True)
        for name in ("dora", "gate"):
            if getattr(self, name) and not self.matrices:
                yield self._wrong_argument(name, "false unless `matrices=true`", True)

    def sites(self, facts: Facts) -> tuple[Site, ...]:
        return (*((SHARED_SITE,) if self.stored else ()), *self.target_sites(facts))

    def projection_size(self, facts: Facts) -> tuple[int, int]:
        """The number of columns of A and of rows of B."""
        places = self.target_sites(facts)
        return max(map(facts.input_width_at, places), default=1), max(
            map(facts.width_at, places), default=1
        )

    def tensors(self, site: Site, facts: Facts) -> dict[str, Shape]:
        if site == SHARED_SITE:
            columns, rows = self.projection_size(facts)
            return {"A": (self.rank, columns), "B": (rows, self.rank)}
        width = facts.width_at(site)
        if not self.matrices:
            return {"d": (self.rank,), "b": (width,)}
        shapes: dict[str, Shape] = {"d": (self.rank, self.rank), "b": (width, width)}
        if self.dora:
            shapes["m"] = (width,)
        if self.gate:
            shapes |= {"gate.weight": (1, facts.input_width_at(site)), "gate.bias": (1,)}
        return shapes

    def init_tensor(self, name: str, tensor: torch.Tensor) -> None:
        import torch
        from torch.nn import init

        if name in ("d", "b"):
            value = getattr(self, name)
            tensor.copy_(torch.eye(len(tensor)) * value) if self.matrices else tensor.fill_(value)
        elif name == "m":
            init.ones_(tensor)
        elif name == "gate.weight":
            init.normal_(tensor, std=0.02)
        elif name == "gate.bias":
            init.zeros_(tensor)
        else:
            init.kaiming_uniform_(tensor)

    def init_from_backbone(
        self, tensors: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]
    ) -> None:
        if "m" in tensors:
            tensors["m"].copy_(own["weight"].to(tensors["m"].dtype).norm(dim=1))

    def is_trainable(self, name: str) -> bool:
        return name not in ("A", "B")

    def lower(self, part: str, site: Site, facts: Facts) -> Primitive | None:
        if site not in self.target_sites(facts):
            return None
        fields: dict[str, Any] = {
            "width": facts.width_at(site),
            "width_in": facts.input_width_at(site),
        }
        fields |= {"rank": self.rank, "scale": self.scale, "dropout": self.dropout}
        if self.matrices:
            fields |= {"parameter_source": "computed", "source_sites": (SHARED_SITE,)}
            fields["gate"] = self.gate
            if self.dora:
                return DecomposedLowRank(part, site, **fields, adapterhub_norm=True)
            return LowRank(part, site, **fields)
        own: dict[str, Any] = {"seed": self.seed}
        if self.stored:
            own = {"seed": 0, "projection": part, "source_sites": (SHARED_SITE,)}
        return SharedLowRank(
            part, site, **fields, **own, projection_size=self.projection_size(facts)
        )

    def effective_weights(
        self, site: Site, weights: Mapping[str, torch.Tensor], shared: Mapping[str, torch.Tensor]
    ) -> Mapping[str, torch.Tensor]:
        """A and B multiplied by the site's matrices, if it has matrices."""
        if not self.matrices:
            return weights
        down, up = weights["d"] @ shared["A"], weights["b"] @ shared["B"]
        return {"A": down, "B": up} | {k: t for k, t in weights.items() if k not in ("d", "b")}

    def adapterhub_key(self, tensor: str) -> str:
        return {"d": "vera_D", "b": "vera_B", "m": "m.weight"}.get(tensor, tensor)

    def adapterhub_keys(self, name: str, site: Site, facts: Facts) -> Mapping[str, Sequence[str]]:
        if site == SHARED_SITE:
            return {key: [f"shared_parameters.{name}.lora_{key}"] for key in ("A", "B")}
        return super().adapterhub_keys(name, site, facts)

    def adapterhub_config(self, facts: Facts) -> dict[str, Any]:
        places = adapterhub_targets(self, facts)
        if places is None or not self.matrices:
            return super().adapterhub_config(facts)
        own = {"r": self.rank, "alpha": self.scale * self.rank, "dropout": self.dropout}
        own |= {"vera_d": self.d, "vera_b": self.b}
        own |= {"use_dora": self.dora, "use_gating": self.gate}
        return _CONSTANTS | places | own

    @classmethod
    def from_adapterhub(cls, config: dict[str, Any], facts: Facts) -> Vera | None:
        from adaptcompose.methods.lora import Lora

        if not is_lora(config, mode="add") or not is_vera(config):
            return super().from_adapterhub(config, facts)
        found = read_lora_settings(Lora, config, facts)
        rank = found.get("rank", 8)
        same = ("targets", "leave_out", "dropout", "gate")
        kept = {name: found[name] for name in same if name in found}
        return cls(
            **kept,
            rank=rank,
            scale=found.get("alpha", 8.0) / rank,
            d=float(config["vera_d"]),
            b=float(config["vera_b"]),
            stored=True,
            matrices=True,
            dora=bool(config.get("use_dora")),
        )


@functools.lru_cache(maxsize=8)
def projection(
    seed: int, rank: int, widest: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """A and B for a seed: uniform with Kaiming's bound √(6 / columns), as in PEFT."""
    import torch

    columns, rows = widest
    generator = torch.Generator().manual_seed(seed)
    pair = []
    for shape in ((rank, columns), (rows, rank)):
        bound = math.sqrt(3.0) * (math.sqrt(2.0) / math.sqrt(shape[1]))
        with torch.inference_mode(False), torch.no_grad():
            tensor = torch.empty(shape).uniform_(-bound, bound, generator=generator)
            pair.append(tensor.to(dtype=dtype, device=device))
    return pair[0], pair[1]


_CONSTANTS: dict[str, Any] = {
    "architecture": "lora",
    "composition_mode": "add",
    "dtype": None,
    "init_weights": "vera",
    "init_weights_seed": None,
}
"""The keys that AdapterHub's files always contain."""
