"""Prefix tuning: virtual keys and values in every layer (Li & Liang, 2021; Liu et al., 2022).

    head = Attn(x W_q, [P_k; x W_k], [P_v; x W_v])

Reparametrised, P = W₂ σ(W₁ E + b₁) + b₂ for a learned E of `length` rows; the network is needed in
training only, and computed once for a program that does not train. `flat` learns P itself, as
P-tuning v2 does, which is `deep_prompt`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.diagnostics.codes import AC209
from adaptcompose.diagnostics.diagnostic import Diagnostic
from adaptcompose.ir.prefix import KVPrefix, PositionConvention, PositionShift
from adaptcompose.ir.primitives import Primitive
from adaptcompose.methods.method import (
    SHARED_SITE,
    Method,
    PackedSlice,
    Shape,
    lost_layers,
    read_settings,
    register_configuration,
    register_method,
)
from adaptcompose.methods.targeted import native_config, read_native_config
from adaptcompose.syntax.signature import LayerSet, option

if TYPE_CHECKING:
    import torch

POSITIONS_SITE = Site("positions")
KINDS = ("key", "value")


@register_method
@dataclass(frozen=True)
class Prefix(Method):
    """Virtual keys and values that attention sees before those of the tokens, in every layer.

    The tokens either keep their positions (`kept`, as in files of AdapterHub), or the prefix takes
    the first positions (`shifted`, as in PEFT and P-tuning v2). On a backbone whose attention
    scores depend on distance, such as T5, `kept` does what files of AdapterHub were trained with:
    the distance between tokens and keys after the prefix grows by the length of the prefix.

    Examples:
        prefix(length=20)
        stack(lang=sw, task=prefix(flat=true, positions=shifted))
    """

    word: ClassVar[str] = "prefix"
    mergeable: ClassVar[bool] = True
    additive: ClassVar[bool] = False

    length: int = option(30, "number of virtual keys and values per head", minimum=1)
    flat: bool = option(
        False, "train keys and values directly, without a network that computes them"
    )
    hidden: int = option(512, "width of that network", minimum=1)
    activation: str = option("tanh", "activation of that network: any that transformers has")
    positions: PositionConvention = option(
        "kept", "shifted if the prefix takes the first positions, else kept"
    )
    gate: bool = option(False, "multiply by a learned gate per example")
    shared_gate: bool = option(True, "use one gate for keys and values")
    dropout: float = option(
        0.0, "dropout on keys and values, in training", minimum=0, exclusive_maximum=1
    )
    leave_out: LayerSet = option(frozenset(), "layers without a prefix")
    encoder: bool = option(True, "in an encoder-decoder: add the prefix to the encoder")
    cross: bool = option(True, "in an encoder-decoder: add the prefix to the cross-attention")

    @property
    def position_convention(self) -> tuple[str, str]:
        return "keys", self.positions

    def problems(self, facts: Facts) -> Iterator[Diagnostic]:
        counted = facts.has(POSITIONS_SITE.name) or facts.layout.has_relative_positions
        if self.positions == "shifted" and not counted:
            expected = "`kept` on a backbone that does not count positions"
            yield AC209.at(name="positions", operator=self.word, expected=expected, got="`shifted`")

    def attention_sites(self, facts: Facts) -> tuple[Site, ...]:
        """The sites of its keys and values."""
        left_out = [] if self.encoder else ["encoder"]
        left_out += [] if self.cross else ["cross"]
        found = facts.sites_of_kind("attention")
        here = [site for site in found if facts.layer_number(site) not in self.leave_out]
        return tuple(site for site in here if shared_site(site).part not in left_out)

    def sites(self, facts: Facts) -> tuple[Site, ...]:
        found = self.attention_sites(facts)
        return found if self.flat else (*dict.fromkeys(map(shared_site, found)), *found)

    def restrict_to(self, sites: Collection[Site], facts: Facts) -> Self:
        lost = lost_layers(self.attention_sites(facts), sites, facts)
        return replace(self, leave_out=self.leave_out | lost) if lost else self

    @property
    def gates(self) -> int:
        """The number of gates in a layer."""
        return 0 if not self.gate else 1 if self.shared_gate else 2

    def tensors(self, site: Site, facts: Facts) -> dict[str, Shape]:
        if site.name == SHARED_SITE.name:
            return {
                "embedding": (self.length, facts.width),
                "hidden.weight": (self.hidden, facts.width),
                "hidden.bias": (self.hidden,),
            }
        if site.name == POSITIONS_SITE.name:
            return {}
        heads, size = key_value_heads(facts, site.part)
        shapes: dict[str, Shape] = {}
        for name in KINDS:
            if self.flat:
                shapes[name] = (self.length, heads * size)
            else:
                shapes[f"{name}.weight"] = (heads * size, self.hidden)
                shapes[f"{name}.bias"] = (heads * size,)
        if self.gate:
            shapes |= {"gate.weight": (self.gates, facts.width), "gate.bias": (self.gates,)}
        return shapes

    def init_tensor(self, name: str, tensor: torch.Tensor) -> None:
        """As published: E, or P where it is flat, from N(0, 1); maps as torch starts them."""
        from torch.nn import init

        if name == "embedding" or name in KINDS:
            init.normal_(tensor)
        elif name.endswith("bias"):
            init.zeros_(tensor)
        elif name == "gate.weight":
            init.normal_(tensor, std=0.02)
        else:
            init.kaiming_uniform_(tensor, a=5**0.5)

    def lower(self, part: str, site: Site, facts: Facts) -> Primitive | None:
        if site.name == POSITIONS_SITE.name and self.positions == "shifted":
            here = self.encoder or site.part != "encoder"
            return PositionShift(part, site, self.length) if here else None
        if site not in self.attention_sites(facts):
            return None
        heads, size = key_value_heads(facts, site.part)
        return KVPrefix(
            part,
            site,
            length=self.length,
            heads=heads,
            head_size=size,
            width=facts.width,
            shifts_queries=self.positions == "shifted" and not facts.has(POSITIONS_SITE.name),
            gate_count=self.gates,
            dropout=self.dropout,
            parameter_source="stored" if self.flat else "computed",
            source_sites=() if self.flat else (shared_site(site),),
        )

    def effective_weights(
        self, site: Site, weights: Mapping[str, torch.Tensor], shared: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """The keys and values of one layer, computed by the network."""
        if self.flat or not weights:
            return dict(weights)
        from torch.nn.functional import linear
        from transformers.activations import get_activation

        inner = linear(shared["embedding"], shared["hidden.weight"], shared["hidden.bias"])
        inner = get_activation(self.activation)(inner)
        own = {name: t for name, t in weights.items() if name.partition(".")[0] == "gate"}
        for name in KINDS:
            own[name] = linear(inner, weights[f"{name}.weight"], weights[f"{name}.bias"])
        return own

    def effective_count_at(self, sites: Iterable[Site], facts: Facts) -> int:
        own = [site for site in sites if site.name != SHARED_SITE.name]
        return replace(self, flat=True).parameter_count_at(own, facts)

    def adapterhub_config(self, facts: Facts) -> dict[str, Any]:
        if self.positions == "shifted":
            return native_config(self)  # the peer knows one convention, and has to refuse the other
        settings = {key: getattr(self, name) for key, name in _FIELDS.items()}
        return _CONSTANTS | settings | {"leave_out": sorted(self.leave_out)}

    @classmethod
    def from_adapterhub(cls, config: dict[str, Any], facts: Facts) -> Prefix | None:
        """The method that a `config` describes, or None if it belongs to another family."""
        if config.get("architecture") != "prefix_tuning":
            own: Prefix | None = read_native_config(cls, config)
            return own
        given = {key: value for key, value in config.items() if value is not None}
        given["leave_out"] = frozenset(given.get("leave_out", ()))
        given["non_linearity"] = str(given.get("non_linearity", "tanh")).lower()
        return cls(**read_settings(cls, given, _FIELDS))

    def adapterhub_keys(self, name: str, site: Site, facts: Facts) -> dict[str, list[str]]:
        kind = facts.layout.adapterhub_prefix_keys[
            (site if site.name == SHARED_SITE.name else shared_site(site)).part
        ]
        stem = f"prefix_tuning.prefix_tunings.{name}.{kind}"
        names = {
            "embedding": "wte.weight",
            "hidden.weight": "control_trans.0.weight",
            "hidden.bias": "control_trans.0.bias",
        }
        keys = {}
        for tensor in self.tensors(site, facts):
            module, _, kind = tensor.rpartition(".")
            if module == "gate":
                place = f"{facts.layout.path(site)}.prefix_tuning.prefix_gates.{name}"
                keys[tensor] = [f"{place}.{kind}"]
            elif tensor in names:
                keys[tensor] = [f"{stem}.{names[tensor]}"]
            else:
                last = "control_trans" if self.flat else f"control_trans.2.{kind}"
                keys[tensor] = [f"{stem}.{last}"]
        return keys

    def packed_slice(self, name: str, site: Site, facts: Facts) -> PackedSlice | None:
        """Files have all layers in one tensor, the keys of a layer before its values."""
        kind, _, what = name.partition(".")
        if kind not in KINDS:
            return None
        sites = [
            other
            for other in self.attention_sites(facts)
            if shared_site(other) == shared_site(site)
        ]
        heads, size = key_value_heads(facts, site.part)
        count = 2 * len(sites)
        whole = {"weight": (count * heads * size, self.hidden), "bias": (count * heads * size,)}
        shape = whole.get(what, (self.length * count * heads * size,))
        index = 2 * sites.index(site) + KINDS.index(kind)
        return PackedSlice(index, count, 0 if what else 1, shape)


def shared_site(site: Site) -> Site:
    """Where an attention's keys and values have the tensors that they share with others.

    Those of an encoder, of its decoder, and of what the decoder attends to have tensors each.
    """
    return Site(SHARED_SITE.name, None, "cross" if site.name.startswith("cross") else site.part)


def key_value_heads(facts: Facts, part: str = "") -> tuple[int, int]:
    """The number of heads of keys and values in a part of this backbone, and the size of a head."""
    config, all_heads = facts.config, facts.heads(part)
    heads = config.get("num_key_value_heads") or all_heads
    size = config.get("head_dim") or config.get("d_kv") or facts.width // all_heads
    return int(heads), int(size)


_FIELDS = {
    "prefix_length": "length",
    "bottleneck_size": "hidden",
    "non_linearity": "activation",
    "dropout": "dropout",
    "use_gating": "gate",
    "shared_gating": "shared_gate",
    "flat": "flat",
    "leave_out": "leave_out",
    "encoder_prefix": "encoder",
    "cross_prefix": "cross",
}
"""The keys of AdapterHub's `config`, and the fields that they set."""

_CONSTANTS: dict[str, Any] = {
    "architecture": "prefix_tuning",
    "init_weights_seed": None,
}

register_configuration("prefix_tuning", Prefix())
register_configuration("prefix_tuning_flat", Prefix(flat=True))
# Liu et al. (2022): no network, and the prefix takes the first positions
register_configuration("deep_prompt", Prefix(length=20, flat=True, positions="shifted"))
