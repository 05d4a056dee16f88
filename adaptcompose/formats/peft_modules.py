"""Assign the tensors of a PEFT file to the modules of the backbone."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from adaptcompose.backbones.layout import Facts, Site, SitePath
from adaptcompose.formats.tensors import Shapes
from adaptcompose.methods.method import PackedSlice
from adaptcompose.methods.targeted import TargetedMethod

if TYPE_CHECKING:
    import torch

STEM = "base_model.model."


@dataclass(frozen=True)
class ModelClass:
    """A class of models, for which an adapter is stored: PEFT's keys depend on it.

    `task` is PEFT's name of its task, if PEFT has one. `path` is the path of the base model in it,
    and `vocabulary` that of the last map of a language model. `name` is the name of the class, and
    `head` are the tensors of its head by their keys, which a file stores as well.
    """

    task: str | None = None
    path: str = ""
    vocabulary: str = ""
    name: str = ""
    head: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def module(self, site: Site, facts: Facts) -> str:
        """The path of the module of a site in the whole model."""
        if facts.layout.sites[site.name].is_outside_base:
            return self.vocabulary
        return ".".join(filter(None, (self.path, facts.layout.path(site))))


@dataclass(frozen=True)
class TensorSlice:
    """The place of one of our tensors in a file: a key, and a piece of the tensor stored there."""

    key: str
    piece: tuple[int, int] = (0, 1)
    packed: PackedSlice | None = None
    transposed: bool = False
    halved_axis: int | None = None
    """The axis along which the file has only the first half."""

    def unpacked_shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of our tensor if the file has one of shape `stored`."""
        if self.transposed:
            return stored[::-1]
        if self.halved_axis is not None:
            return tuple(n * (1 + (i == self.halved_axis)) for i, n in enumerate(stored))
        axis, count = 0, self.piece[1]
        if self.packed is not None:
            axis, count = self.packed.axis, self.packed.count
        if len(stored) <= axis or stored[axis] % count:
            return stored
        return (*stored[:axis], stored[axis] // count, *stored[axis + 1 :])


@dataclass
class FileModules:
    """The tensors of a file by the site of their module.

    `unused_shapes` are those without a meaning so far, `names` the modules of the sites.
    `unknown_module` is one that the backbone does not have. `whole_tensors` belong to modules that
    the file has whole copies of. `backbone_copies` are matrices of the backbone itself: PEFT stores
    those of embeddings and vocabularies that an adapter changes.
    """

    tensors: dict[Site, dict[str, TensorSlice]]
    shapes: Shapes
    unused_shapes: dict[str, tuple[int, ...]]
    facts: Facts
    names: dict[Site, str]
    backbone_copies: dict[Site, str] = field(default_factory=dict)
    whole_tensors: dict[Site, dict[str, TensorSlice]] = field(default_factory=dict)
    unknown_module: str | None = None

    @classmethod
    def from_shapes(
        cls, facts: Facts, shapes: Shapes, saved: Collection[str] = (), *, biases: bool = False
    ) -> FileModules:
        """Sort the tensors of a file by site.

        `saved` are the names of modules that the file has whole copies of. With `biases`, the
        biases of maps and norms are tensors of the method even if a module has no others.
        """
        sorted_ = cls({}, shapes, {}, facts, {})
        places = _places(facts)
        stems = facts.layout.key_prefixes(facts.model_type)
        for key, shape in shapes.items():
            if biases and key.endswith(_COPIES):
                continue
            name = key.removeprefix(STEM)
            match = _KIND.fullmatch(name)
            if match is None:
                sorted_.unused_shapes[key] = shape
                continue
            module, kind = match["module"], match["kind"]
            paths = [module.removeprefix(stem) for stem in stems]
            if not set(paths).isdisjoint(facts.layout.unused_modules):
                continue
            sites = next((places[path] for path in paths if path in places), None)
            whole = next(enclosing_modules(module, saved), None) is not None
            if whole and sites and kind in _WHOLE and not _place(sites[0], facts).is_outside_base:
                sorted_._save(key, kind, sites)
            elif kind in _COPIED and sites and _vocabulary(sites[0], facts) and not whole:
                sorted_.backbone_copies[sites[0]] = key
            elif (
                kind == "weight"
                or (kind == "bias" and not (biases and sites))
                or (sites and not _fits(kind, _place(sites[0], facts)))
            ):
                sorted_.unused_shapes[key] = shape
            elif sites:
                sorted_._put(key, module, kind, sites)
            else:
                sorted_.unknown_module = sorted_.unknown_module or module
        return sorted_

    def _put(self, key: str, module: str, kind: str, sites: list[Site]) -> None:
        for site in sites:
            piece = _place(site, self.facts).piece
            split = piece if kind in _BY_ROWS else (0, 1)
            self.tensors.setdefault(site, {})[_OURS[kind]] = TensorSlice(key, split)
            self.names[site] = module

    def _save(self, key: str, kind: str, sites: list[Site]) -> None:
        turned = kind == "weight" and self.facts.is_transposed(sites[0])
        for site in sites:
            own = TensorSlice(key, _place(site, self.facts).piece, transposed=turned)
            self.whole_tensors.setdefault(site, {})[kind] = own

    def mark_halved(self, sites: Collection[Site]) -> None:
        """Record that the file has only the first half of the factors at some sites."""
        for site in sites:
            own = self.tensors[site]
            halves = {name: axis for axis, name in enumerate("AB") if name in own}
            own |= {name: replace(own[name], halved_axis=axis) for name, axis in halves.items()}

    @property
    def has_tied_map(self) -> bool:
        """Whether it has tensors for a matrix that the backbone may share between two modules."""
        tying = self.facts.config.get("tie_word_embeddings", True)
        return bool(tying) and any(
            _vocabulary(site, self.facts) for site in (*self.tensors, *self.whole_tensors)
        )

    def with_file_targets(self, method: TargetedMethod) -> Any:
        """A method that targets the sites of the file."""
        return method.at_sites(self.facts, tuple(self.tensors), tuple(self.whole_tensors))

    def vocabulary_matrices(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """The keys of matrices with a row for every token, and the shapes of the backbone's."""
        keys = dict(self.backbone_copies)
        for site, tensors in self.whole_tensors.items():
            if _vocabulary(site, self.facts) and "weight" in tensors:
                keys[site] = tensors["weight"].key
        for site, key in keys.items():
            shape = (self.facts.width_at(site), self.facts.input_width_at(site))
            yield key, shape[::-1] if self.facts.is_transposed(site) else shape

    def shape(self, site: Site, name: str) -> tuple[int, ...] | None:
        """The shape of one of our tensors; None if the file does not have it."""
        tensor = self.tensors[site].get(name)
        return None if tensor is None else tensor.unpacked_shape(self.shapes[tensor.key])


def enclosing_modules(module: str, saved: Collection[str]) -> Iterator[str]:
    """The saved modules that contain a module; PEFT finds them by the end of their path.

    >>> list(enclosing_modules("bert.pooler.dense", ["pooler", "norm"]))
    ['pooler']
    """
    above = list(accumulate(module.split("."), "{}.{}".format))
    yield from (name for name in saved if name and any(path.endswith(name) for path in above))


def _places(facts: Facts) -> dict[str, list[Site]]:
    """Sites by the path of their module; several if the module merges maps."""
    sites_by_path: dict[str, list[Site]] = {}
    for site in facts.sites_of_kind("linear", "lookup", "norm"):
        for path in facts.layout.paths(site):
            sites_by_path.setdefault(path, []).append(site)
    # a site that is the whole module takes its tensors before the sites of its pieces
    return {
        path: [site for site in sites if _whole(site, facts)] or sites
        for path, sites in sites_by_path.items()
    }


def _whole(site: Site, facts: Facts) -> bool:
    return _place(site, facts).piece == (0, 1)


def _place(site: Site, facts: Facts) -> SitePath:
    return facts.layout.sites[site.name]


def _vocabulary(site: Site, facts: Facts) -> bool:
    """Whether the map of a site has a row or a column for every token."""
    return _place(site, facts).is_outside_base or _place(site, facts).kind == "lookup"


def _fits(kind: str, place: SitePath) -> bool:
    """Whether PEFT has tensors of a kind at a site: those of embeddings have other names."""
    if place.kind == "lookup":
        return kind in _LOOKED_UP or kind.startswith("lora_magnitude")
    return kind not in _LOOKED_UP


_WHOLE = ("weight", "bias")
_COPIED = ("weight", "base_layer.weight")
_OURS = {  # our names of PEFT's tensors
    "lora_A.weight": "A",
    "lora_embedding_A": "A",
    "lora_embedding_B": "B",
    "lora_B.weight": "B",
    "lora_B.bias": "B.bias",
    "lora_magnitude_vector": "m",
    "lora_magnitude_vector.weight": "m",
    "base_layer.bias": "bias",
    "bias": "bias",
    "vera_lambda_d": "d",
    "vera_lambda_b": "b",
    "ia3_l": "l",
    "ln_tuning_layers.weight": "weight",
    "ln_tuning_layers.bias": "bias",
}
_KINDS = (*_COPIED, *_OURS)
_LOOKED_UP = ("lora_embedding_A", "lora_embedding_B")

_BY_ROWS = ("lora_B.weight", "lora_B.bias", "base_layer.bias", "bias", "vera_lambda_b")
_KIND = re.compile(rf"(?P<module>.+?)\.(?P<kind>{'|'.join(map(re.escape, _KINDS))})")
_COPIES = (".modules_to_save.bias", ".original_module.bias")
"""Second copies of a head's bias: with `bias=all` PEFT stores every tensor called `bias`."""

PROJECTION = {"A": "base_model.vera_A", "B": "base_model.vera_B"}
