"""The weights of a composition's parts: what is trained, saved and published.

Primitives do not read what is stored but what `Parts.weights` gives them: the stored tensors of
their site, or what the method computes from stored tensors (`Method.effective_weights`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.ir.primitives import ParametricPrimitive
from adaptcompose.methods.method import Method
from adaptcompose.runtime.ops.merging import merge_tensors
from adaptcompose.runtime.ops.weight_cache import WeightCache, needs_gradient

PartWeights = Mapping[tuple[Site, str], Tensor]
"""Tensors of one part by site and name, as `Method.tensors` names them."""


class SiteWeights(nn.Module):
    """The tensors of one part at one site; training changes those that are `learned`."""

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        *,
        trained: bool,
        trainable: Collection[str] | None = None,
    ) -> None:
        super().__init__()
        self.names = tuple(tensors)
        self.trainable = frozenset(tensors if trainable is None else trainable)
        for name, tensor in tensors.items():
            self.register_parameter(_attribute(name), nn.Parameter(tensor, requires_grad=False))
        self.requires_grad_(trained)

    def __getitem__(self, name: str) -> Tensor:
        found = self._parameters[_attribute(name)]  # by far faster than get_parameter
        assert found is not None
        return found

    def get(self, name: str) -> Tensor | None:
        return self[name] if name in self.names else None

    def items(self) -> Iterator[tuple[str, Tensor]]:
        for name in self.names:
            yield name, self[name]

    def read(self) -> Mapping[str, Tensor]:
        """Read the tensors for a primitive, once per forward."""
        return dict(self.items())

    def source_tensors(self) -> Iterator[Tensor]:
        """The tensors that `read` depends on."""
        return iter(self.parameters())

    def requires_grad_(self, requires_grad: bool = True) -> SiteWeights:
        """Train or freeze what is learned."""
        for name, tensor in self.items():
            tensor.requires_grad_(requires_grad and name in self.trainable)
        return self


def _attribute(name: str) -> str:
    return name.replace(".", "_")  # torch refuses dots in the names of parameters


class Part(nn.Module):
    """One adapter or fusion: its method, and its weights by site.

    `used` are the sites at which the composition reads them. A file's other weights are kept, so
    that it can be published whole, and never trained.
    """

    def __init__(
        self,
        name: str,
        method: Method,
        sites: Mapping[Site, SiteWeights],
        used: Collection[Site] | None = None,
    ) -> None:
        super().__init__()
        self.used_sites = frozenset(sites if used is None else used)
        self.name = name
        self.method = method
        self.sites = tuple(sites)
        self.weights = nn.ModuleDict({_module(site): module for site, module in sites.items()})

    def __getitem__(self, site: Site) -> SiteWeights:
        module = self.weights[_module(site)]
        assert isinstance(module, SiteWeights)
        return module

    def read(self, site: Site) -> Mapping[str, Tensor]:
        """The tensors stored at a site; empty for a method with shared tensors only."""
        return self[site].read() if site in self.sites else {}

    def tensors(self) -> dict[tuple[Site, str], Tensor]:
        """Detached weights by site and name."""
        return {
            (site, name): tensor.detach()
            for site in self.sites
            for name, tensor in self[site].items()
        }

    def requires_grad_(self, requires_grad: bool = True) -> Part:
        """Train or freeze the weights that are used."""
        for site in self.sites:
            self[site].requires_grad_(requires_grad and site in self.used_sites)
        return self

    @property
    def is_trained(self) -> bool:
        return any(parameter.requires_grad for parameter in self.parameters())


def _module(site: Site) -> str:
    return str(site).replace(".", "_")


class ComputedWeights(nn.Module):
    """The weights that a method computes from stored tensors for one primitive.

    Computed in every forward, so that gradients reach the stored tensors; or, if `kept` and nothing
    is being learned, a cache that an in-place change of any stored tensor rebuilds.
    """

    def __init__(self, part: Part, leaf: ParametricPrimitive) -> None:
        super().__init__()
        self._part = [part]  # it is registered where it stands
        self.site, self.sources = leaf.site, leaf.source_sites
        self.is_cached = leaf.parameter_source == "materialised"
        self._cache: WeightCache[Mapping[str, Tensor]] = WeightCache()

    @property
    def part(self) -> Part:
        return self._part[0]

    def source_tensors(self) -> Iterator[Tensor]:
        for site in (self.site, *self.sources):
            yield from self.part.read(site).values()

    def read(self) -> Mapping[str, Tensor]:
        if not self.is_cached or needs_gradient(self.source_tensors()):
            return self._compute()
        return self._cache.get(self.source_tensors(), self._compute)

    def _compute(self) -> Mapping[str, Tensor]:
        shared = {key: t for site in self.sources for key, t in self.part.read(site).items()}
        return self.part.method.effective_weights(self.site, self.part.read(self.site), shared)


class MergedWeights(ComputedWeights):
    """The weights of a merge, computed from those of its members."""

    def __init__(self, parts: Parts, leaf: ParametricPrimitive) -> None:
        assert leaf.recipe is not None
        first = leaf
        while first.recipe is not None:
            first = first.recipe.members[0]
        super().__init__(parts[first.part], leaf)
        self.recipe = leaf.recipe
        self.members: Any = nn.ModuleList(parts.weights(one) for one in leaf.recipe.members)

    def source_tensors(self) -> Iterator[Tensor]:
        for member in self.members:
            yield from member.source_tensors()

    def _compute(self) -> Mapping[str, Tensor]:
        combine = partial(merge_tensors, self.recipe, self.site)
        read = [member.read() for member in self.members]
        return self.part.method.merge_weights(self.recipe, read, combine)


def make_part(name: str, method: Method, facts: Facts) -> Part:
    """Make a new, trainable part, initialised by its method.

    `method.only(sites, facts)` makes none in layers where the composition has no use for them.
    """
    sites = {}
    for site in method.sites(facts):
        tensors = {}
        for key, shape in method.tensors(site, facts).items():
            tensors[key] = torch.empty(shape)
            method.init_tensor_at(site, facts, key, tensors[key])
        sites[site] = SiteWeights(
            tensors, trained=True, trainable=_trainable_names(method, tensors)
        )
    return Part(name, method, sites)


def load_part(
    name: str, method: Method, weights: PartWeights, *, used: Collection[Site] | None = None
) -> Part:
    """Make a frozen part with the weights of a file."""
    sites: dict[Site, dict[str, Tensor]] = {}
    for (site, key), tensor in weights.items():
        sites.setdefault(site, {})[key] = tensor
    frozen = {
        site: SiteWeights(tensors, trained=False, trainable=_trainable_names(method, tensors))
        for site, tensors in sites.items()
    }
    return Part(name, method, frozen, used)


def _trainable_names(method: Method, names: Collection[str]) -> frozenset[str]:
    return frozenset(name for name in names if method.is_trainable(name))


class Parts(nn.Module):
    """All parts of a composition by name."""

    def __init__(self, parts: Mapping[str, Part]) -> None:
        super().__init__()
        self.names = tuple(parts)
        self.modules_in_order = nn.ModuleList(parts.values())

    def __getitem__(self, name: str) -> Part:
        part = self.modules_in_order[self.names.index(name)]
        assert isinstance(part, Part)
        return part

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def items(self) -> Iterator[tuple[str, Part]]:
        for name in self.names:
            yield name, self[name]

    def weights(self, leaf: ParametricPrimitive) -> SiteWeights | ComputedWeights:
        """The source of a primitive's weights."""
        if leaf.recipe is not None:
            return MergedWeights(self, leaf)
        part = self[leaf.part]
        return part[leaf.site] if leaf.parameter_source == "stored" else ComputedWeights(part, leaf)
