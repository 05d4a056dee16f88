"""AdapterFusion: attention over what several adapters add (Pfeiffer et al., 2021).

Not called by a word of its own: `fuse(…)` of the language makes one per site of its members.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.ir.fusion import FusionAttention
from adaptcompose.methods.method import Method, Shape, read_settings

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Fusion(Method):
    """W_q, W_k, W_v of one width at each site; their number does not depend on the members'.

    An absent map is the identity. `pull` is the weight of ‖I − W_v‖² in the loss of training.
    """

    word: ClassVar[str] = "fuse"

    fused_sites: tuple[Site, ...] = ()
    query: bool = True
    key: bool = True
    value: bool = True
    query_before_ln: bool = False
    residual_before: bool = False
    value_before_softmax: bool = True
    value_initialized: bool = True
    temperature: bool = False
    dropout: float | None = 0.0
    value_regularisation: float = 0.01

    def sites(self, facts: Facts) -> tuple[Site, ...]:
        return self.fused_sites

    def restrict_to(self, sites: Collection[Site], facts: Facts) -> Self:
        return replace(self, fused_sites=tuple(site for site in self.fused_sites if site in sites))

    def tensors(self, site: Site, facts: Facts) -> dict[str, Shape]:
        width = facts.width_at(site)
        shapes: dict[str, Shape] = {}
        for name in ("query", "key"):
            if getattr(self, name):
                shapes |= {f"{name}.weight": (width, width), f"{name}.bias": (width,)}
        if self.value:
            shapes["value.weight"] = (width, width)
        return shapes

    def init_tensor(self, name: str, tensor: torch.Tensor) -> None:
        from torch.nn import init

        if name == "value.weight" and self.value_initialized:
            # the identity, with 1e-6 beside the diagonal as the published recipe has it
            init.eye_(tensor)
            tensor.data[tensor == 0] = 1e-6
        elif name.endswith("bias"):
            init.zeros_(tensor)
        else:
            init.normal_(tensor, std=0.02)

    def lower_attention(self, part: str, site: Site, facts: Facts) -> FusionAttention:
        dropout = self.dropout
        if dropout is None:
            dropout = float(facts.config.get(facts.layout.attention_dropout) or 0.0)
        return FusionAttention(
            part,
            site,
            facts.width_at(site),
            query=self.query,
            key=self.key,
            value=self.value,
            query_before_norm=self.query_before_ln,
            residual_before=self.residual_before,
            dropout=dropout,
            temperature=self.temperature,
        )

    def adapterhub_config(self, facts: Facts) -> dict[str, Any]:
        settings = {key: getattr(self, name) for key, name in _FIELDS.items()}
        return settings | {"regularization": self.value_regularisation > 0 and self.value}

    @classmethod
    def from_adapterhub(cls, config: dict[str, Any], at: tuple[Site, ...]) -> Fusion:
        """Files from before 2024 have no `dropout_prob`: that means the dropout of the backbone."""
        given = read_settings(cls, config, _FIELDS)
        pull = 0.01 if config.get("regularization", True) else 0.0
        return cls(fused_sites=at, value_regularisation=pull, **({"dropout": None} | given))

    def adapterhub_keys(self, name: str, site: Site, facts: Facts) -> dict[str, list[str]]:
        stem = f"{facts.layout.adapterhub_path(site)}.adapter_fusion_layer.{name}"
        return {key: [f"{stem}.{key}"] for key in self.tensors(site, facts)}

    def __str__(self) -> str:
        return "fusion"


_FIELDS = {
    "query": "query",
    "key": "key",
    "value": "value",
    "query_before_ln": "query_before_ln",
    "residual_before": "residual_before",
    "value_before_softmax": "value_before_softmax",
    "value_initialized": "value_initialized",
    "temperature": "temperature",
    "dropout_prob": "dropout",
}
"""Keys of AdapterHub's `config` and the fields here."""
