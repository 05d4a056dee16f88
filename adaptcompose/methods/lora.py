"""LoRA (Hu et al., 2022): what training adds to a weight is of low rank.

W + s·B A with s = α/r, or α/√r (rsLoRA, Kalajdzievski, 2023). Rank and α may differ by place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from adaptcompose.backbones.layout import Facts, Kind, Site
from adaptcompose.diagnostics.diagnostic import Diagnostic
from adaptcompose.ir.linear import LowRank, Renorm, Replaced, Shift
from adaptcompose.ir.primitives import MergeRecipe, Primitive
from adaptcompose.methods.method import Combine, Shape, method, read_settings
from adaptcompose.methods.targeted import Changing
from adaptcompose.syntax.signature import option

if TYPE_CHECKING:
    import torch

ATTENTIONS = ("attn", "cross")
LETTERS = ("q", "k", "v")
"""What AdapterHub's files call the maps of attention; a letter means that of a decoder's, too."""


@method
@dataclass(frozen=True)
class Lora(Changing):
    """A product of two thin matrices beside linear maps of the backbone.

    Of these, `embed.tokens` are the embeddings of tokens, and `vocabulary` is the last map of a
    language model, which has an effect where the backbone's own head is used.

    `ranks` and `alphas` are exceptions, the last that fits counts: `attn.q=4`, or `3.attn.q=4`.

    Examples:
        lora(rank=8, alpha=16)
        lora(targets=[attn.q, attn.k, attn.v, attn.o, ffn.in, ffn.mid], rslora=true)
        lora(targets=[attn.q, attn.v, vocabulary], whole=[embed.tokens])
        stack(lang=sw, task=lora(ranks=["attn.v=16"], leave_out=[0..3]))
    """

    word: ClassVar[str] = "lora"
    kinds: ClassVar[tuple[Kind, ...]] = ("linear", "lookup")
    mergeable: ClassVar[bool] = True

    rank: int = option(8, "columns of B and rows of A", least=1)
    alpha: float = option(8.0, "what is added is multiplied by alpha / rank")
    targets: tuple[str, ...] = option(("attn.q", "attn.v"), "the linear maps that it changes")
    ranks: tuple[str, ...] = option((), 'other ranks at some places, such as "attn.q=4"')
    alphas: tuple[str, ...] = option((), 'other alphas at some places, such as "3.attn.q=16"')
    dropout: float = option(0.0, "on what A reads, in training", least=0, below=1)
    rslora: bool = option(False, "divide alpha by the root of the rank")
    gate: bool = option(False, "a learned gate per example instead of alpha / rank")
    bias: Literal["none", "own", "backbone", "all"] = option(
        "none",
        "own: a bias beside B; backbone: another bias of the map itself;"
        " all: another one of every map and norm that has one",
    )
    init: Literal["lora", "bert"] = option("lora", "how new weights start")
    whole: tuple[str, ...] = option((), "further maps and norms, which it has another weight of")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "whole", tuple(sorted(set(self.whole))))

    def problems(self, facts: Facts) -> Iterator[Diagnostic]:
        yield from super().problems(facts)
        for name in ("ranks", "alphas"):
            for text in getattr(self, name):
                if not (_EXCEPTION.fullmatch(text) and isfinite(float(text.rpartition("=")[2]))):
                    yield self._misfit(name, "a place and a number, such as attn.q=4", text)
        known = dict.fromkeys(site.name for site in facts.of_kind(*self.kinds, "norm"))
        for name in self.whole:
            if name not in known or name in self.targets:
                others = ", ".join(one for one in known if one not in self.targets)
                yield self._misfit("whole", f"some of {others}", name)
        for site in self.places(facts):
            most = min(facts.size(site), facts.size_in(site))
            if not 1 <= self.rank_at(site) <= most:
                expected = f"at least 1 and at most {most}, the width at {site}"
                yield self._misfit("rank", expected, self.rank_at(site))
                return

    @property
    def gated(self) -> bool:
        return self.gate

    def rank_at(self, site: Site) -> int:
        """The rank at a place."""
        return int(_exception(self.ranks, site, self.rank))

    def alpha_at(self, site: Site) -> float:
        """Alpha at a place."""
        return _exception(self.alphas, site, self.alpha)

    def scale_at(self, site: Site) -> float:
        """What B A is multiplied by at a place."""
        rank = self.rank_at(site)
        return self.alpha_at(site) / (rank**0.5 if self.rslora else rank)

    def sites(self, facts: Facts) -> tuple[Site, ...]:
        names = {*self.targets, *self.whole}
        if self.bias == "all":
            names.update(self._biased(facts))
        return tuple(
            site
            for site in facts.of_kind(*self.kinds, "norm")
            if site.name in names
            and facts.number(site) not in self.leave_out
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
            beside &= not place.outside
            if facts.biased(name) and pieces and beside:
                yield name

    def tensors(self, site: Site, facts: Facts) -> dict[str, Shape]:
        if site.name in self.whole:
            return self._whole(site, facts)
        if site.name not in self.targets:
            return {"bias": (facts.size(site),)}
        rank, width, width_in = self.rank_at(site), facts.size(site), facts.size_in(site)
        shapes: dict[str, Shape] = {"A": (rank, width_in), "B": (width, rank)}
        if self.gate:
            shapes |= {"gate.weight": (1, width_in), "gate.bias": (1,)}
        if (bias := self._bias_at(site, facts)) != "none":
            shapes["B.bias" if bias == "own" else "bias"] = (width,)
        return shapes

    def _whole(self, site: Site, facts: Facts) -> dict[str, Shape]:
        width, bias = facts.size(site), facts.biased(site.name)
        norm = self._kind(site, facts) == "norm"
        weight: Shape = (width,) if norm else (width, facts.size_in(site))
        return {"weight": weight} | ({"bias": (width,)} if bias else {})

    def _bias_at(self, site: Site, facts: Facts) -> Any:
        """Which bias it has at a place: embeddings have none that could be another one."""
        if self.bias == "own":
            return "own"
        lookup = self._kind(site, facts) == "lookup"
        return "none" if self.bias == "none" or lookup else "backbone"

    def start_at(self, site: Site, facts: Facts, name: str, tensor: torch.Tensor) -> None:
        from torch.nn import init

        if self._kind(site, facts) != "lookup" or name not in ("A", "B"):
            self.start(name, tensor)
        elif name == "A":  # what is looked up has no zeros to start from in B
            init.zeros_(tensor)
        else:
            init.normal_(tensor)

    def start(self, name: str, tensor: torch.Tensor) -> None:
        from torch.nn import init

        if name == "gate.weight" or (self.init == "bert" and name in ("A", "B")):
            init.normal_(tensor, std=0.02)
        elif name == "A":
            init.kaiming_uniform_(tensor, a=5**0.5)
        else:
            init.zeros_(tensor)

    def merged(
        self, recipe: MergeRecipe, members: Sequence[Mapping[str, torch.Tensor]], combine: Combine
    ) -> dict[str, torch.Tensor]:
        """Merged is what B A adds, not B and A: [w₁s₁B₁ …]·[A₁; …] for a sum."""
        import torch

        scales = [leaf.scale for leaf in recipe.leaves if isinstance(leaf, LowRank)]
        made: dict[str, torch.Tensor] = {}
        if "B.bias" in members[0]:
            biases = [s * one["B.bias"] for s, one in zip(scales, members, strict=True)]
            made["B.bias"] = combine("B.bias", biases, 0.0)
        if recipe.method == "linear" and recipe.rank is None:
            factors = [w * s for w, s in zip(recipe.weights, scales, strict=True)]
            ups = [f * one["B"] for f, one in zip(factors, members, strict=True)]
            return made | {"A": torch.cat([m["A"] for m in members]), "B": torch.cat(ups, dim=1)}
        deltas = [s * (one["B"] @ one["A"]) for s, one in zip(scales, members, strict=True)]
        return made | _factored(combine("B A", deltas, 0.0), recipe.rank)

    def begin(self, tensors: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> None:
        for name in ("weight", "bias"):
            if name in tensors and name in own:
                tensors[name].copy_(own[name])

    def lower(self, part: str, site: Site, facts: Facts) -> Primitive | None:
        if site not in self.places(facts):
            return self.other(part, site, facts)
        return LowRank(part, site, **self.shared_fields(site, facts))

    def other(self, part: str, site: Site, facts: Facts) -> Primitive | None:
        """What it is where all of a map is another one, or only the bias."""
        if site not in self.sites(facts):
            return None
        if site.name in self.whole:
            return self._replaced(part, site, facts)
        return Shift(part, site, width=facts.size(site), whole=True)

    def _replaced(self, part: str, site: Site, facts: Facts) -> Primitive:
        width, bias, kind = facts.size(site), facts.biased(site.name), self._kind(site, facts)
        if kind == "norm":
            return Renorm(part, site, width=width, bias=bias)
        sizes: dict[str, Any] = {"width": width, "width_in": facts.size_in(site)}
        return Replaced(part, site, **sizes, bias=bias, lookup=kind == "lookup")

    def _kind(self, site: Site, facts: Facts) -> Kind:
        return facts.layout.sites[site.name].kind

    def shared_fields(self, site: Site, facts: Facts) -> dict[str, Any]:
        """The fields of a `LowRank`."""
        return {
            "width": facts.size(site),
            "width_in": facts.size_in(site),
            "rank": self.rank_at(site),
            "scale": self.scale_at(site),
            "gate": self.gate,
            "bias": self._bias_at(site, facts),
            "dropout": self.dropout,
            "lookup": self._kind(site, facts) == "lookup",
        }

    def key(self, tensor: str) -> str:
        return f"lora_{tensor}" if tensor in ("A", "B") else tensor

    def adapterhub_config(self, facts: Facts) -> dict[str, Any]:
        if self.ranks or self.alphas or self.rslora or self.bias != "none" or self.whole:
            return super().adapterhub_config(facts)
        places = hub_places(self, facts)
        if places is None:
            return super().adapterhub_config(facts)
        settings = {key: getattr(self, name) for key, name in _FIELDS.items()}
        return _PEER | places | settings

    @classmethod
    def from_adapterhub(cls, config: dict[str, Any], facts: Facts) -> Lora | None:
        if not is_lora(config, mode="add") or config.get("use_dora") or is_vera(config):
            return super().from_adapterhub(config, facts)
        return cls(**lora_settings(cls, config, facts))


def _factored(delta: torch.Tensor, rank: int | None) -> dict[str, torch.Tensor]:
    """B A of a matrix: exact, or the nearest of a rank (Eckart and Young, 1936)."""
    import torch

    width, width_in = delta.shape
    if rank is not None and rank < min(width, width_in):
        left, sizes, right = torch.linalg.svd(delta, full_matrices=False)
        return {"A": right[:rank], "B": left[:, :rank] * sizes[:rank]}
    if width_in <= width:
        return {"A": torch.eye(width_in, dtype=delta.dtype, device=delta.device), "B": delta}
    return {"A": delta, "B": torch.eye(width, dtype=delta.dtype, device=delta.device)}


def is_vera(config: Mapping[str, Any]) -> bool:
    """Whether a `config` is of VeRA."""
    return isinstance(config.get("vera_d"), float) and isinstance(config.get("vera_b"), float)


def is_lora(config: Mapping[str, Any], *, mode: str) -> bool:
    """Whether a `config` is of LoRA's family, adding to weights or scaling them."""
    return config.get("architecture") == "lora" and config.get("composition_mode", "add") == mode


def hub_places(method: Changing, facts: Facts) -> dict[str, Any] | None:
    """The places as AdapterHub's files have them, or None if they cannot."""
    names = set(method.targets)
    attention = [letter for letter in LETTERS if f"attn.{letter}" in names]
    flags = {key: name in names for key, name in facts.layout.hub_maps.items()}
    places = {"attn_matrices": attention or ["q", "v"], "selfattn_lora": bool(attention)}
    if method.without or names != set(targets_of(places | flags, facts)):
        return None
    return places | flags | {"leave_out": sorted(method.leave_out)}


def targets_of(config: Mapping[str, Any], facts: Facts) -> tuple[str, ...]:
    """The maps that AdapterHub's flags mean on this backbone."""
    letters = config.get("attn_matrices", ["q", "v"])
    if not isinstance(letters, list) or not set(letters) <= set(LETTERS):
        raise ValueError(f"attn_matrices must be some of q, k, v, not {letters!r}")
    names = [f"{where}.{letter}" for where in ATTENTIONS for letter in LETTERS if letter in letters]
    if not config.get("selfattn_lora", True):
        names = []
    flags = facts.layout.hub_maps.items()
    return (*filter(facts.has, names), *(name for key, name in flags if config.get(key)))


def lora_settings(cls: type[Any], config: dict[str, Any], facts: Facts) -> dict[str, Any]:
    """The values of a `config` of LoRA's family by the names of the fields."""
    known = {key: name for key, name in _FIELDS.items() if key != "init_weights"}
    settings = read_settings(cls, config, known)
    layers = config.get("leave_out") or []
    if not all(type(layer) is int and layer >= 0 for layer in layers):
        raise ValueError(f"leave_out must be layers, not {layers!r}")
    if config.get("dtype") not in (None, "float64", "float32", "float16", "bfloat16"):
        raise ValueError(f"dtype {config['dtype']!r} is not read")
    init = {"init": "bert"} if config.get("init_weights") == "bert" else {}
    targets = targets_of(config, facts)
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
"""Keys of AdapterHub's `config` and the fields here."""

_PEER: dict[str, Any] = {
    "architecture": "lora",
    "composition_mode": "add",
    "dtype": None,
    "init_weights_seed": None,
    "use_dora": False,
    "vera_b": None,
    "vera_d": None,
}
"""Keys that the peer's files always carry."""
