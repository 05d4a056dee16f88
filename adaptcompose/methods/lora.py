"""LoRA (Hu et al., 2022): what training adds to a weight is of low rank.

W + s·B A with s = α/r, or α/√r (rsLoRA, Kalajdzievski, 2023). Rank and α may differ by place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from adaptcompose.backbones.layout import Facts, Site, SiteKind
from adaptcompose.diagnostics.diagnostic import Diagnostic
from adaptcompose.ir.linear import BiasDelta, LowRank, NormReplacement, WeightReplacement
from adaptcompose.ir.primitives import MergeRecipe, Primitive
from adaptcompose.methods.method import Combine, Shape, read_settings, register_method
from adaptcompose.methods.targeted import TargetedMethod
from adaptcompose.syntax.signature import option

if TYPE_CHECKING:
    import torch

ATTENTIONS = ("attn", "cross")
LETTERS = ("q", "k", "v")
"""What AdapterHub's files call the maps of attention; a letter means that of a decoder's, too."""


@register_method
@dataclass(frozen=True)
class Lora(TargetedMethod):
    """A product of two thin matrices, added to linear maps of the backbone.

    The target `embed.tokens` is the token embedding. `vocabulary` is the last map of a language
    model; it only has an effect with the backbone's own head.

    `ranks` and `alphas` list exceptions, as `attn.q=4` or `3.attn.q=4`; the last match counts.

    Examples:
        lora(rank=8, alpha=16)
        lora(targets=[attn.q, attn.k, attn.v, attn.o, ffn.in, ffn.mid], rslora=true)
        lora(targets=[attn.q, attn.v, vocabulary], whole=[embed.tokens])
        stack(lang=sw, task=lora(ranks=["attn.v=16"], leave_out=[0..3]))
    """

    word: ClassVar[str] = "lora"
    target_kinds: ClassVar[tuple[SiteKind, ...]] = ("linear", "lookup")
    mergeable: ClassVar[bool] = True

    rank: int = option(8, "rank: columns of B and rows of A", minimum=1)
    alpha: float = option(8.0, "the update is multiplied by alpha / rank")
    targets: tuple[str, ...] = option(("attn.q", "attn.v"), "the linear maps to adapt")
    ranks: tuple[str, ...] = option((), 'ranks for single sites, such as "attn.q=4"')
    alphas: tuple[str, ...] = option((), 'alphas for single sites, such as "3.attn.q=16"')
    dropout: float = option(
        0.0, "dropout on the input of A, in training", minimum=0, exclusive_maximum=1
    )
    rslora: bool = option(False, "divide alpha by the square root of the rank")
    gate: bool = option(False, "use a learned gate per example instead of alpha / rank")
    bias: Literal["none", "own", "backbone", "all"] = option(
        "none",
        "own: add a bias to B; backbone: train the bias of the map;"
        " all: train the bias of every map and norm that has one",
    )
    init: Literal["lora", "bert"] = option("lora", "initialisation of new weights")
    whole: tuple[str, ...] = option((), "further maps and norms to train as a whole")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "whole", tuple(sorted(set(self.whole))))

    def problems(self, facts: Facts) -> Iterator[Diagnostic]:
        yield from super().problems(facts)
        for name in ("ranks", "alphas"):
            for text in getattr(self, name):
                if not (_EXCEPTION.fullmatch(text) and isfinite(float(text.rpartition("=")[2]))):
                    yield self._wrong_argument(
                        name, 'a list of places with numbers, such as "attn.q=4"', [text]
                    )
        known = dict.fromkeys(site.name for site in facts.sites_of_kind(*self.target_kinds, "norm"))
        for name in self.whole:
            if name not in known or name in self.targets:
                others = ", ".join(one for one in known if one not in self.targets)
                yield self._wrong_argument("whole", f"a list of names from {others}", [name])
        for site in self.target_sites(facts):
            most = min(facts.width_at(site), facts.input_width_at(site))
            if not 1 <= self.rank_at(site) <= most:
                expected = f"from 1 to {most}, the width at {site}"
                yield self._wrong_argument("rank", expected, self.rank_at(site))
                return

    @property
    def is_gated(self) -> bool:
        return self.gate

    def rank_at(self, site: Site) -> int:
        """The rank at a site."""
        return int(_exception(self.ranks, site, self.rank))

    def alpha_at(self, site: Site) -> float:
        """Alpha at a site."""
        return _exception(self.alphas, site, self.alpha)

    def scale_at(self, site: Site) -> float:
        """The factor s of B A at a site."""
        rank = self.rank_at(site)
        return self.alpha_at(site) / (rank**0.5 if self.rslora else rank)

    def sites(self, facts: Facts) -> tuple[Site, ...]:
        names = {*self.targets, *self.whole}
        if self.bias == "all":
            names.update(self._biased(facts))
        return tuple(
            site
            for site in facts.sites_of_kind(*self.target_kinds, "norm")
            if site.name in names
            and facts.layer_number(site) not in self.leave_out
            and str(site) not in self.without
        )

    def _biased(self, facts: Facts) -> Iterator[str]:
        """The places that have a bias beside the targets; several maps in one module count once."""
        places = facts.layout.sites
        own = [places[name] for name in (*self.targets, *self.whole) if name in places]
        split = {place.path for place in own if place.piece != (0, 1)}
        taken = {place.path for place in own} - split
        for name, place in places.items():
            pieces = (place.piece != (0, 1)) == (place.path in split)
            beside = name not in (*self.targets, *self.whole) and place.path not in taken
            beside &= not place.is_outside_base
            if facts.has_bias(name) and pieces and beside:
                yield name

    def tensors(self, site: Site, facts: Facts) -> dict[str, Shape]:
        if site.name in self.whole:
            return self._whole(site, facts)
        if site.name not in self.targets:
            return {"bias": (facts.width_at(site),)}
        rank, width, width_in = self.rank_at(site), facts.width_at(site), facts.input_width_at(site)
        shapes: dict[str, Shape] = {"A": (rank, width_in), "B": (width, rank)}
        if self.gate:
            shapes |= {"gate.weight": (1, width_in), "gate.bias": (1,)}
        if (bias := self._bias_at(site, facts)) != "none":
            shapes["B.bias" if bias == "own" else "bias"] = (width,)
        return shapes

    def _whole(self, site: Site, facts: Facts) -> dict[str, Shape]:
        width, bias = facts.width_at(site), facts.has_bias(site.name)
        norm = self._kind(site, facts) == "norm"
        weight: Shape = (width,) if norm else (width, facts.input_width_at(site))
        return {"weight": weight} | ({"bias": (width,)} if bias else {})

    def _bias_at(self, site: Site, facts: Facts) -> Any:
        """The kind of bias at a site; embeddings have no bias that it could replace."""
        if self.bias == "own":
            return "own"
        lookup = self._kind(site, facts) == "lookup"
        return "none" if self.bias == "none" or lookup else "backbone"

    def init_tensor_at(self, site: Site, facts: Facts, name: str, tensor: torch.Tensor) -> None:
        from torch.nn import init

        if self._kind(site, facts) != "lookup" or name not in ("A", "B"):
            self.init_tensor(name, tensor)
        elif name == "A":  # what is looked up has no zeros to start from in B
            init.zeros_(tensor)
        else:
            init.normal_(tensor)

    def init_tensor(self, name: str, tensor: torch.Tensor) -> None:
        from torch.nn import init

        if name == "gate.weight" or (self.init == "bert" and name in ("A", "B")):
            init.normal_(tensor, std=0.02)
        elif name == "A":
            init.kaiming_uniform_(tensor, a=5**0.5)
        else:
            init.zeros_(tensor)

    def merge_weights(
        self, recipe: MergeRecipe, members: Sequence[Mapping[str, torch.Tensor]], combine: Combine
    ) -> dict[str, torch.Tensor]:
        """Merge the products B A, not their factors; a sum is [w₁s₁B₁ …]·[A₁; …]."""
        import torch

        scales = [leaf.scale for leaf in recipe.members if isinstance(leaf, LowRank)]
        made: dict[str, torch.Tensor] = {}
        if "B.bias" in members[0]:
            biases = [s * one["B.bias"] for s, one in zip(scales, members, strict=True)]
            made["B.bias"] = combine("B.bias", biases, 0.0)
        if recipe.method == "linear" and recipe.rank is None:
            factors = [w * s for w, s in zip(recipe.weights, scales, strict=True)]
            ups = [f * one["B"] for f, one in zip(factors, members, strict=True)]
            return made | {"A": torch.cat([m["A"] for m in members]), "B": torch.cat(ups, dim=1)}
        deltas = [s * (one["B"] @ one["A"]) for s, one in zip(scales, members, strict=True)]
        return made | _factorise(combine("B A", deltas, 0.0), recipe.rank)

    def init_from_backbone(
        self, tensors: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]
    ) -> None:
        for name in ("weight", "bias"):
            if name in tensors and name in own:
                tensors[name].copy_(own[name])

    def lower(self, part: str, site: Site, facts: Facts) -> Primitive | None:
        if site not in self.target_sites(facts):
            return self.lower_replacement(part, site, facts)
        return LowRank(part, site, **self.low_rank_fields(site, facts))

    def lower_replacement(self, part: str, site: Site, facts: Facts) -> Primitive | None:
        """The primitive at a site where the whole map, or only its bias, is trained."""
        if site not in self.sites(facts):
            return None
        if site.name in self.whole:
            return self._replaced(part, site, facts)
        return BiasDelta(part, site, width=facts.width_at(site), replaces_bias=True)

    def _replaced(self, part: str, site: Site, facts: Facts) -> Primitive:
        width, bias, kind = facts.width_at(site), facts.has_bias(site.name), self._kind(site, facts)
        if kind == "norm":
            return NormReplacement(part, site, width=width, bias=bias)
        sizes: dict[str, Any] = {"width": width, "width_in": facts.input_width_at(site)}
        return WeightReplacement(part, site, **sizes, bias=bias, lookup=kind == "lookup")

    def _kind(self, site: Site, facts: Facts) -> SiteKind:
        return facts.layout.sites[site.name].kind

    def low_rank_fields(self, site: Site, facts: Facts) -> dict[str, Any]:
        """The fields of the `LowRank` at a site."""
        return {
            "width": facts.width_at(site),
            "width_in": facts.input_width_at(site),
            "rank": self.rank_at(site),
            "scale": self.scale_at(site),
            "gate": self.gate,
            "bias": self._bias_at(site, facts),
            "dropout": self.dropout,
            "lookup": self._kind(site, facts) == "lookup",
        }

    def adapterhub_key(self, tensor: str) -> str:
        return f"lora_{tensor}" if tensor in ("A", "B") else tensor

    def adapterhub_config(self, facts: Facts) -> dict[str, Any]:
        if self.ranks or self.alphas or self.rslora or self.bias != "none" or self.whole:
            return super().adapterhub_config(facts)
        places = adapterhub_targets(self, facts)
        if places is None:
            return super().adapterhub_config(facts)
        settings = {key: getattr(self, name) for key, name in _FIELDS.items()}
        return _CONSTANTS | places | settings

    @classmethod
    def from_adapterhub(cls, config: dict[str, Any], facts: Facts) -> Lora | None:
        if not is_lora(config, mode="add") or config.get("use_dora") or is_vera(config):
            return super().from_adapterhub(config, facts)
        return cls(**read_lora_settings(cls, config, facts))


def _factorise(delta: torch.Tensor, rank: int | None) -> dict[str, torch.Tensor]:
    """Factors B and A of a matrix, exact or the nearest of a rank (Eckart and Young, 1936)."""
    import torch

    width, width_in = delta.shape
    if rank is not None and rank < min(width, width_in):
        left, sizes, right = torch.linalg.svd(delta, full_matrices=False)
        return {"A": right[:rank], "B": left[:, :rank] * sizes[:rank]}
    if width_in <= width:
        return {"A": torch.eye(width_in, dtype=delta.dtype, device=delta.device), "B": delta}
    return {"A": delta, "B": torch.eye(width, dtype=delta.dtype, device=delta.device)}


def is_vera(config: Mapping[str, Any]) -> bool:
    """Whether a `config` describes VeRA."""
    return isinstance(config.get("vera_d"), float) and isinstance(config.get("vera_b"), float)


def is_lora(config: Mapping[str, Any], *, mode: str) -> bool:
    """Whether a `config` belongs to LoRA's family, in which updates are added or multiplied."""
    return config.get("architecture") == "lora" and config.get("composition_mode", "add") == mode


def adapterhub_targets(method: TargetedMethod, facts: Facts) -> dict[str, Any] | None:
    """The targets as AdapterHub's files name them, or None if they cannot name them."""
    names = set(method.targets)
    attention = [letter for letter in LETTERS if f"attn.{letter}" in names]
    flags = {key: name in names for key, name in facts.layout.adapterhub_lora_flags.items()}
    places = {"attn_matrices": attention or ["q", "v"], "selfattn_lora": bool(attention)}
    if method.without or names != set(read_targets(places | flags, facts)):
        return None
    return places | flags | {"leave_out": sorted(method.leave_out)}


def read_targets(config: Mapping[str, Any], facts: Facts) -> tuple[str, ...]:
    """The maps that AdapterHub's flags select on this backbone."""
    letters = config.get("attn_matrices", ["q", "v"])
    if not isinstance(letters, list) or not set(letters) <= set(LETTERS):
        raise ValueError(f"attn_matrices must be a list of q, k and v, not {letters!r}")
    names = [f"{where}.{letter}" for where in ATTENTIONS for letter in LETTERS if letter in letters]
    if not config.get("selfattn_lora", True):
        names = []
    flags = facts.layout.adapterhub_lora_flags.items()
    return (*filter(facts.has, names), *(name for key, name in flags if config.get(key)))


def read_lora_settings(cls: type[Any], config: dict[str, Any], facts: Facts) -> dict[str, Any]:
    """The values of a `config` of LoRA's family by the names of the fields."""
    known = {key: name for key, name in _FIELDS.items() if key != "init_weights"}
    settings = read_settings(cls, config, known)
    layers = config.get("leave_out") or []
    if not all(type(layer) is int and layer >= 0 for layer in layers):
        raise ValueError(f"leave_out must be a list of layers, not {layers!r}")
    if config.get("dtype") not in (None, "float64", "float32", "float16", "bfloat16"):
        raise ValueError(f"dtype {config['dtype']!r} is not supported")
    init = {"init": "bert"} if config.get("init_weights") == "bert" else {}
    targets = read_targets(config, facts)
    return settings | init | {"targets": targets, "leave_out": frozenset(layers)}


_EXCEPTION = re.compile(
    r"(?:[a-z]+\.)*(?:\d+\.)?[a-z]+(?:\.[a-z]+)?=-?\d+(?:\.\d+)?(?:e[+-]?\d{1,3})?"
)


def _exception(exceptions: tuple[str, ...], site: Site, default: float) -> float:
    """The number of the last exception that fits a place.

    >>> _exception(("attn.q=4", "3.attn.q=2"), Site("attn.q", 3), 8)
    2.0
    """
    found = default
    for text in exceptions:
        place, _, number = text.rpartition("=")
        if place in (site.name, str(site)) and _EXCEPTION.fullmatch(text):
            found = float(number)
    return found


_FIELDS = {
    "r": "rank",
    "alpha": "alpha",
    "dropout": "dropout",
    "use_gating": "gate",
    "init_weights": "init",
}
"""The keys of AdapterHub's `config`, and the fields that they set."""

_CONSTANTS: dict[str, Any] = {
    "architecture": "lora",
    "composition_mode": "add",
    "dtype": None,
    "init_weights_seed": None,
    "use_dora": False,
    "vera_b": None,
    "vera_d": None,
}
"""The keys that AdapterHub's files always contain."""
