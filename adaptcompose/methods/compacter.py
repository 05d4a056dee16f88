"""Compacter (Mahabadi et al., 2021): bottlenecks whose matrices are sums of Kronecker products.

A map from k to m numbers is W = Σᵢ Aᵢ ⊗ Bᵢ over i < n, with Aᵢ of n × n and Bᵢ of k/n × m/n. The
rule A is shared by all maps of the adapter, and Bᵢ = sᵢ tᵢᵀ is of low rank (whole Bᵢ: Zhang et al.,
2021). n is `phm_dim`, the rank of Bᵢ `phm_rank`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.diagnostics.codes import AC209
from adaptcompose.diagnostics.diagnostic import Diagnostic
from adaptcompose.ir.primitives import ParametricPrimitive, Primitive
from adaptcompose.methods import invertible
from adaptcompose.methods.bottleneck import Bottleneck
from adaptcompose.methods.method import (
    SHARED_SITE,
    Shape,
    read_settings,
    register_configuration,
    register_method,
)
from adaptcompose.syntax.signature import option

if TYPE_CHECKING:
    import torch

MAPS = ("down", "up")


@register_method
@dataclass(frozen=True)
class Compacter(Bottleneck):
    """A bottleneck after attention and feed-forward whose matrices are sums of Kronecker products.

    Everything else is as in `bottleneck`. `compacter_pp` is placed after the feed-forward only.

    Examples:
        compacter()
        stack(lang=sw, task=compacter_pp(reduction=16))
    """

    word: ClassVar[str] = "compacter"

    reduction: float | tuple[float, ...] = option(
        32.0, "width divided by the bottleneck size; a list has one number per layer", minimum=0.001
    )
    activation: str = option("gelu", "any activation that transformers has")
    attention: bool = option(True, "place an adapter after self-attention")
    original_ln_before: bool = option(False, "read LN(h + x), with the norm of the backbone")
    phm_dim: int = option(4, "number of Kronecker products that are summed for a matrix", minimum=1)
    phm_rank: int = option(1, "rank of the right factors", minimum=1)
    phm_bias: bool = option(True, "add biases to the two maps")
    phm_init: Literal["normal", "uniform"] = option("normal", "initialisation of the left factors")
    phm_init_range: float = option(
        0.0001, "standard deviation for phm_init=normal with a shared rule", minimum=0
    )
    learn_phm: bool = option(True, "train the left factors")
    shared_phm_rule: bool = option(True, "share the left factors between all layers")
    factorized_phm_rule: bool = option(False, "use left factors of rank 1")
    shared_phm_w: bool = option(False, "share the right factors between all layers")
    factorized_phm_w: bool = option(
        True, "use right factors of rank `phm_rank` instead of full matrices"
    )

    def problems(self, facts: Facts) -> Iterator[Diagnostic]:
        """AC209 unless n divides width and rank, and shared factors have one rank."""
        yield from super().problems(facts)
        sites = [site for site in self.sites(facts) if site.layer is not None]
        ranks = sorted({self.rank_at(site, facts) for site in sites})
        for number in sorted({facts.width_at(site) for site in sites} | set(ranks)):
            if number % self.phm_dim:
                expected = f"a divisor of {number}, which is the width or a rank"
                yield AC209.at(
                    name="phm_dim", operator=self.word, expected=expected, got=self.phm_dim
                )
        if self.shared_phm_w and len(ranks) > 1:
            expected = "one number when the right factors are shared"
            got = f"a list that makes the ranks {', '.join(map(str, ranks))}"
            yield AC209.at(name="reduction", operator=self.word, expected=expected, got=got)

    def sites(self, facts: Facts) -> tuple[Site, ...]:
        return (*((SHARED_SITE,) if self._has_shared_tensors else ()), *super().sites(facts))

    @property
    def _has_shared_tensors(self) -> bool:
        return self.shared_phm_rule or self.shared_phm_w

    def tensors(self, site: Site, facts: Facts) -> dict[str, Shape]:
        if site == SHARED_SITE:
            return self._shared_tensors(facts)
        return super().tensors(site, facts)

    def _shared_tensors(self, facts: Facts) -> dict[str, Shape]:
        shapes = self._rule("rule") if self.shared_phm_rule else {}
        site = next((site for site in super().sites(facts) if site.layer is not None), None)
        if self.shared_phm_w and site is not None:
            width, rank = facts.width_at(site), self.rank_at(site, facts)
            shapes |= self._factors("down", width, rank) | self._factors("up", rank, width)
        return shapes

    def _rule(self, name: str) -> dict[str, Shape]:
        n = self.phm_dim
        if self.factorized_phm_rule:
            return {f"{name}_left": (n, n, 1), f"{name}_right": (n, 1, n)}
        return {name: (n, n, n)}

    def _factors(self, name: str, source: int, target: int) -> dict[str, Shape]:
        n, rank = self.phm_dim, self.phm_rank
        if self.factorized_phm_w:
            left, right = (n, source // n, rank), (n, rank, target // n)
            return {f"{name}.W_left": left, f"{name}.W_right": right}
        return {f"{name}.W": (n, source // n, target // n)}

    def projection_shapes(self, name: str, source: int, target: int) -> dict[str, Shape]:
        shapes = {} if self.shared_phm_w else self._factors(name, source, target)
        if not self.shared_phm_rule:
            shapes |= self._rule(f"{name}.rule")
        return shapes | ({f"{name}.bias": (target,)} if self.phm_bias else {})

    def init_tensor(self, name: str, tensor: torch.Tensor) -> None:
        """As the authors do it: right factors Xavier-uniform of gain √2, the rule almost zero."""
        from torch.nn import init

        kind = name.rpartition(".")[2]
        if kind.startswith("rule"):
            shared = name == kind
            if self.phm_init == "normal":
                init.normal_(tensor, std=self.phm_init_range if shared else 0.01)
            else:
                bound = 1.0 if shared else 0.01
                init.uniform_(tensor, -bound, bound)
        elif kind in ("W", "W_left", "W_right"):
            for factor in tensor:
                init.xavier_uniform_(factor, gain=2**0.5)
        else:
            super().init_tensor(name, tensor)

    def is_trainable(self, name: str) -> bool:
        return self.learn_phm or not name.rpartition(".")[2].startswith("rule")

    def lower(self, part: str, site: Site, facts: Facts) -> Primitive | None:
        node = super().lower(part, site, facts)
        if not isinstance(node, ParametricPrimitive) or site in (
            invertible.EMBEDDINGS_SITE,
            invertible.HEAD_SITE,
        ):
            return node
        return replace(
            node,
            parameter_source="computed",
            source_sites=(SHARED_SITE,) if self._has_shared_tensors else (),
        )

    def effective_weights(
        self, site: Site, weights: Mapping[str, torch.Tensor], shared: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """The matrices, multiplied out; a map without a bias has one of zeros."""
        stored = {**shared, **weights}
        own = {name: t for name, t in weights.items() if name.partition(".")[0] not in MAPS}
        for name in MAPS:
            rule = _factor(stored, "rule" if self.shared_phm_rule else f"{name}.rule")
            weight = kronecker_sum(rule, _factor(stored, f"{name}.W")).t()
            bias = stored.get(f"{name}.bias")
            own[f"{name}.weight"] = weight
            own[f"{name}.bias"] = weight.new_zeros(weight.shape[0]) if bias is None else bias
        return own

    def adapterhub_config(self, facts: Facts) -> dict[str, Any]:
        settings = {key: getattr(self, name) for key, name in _FIELDS.items()}
        return super().adapterhub_config(facts) | settings | {"phm_layer": True}

    @classmethod
    def from_adapterhub(cls, config: dict[str, Any], facts: Facts) -> Compacter | None:
        if not config.get("phm_layer"):
            return None
        plain = Bottleneck.from_adapterhub({**config, "phm_layer": False}, facts)
        if plain is None:
            return None
        given = {key: value for key, value in config.items() if value is not None}
        phm = read_settings(cls, given, _FIELDS)
        return cls(**({name: getattr(plain, name) for name in vars(plain)} | phm))

    def adapterhub_keys(self, name: str, site: Site, facts: Facts) -> dict[str, list[str]]:
        if site == SHARED_SITE:
            stem = f"shared_parameters.{name}"
            return {key: [f"{stem}.{_shared_key(key)}"] for key in self.tensors(site, facts)}
        keys = super().adapterhub_keys(name, site, facts)
        return {key: [_own_key(key, stored) for stored in found] for key, found in keys.items()}


def kronecker_sum(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Σᵢ leftᵢ ⊗ rightᵢ, of tensors [n, a, b] and [n, c, d]: a matrix of ac rows and bd columns."""
    n, a, b = left.shape
    _, c, d = right.shape
    product = left.reshape(n, a * b).t() @ right.reshape(n, c * d)
    return product.reshape(a, b, c, d).transpose(1, 2).reshape(a * c, b * d)


def _factor(stored: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    """A tensor, or the product of the two that it is stored as."""
    if name in stored:
        return stored[name]
    return stored[f"{name}_left"] @ stored[f"{name}_right"]


def _shared_key(name: str) -> str:
    """`rule` is `phm_rule`, `down.W_left` is `W_down_left`."""
    module, _, kind = name.rpartition(".")
    return kind.replace("W", f"W_{module}", 1) if module else f"phm_{name}"


def _own_key(name: str, key: str) -> str:
    """The bias of a map is `b` there, its rule `phm_rule`."""
    module, _, kind = name.rpartition(".")
    if module not in MAPS:
        return key
    stem = key.removesuffix(kind)
    return stem + ("b" if kind == "bias" else kind.replace("rule", "phm_rule"))


_FIELDS = {
    "phm_dim": "phm_dim",
    "phm_rank": "phm_rank",
    "phm_bias": "phm_bias",
    "phm_c_init": "phm_init",
    "phm_init_range": "phm_init_range",
    "learn_phm": "learn_phm",
    "shared_phm_rule": "shared_phm_rule",
    "factorized_phm_rule": "factorized_phm_rule",
    "shared_W_phm": "shared_phm_w",
    "factorized_phm_W": "factorized_phm_w",
}
"""Keys of AdapterHub's `config` that a bottleneck has no use for, and the fields here."""

register_configuration("compacter_pp", Compacter(attention=False, original_ln_before=True))
