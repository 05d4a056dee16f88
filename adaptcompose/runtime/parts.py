"""The weights of a composition's parts: what is trained, saved and published."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor, nn

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.methods.method import Method

Weights = Mapping[tuple[Site, str], Tensor]
"""Tensors of one part by site and name, as `Method.tensors` names them."""


class SiteWeights(nn.Module):
    """The tensors of one part at one site."""

    def __init__(self, tensors: Mapping[str, Tensor], *, trained: bool) -> None:
        super().__init__()
        self.names = tuple(tensors)
        for name, tensor in tensors.items():
            self.register_parameter(_attribute(name), nn.Parameter(tensor, requires_grad=trained))

    def __getitem__(self, name: str) -> Tensor:
        return self.get_parameter(_attribute(name))

    def get(self, name: str) -> Tensor | None:
        return self[name] if name in self.names else None

    def items(self) -> Iterator[tuple[str, Tensor]]:
        for name in self.names:
            yield name, self[name]


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
        self.used = frozenset(sites if used is None else used)
        self.name = name
        self.method = method
        self.places = tuple(sites)
        self.weights = nn.ModuleDict({_module(site): module for site, module in sites.items()})

    def __getitem__(self, site: Site) -> SiteWeights:
        module = self.weights[_module(site)]
        assert isinstance(module, SiteWeights)
        return module

    def tensors(self) -> dict[tuple[Site, str], Tensor]:
        """Detached weights by site and name."""
        return {
            (site, name): tensor.detach()
            for site in self.places
            for name, tensor in self[site].items()
        }

    def requires_grad_(self, requires_grad: bool = True) -> Part:
        """Train or freeze the weights that are used."""
        for site in self.places:
            self[site].requires_grad_(requires_grad and site in self.used)
        return self

    @property
    def trained(self) -> bool:
        return any(parameter.requires_grad for parameter in self.parameters())


def _module(site: Site) -> str:
    return str(site).replace(".", "_")


def new_part(name: str, method: Method, facts: Facts) -> Part:
    """A part whose weights start as its method says; trained.

    `method.only(sites, facts)` makes none in layers where the composition has no use for them.
    """
    sites = {}
    for site in method.sites(facts):
        tensors = {}
        for key, shape in method.tensors(site, facts).items():
            tensors[key] = torch.empty(shape)
            method.start(key, tensors[key])
        sites[site] = SiteWeights(tensors, trained=True)
    return Part(name, method, sites)


def loaded_part(
    name: str, method: Method, weights: Weights, *, used: Collection[Site] | None = None
) -> Part:
    """A part with the weights of a file; frozen."""
    sites: dict[Site, dict[str, Tensor]] = {}
    for (site, key), tensor in weights.items():
        sites.setdefault(site, {})[key] = tensor
    frozen = {site: SiteWeights(tensors, trained=False) for site, tensors in sites.items()}
    return Part(name, method, frozen, used)


class Parts(nn.Module):
    """All parts of a composition by name."""

    def __init__(self, parts: Mapping[str, Part]) -> None:
        super().__init__()
        self.order = tuple(parts)
        self.modules_in_order = nn.ModuleList(parts.values())

    def __getitem__(self, name: str) -> Part:
        part = self.modules_in_order[self.order.index(name)]
        assert isinstance(part, Part)
        return part

    def __contains__(self, name: object) -> bool:
        return name in self.order

    def items(self) -> Iterator[tuple[str, Part]]:
        for name in self.order:
            yield name, self[name]
