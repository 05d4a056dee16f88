"""Bottleneck adapters: Houlsby et al. (2019), Pfeiffer et al. (2021), He et al. (2022), MAD-X.

u = s·(U σ(D z + b) + c); what z is, and what u is added to, is the placement. MAD-X's language and
task adapters compute what their published weights were trained with: no second LayerNorm between
them (Pfeiffer et al., 2020b, print another equation for the task adapter than its weights use).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.diagnostics.diagnostic import Diagnostic
from adaptcompose.ir.primitives import BottleneckMLP as BottleneckPrimitive
from adaptcompose.ir.primitives import Placement, Primitive
from adaptcompose.methods import invertible
from adaptcompose.methods.activations import unknown_activations
from adaptcompose.methods.method import (
    Method,
    Shape,
    lost_layers,
    read_settings,
    register_configuration,
    register_method,
)
from adaptcompose.syntax.signature import LayerSet, option

if TYPE_CHECKING:
    import torch

Init = Literal["bert", "houlsby", "mam_adapter"]

STATES = {"attn.out": "attention", "cross.out": "cross", "ffn.out": "output"}
"""The sites, each with the argument that puts an adapter there."""


@register_method
@dataclass(frozen=True)
class Bottleneck(Method):
    """A small network with a residual after attention, feed-forward or both.

    Without arguments it is the adapter of Pfeiffer et al. (2021): one after each feed-forward
    block, which reads LN(h + x) and is followed by the norm of the backbone a second time.

    Examples:
        bottleneck(reduction=16)
        stack(lang=sw, task=bottleneck(reduction=[16, 8, 8], activation=gelu, attention=true))
        language(reduction=4)
    """

    word: ClassVar[str] = "bottleneck"
    fusible: ClassVar[bool] = True
    mergeable: ClassVar[bool] = True

    reduction: float | tuple[float, ...] = option(
        16.0, "width divided by the bottleneck size; a list has one number per layer", minimum=0.001
    )
    activation: str = option("relu", "any activation that transformers has")
    attention: bool = option(False, "place an adapter after self-attention")
    output: bool = option(True, "place an adapter after the feed-forward block")
    cross: bool = option(False, "place an adapter after the cross-attention of a decoder")
    parallel: bool = option(False, "read the input of the block instead of its output")
    scale: float | Literal["learned", "channel"] = option(
        1.0, "factor of the output: a number, one learned number, or one per channel"
    )
    gate: bool = option(False, "multiply by a learned gate per example")
    ln_before: bool = option(False, "apply a LayerNorm of its own first")
    ln_after: bool = option(False, "apply a LayerNorm of its own last")
    original_ln_before: bool = option(True, "read LN(h + x), with the norm of the backbone")
    original_ln_after: bool = option(True, "apply the residual and norm of the backbone afterwards")
    residual_before_ln: bool | Literal["post_add"] = option(
        True, "where to add: true, to h; false, to the state that is read; post_add, to h + x"
    )
    adapter_residual_before_ln: bool = option(False, "add the residual before ln_after")
    dropout: float = option(
        0.0, "dropout on the output, in training", minimum=0, exclusive_maximum=1
    )
    stochastic_depth: float = option(
        0.0,
        "probability of skipping the adapter for an example, in training",
        minimum=0,
        exclusive_maximum=1,
    )
    init: Init = option("bert", "initialisation of new weights")
    leave_out: LayerSet = option(frozenset(), "layers without an adapter")
    invertible: Literal["nice", "glow"] | None = option(
        None, "add an invertible part at the embeddings"
    )
    invertible_reduction: float = option(
        2.0, "half the embedding width divided by the size of the invertible part", minimum=0.001
    )

    invertible_activation: str | None = option(
        None, "activation of the invertible part (default: that of the bottleneck)"
    )

    def problems(self, facts: Facts) -> Iterator[Diagnostic]:
        yield from unknown_activations(self.activation, self.invertible_activation)

    def sites(self, facts: Facts) -> tuple[Site, ...]:
        names = [name for name, argument in STATES.items() if getattr(self, argument)]
        kept = [
            site for site in facts.sites(*names) if facts.layer_number(site) not in self.leave_out
        ]
        return (*((invertible.EMBEDDINGS_SITE,) if self.invertible else ()), *kept)

    def restrict_to(self, sites: Collection[Site], facts: Facts) -> Self:
        lost = lost_layers(self.sites(facts), sites, facts)
        return replace(self, leave_out=self.leave_out | lost) if lost else self

    def rank_at(self, site: Site, facts: Facts) -> int:
        layer = facts.layer_number(site)
        assert layer is not None
        reduction = self.reduction
        if isinstance(reduction, tuple):
            reduction = reduction[min(layer, len(reduction) - 1)]
        return max(1, int(facts.width_at(site) // reduction))

    def tensors(self, site: Site, facts: Facts) -> dict[str, Shape]:
        if site == invertible.EMBEDDINGS_SITE:
            return invertible.tensors(facts, self.invertible_reduction, self.invertible or "nice")
        width, rank = facts.width_at(site), self.rank_at(site, facts)
        norm: dict[str, Shape] = {"weight": (width,), "bias": (width,)}
        shapes: dict[str, Shape] = {}
        if self.ln_before:
            shapes |= {f"norm_before.{name}": shape for name, shape in norm.items()}
        shapes |= self.projection_shapes("down", width, rank) | self.projection_shapes(
            "up", rank, width
        )
        if self.ln_after:
            shapes |= {f"norm_after.{name}": shape for name, shape in norm.items()}
        if self.gate:
            shapes |= {"gate.weight": (1, width), "gate.bias": (1,)}
        if isinstance(self.scale, str):
            shapes["scale"] = (1,) if self.scale == "learned" else (width,)
        return shapes

    def projection_shapes(self, name: str, source: int, target: int) -> dict[str, Shape]:
        """The names and shapes of the tensors of one of the two maps."""
        return {f"{name}.weight": (target, source), f"{name}.bias": (target,)}

    def init_tensor(self, name: str, tensor: torch.Tensor) -> None:
        from torch.nn import init

        module, _, kind = name.rpartition(".")
        if self.identity_value(name):
            init.ones_(tensor)
        elif kind == "bias":
            init.zeros_(tensor)
        elif self.init == "mam_adapter" and module == "down":
            init.kaiming_uniform_(tensor, a=5**0.5)
        elif self.init == "mam_adapter" and module == "up":
            init.zeros_(tensor)
        elif self.init == "houlsby" and module in ("down", "up"):
            init.trunc_normal_(tensor, std=0.01, a=-0.02, b=0.02)
        else:
            init.normal_(tensor, std=0.02)

    def identity_value(self, name: str) -> float:
        module, _, kind = name.rpartition(".")
        return 1.0 if name == "scale" or (module.startswith("norm") and kind == "weight") else 0.0

    @property
    def placement(self) -> Placement:
        if self.parallel:
            return Placement("input", "output", self.original_ln_after)
        if not self.original_ln_before:
            return Placement("output", "output", self.original_ln_after)
        residuals: dict[Any, Any] = {True: "output", "post_add": "sum", False: "read"}
        return Placement("norm", residuals[self.residual_before_ln], self.original_ln_after)

    def lower(self, part: str, site: Site, facts: Facts) -> Primitive | None:
        if site in (invertible.EMBEDDINGS_SITE, invertible.HEAD_SITE):
            if self.invertible is None:
                return None
            reduction, kind = self.invertible_reduction, self.invertible
            activation = self.invertible_activation or self.activation
            return invertible.lower(part, site, facts, reduction, activation, kind)
        if not getattr(self, STATES.get(site.name, ""), False):
            return None
        if facts.layer_number(site) in self.leave_out:
            return None
        return BottleneckPrimitive(
            part,
            site,
            width=facts.width_at(site),
            rank=self.rank_at(site, facts),
            activation=self.activation,
            where=self.placement,
            scale=self.scale,
            gate=self.gate,
            norm_before=self.ln_before,
            norm_after=self.ln_after,
            residual_inside=self.adapter_residual_before_ln and not self.parallel,
            dropout=self.dropout,
            depth_drop=0.0 if self.parallel else self.stochastic_depth,
        )

    def adapterhub_config(self, facts: Facts) -> dict[str, Any]:
        settings = {key: getattr(self, name) for key, name in _FIELDS.items()}
        settings["reduction_factor"] = _factors(self.reduction)
        settings["leave_out"] = sorted(self.leave_out)
        if self.invertible is None:
            settings["inv_adapter_reduction_factor"] = None
        if self.invertible_activation is not None:  # the peer drops a key that it does not know
            settings[_OWN_ACTIVATION] = self.invertible_activation
        return settings | _NO_PHM

    @classmethod
    def from_adapterhub(cls, config: dict[str, Any], facts: Facts) -> Bottleneck | None:
        """The method that a `config` describes, or None if it belongs to another family."""
        if config.get("architecture") is not None or config.get("phm_layer"):
            return None
        if config.get("inv_adapter") not in (None, "nice", "glow"):
            return None
        if "reduction_factor" not in config:
            return None
        missing = [key for key in _REQUIRED if config.get(key) is None]
        if missing:
            raise ValueError(f"{missing[0]} is missing")
        given = {key: value for key, value in config.items() if value is not None}
        if isinstance(given["reduction_factor"], dict):
            given["reduction_factor"] = _per_layer(given["reduction_factor"], facts.total_layers)
        given["non_linearity"] = str(given["non_linearity"]).lower()
        given["leave_out"] = frozenset(given.get("leave_out", ()))
        fields = _FIELDS | {_OWN_ACTIVATION: "invertible_activation"}
        return cls(**(_ADAPTERHUB_DEFAULTS | read_settings(cls, given, fields)))

    def adapterhub_keys(self, name: str, site: Site, facts: Facts) -> dict[str, list[str]]:
        if site == invertible.EMBEDDINGS_SITE:
            return {key: invertible.keys(name, key, facts) for key in self.tensors(site, facts)}
        stem = f"{facts.layout.adapterhub_path(site)}.adapters.{name}"
        first = 1 if self.ln_before else 0  # an own norm takes the first slot of the sequence
        modules = {
            "down": [f"adapter_down.{first}"],
            "up": ["adapter_up"],
            # stored twice, because the peer registers one module under two names
            "norm_before": ["adapter_norm_before", "adapter_down.0"],
            "norm_after": ["adapter_norm_after"],
            "gate": ["gate"],
        }
        keys = {}
        for tensor in self.tensors(site, facts):
            module, _, kind = tensor.rpartition(".")
            keys[tensor] = [f"{stem}.{key}.{kind}" for key in modules.get(module, [])]
            if tensor == "scale":
                keys[tensor] = [f"{stem}.scaling"]
        return keys


def _factors(reduction: float | tuple[float, ...]) -> Any:
    """As the peer has them: whole numbers, which its shared factors need, and a mapping of layers.

    >>> _factors(16.0), _factors((2.0, 4.5, 4.5))
    (16, {'0': 2, 'default': 4.5})
    """
    if isinstance(reduction, tuple):
        rest = reduction[-1]
        own = {str(layer): value for layer, value in enumerate(reduction) if value != rest}
        return {key: _factors(value) for key, value in (own | {"default": rest}).items()}
    return int(reduction) if reduction == int(reduction) else reduction


def _per_layer(factors: dict[str, Any], layers: int) -> tuple[Any, ...]:
    """AdapterHub's mapping from layers to factors, as one factor per layer."""
    found = [factors.get(str(layer), factors.get("default")) for layer in range(layers)]
    if None in found:
        raise ValueError(f"reduction_factor has no entry for layer {found.index(None)}")
    return tuple(found)


HOULSBY = Bottleneck(attention=True, activation="swish", original_ln_before=False)
PARALLEL = Bottleneck(
    reduction=2.0, parallel=True, scale=4.0, original_ln_before=False, init="mam_adapter"
)
"""He et al. (2022): parallel to the feed-forward block, and scaled; half of their MAM adapter."""
ADAPTER_PLUS = Bottleneck(
    reduction=96.0,
    activation="gelu",
    scale="channel",
    original_ln_after=False,
    residual_before_ln=False,
    stochastic_depth=0.1,
    init="houlsby",
)
"""Adapter+ (Steitz & Roth, 2024)."""

register_configuration("pfeiffer", Bottleneck())
register_configuration("houlsby", HOULSBY)
register_configuration("language", Bottleneck(reduction=2.0, invertible="nice"))
# AdapterHub's names of published configurations
register_configuration("seq_bn", Bottleneck())
register_configuration("seq_bn_inv", Bottleneck(invertible="nice"))
register_configuration("double_seq_bn", HOULSBY)
register_configuration("double_seq_bn_inv", replace(HOULSBY, invertible="nice"))
register_configuration("par_bn", PARALLEL)
register_configuration("scaled_par_bn", replace(PARALLEL, scale="learned"))
register_configuration("adapter_plus", ADAPTER_PLUS)

_FIELDS = {
    "reduction_factor": "reduction",
    "non_linearity": "activation",
    "mh_adapter": "attention",
    "output_adapter": "output",
    "cross_adapter": "cross",
    "is_parallel": "parallel",
    "scaling": "scale",
    "use_gating": "gate",
    "ln_before": "ln_before",
    "ln_after": "ln_after",
    "original_ln_before": "original_ln_before",
    "original_ln_after": "original_ln_after",
    "residual_before_ln": "residual_before_ln",
    "adapter_residual_before_ln": "adapter_residual_before_ln",
    "dropout": "dropout",
    "stochastic_depth": "stochastic_depth",
    "init_weights": "init",
    "leave_out": "leave_out",
    "inv_adapter": "invertible",
    "inv_adapter_reduction_factor": "invertible_reduction",
}
"""The keys of AdapterHub's `config`, and the fields that they set."""

_OWN_ACTIVATION = "inv_adapter_non_linearity"
"""Files of 2020 have it nested; later ones cannot say it, and ours do."""

_REQUIRED = ("reduction_factor", "non_linearity", "mh_adapter", "output_adapter")
"""The keys that have no default in AdapterHub."""

_ADAPTERHUB_DEFAULTS: dict[str, Any] = {"original_ln_before": False}
"""The values of absent keys in AdapterHub, where they differ from the defaults here."""

_NO_PHM = {
    "phm_layer": False,
    "phm_dim": 4,
    "phm_bias": True,
    "phm_c_init": "normal",
    "phm_init_range": 0.0001,
    "phm_rank": 1,
    "learn_phm": True,
    "factorized_phm_W": True,
    "factorized_phm_rule": False,
    "shared_W_phm": False,
    "shared_phm_rule": True,
    "hypercomplex_nonlinearity": "glorot-uniform",
    "init_weights_seed": None,
}
"""The keys of other families that AdapterHub's files always contain."""
