"""The tensors of a PEFT file by the modules of the backbone that they belong to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.hub.formats.tensors import Shapes
from adaptcompose.methods.changes import Changing
from adaptcompose.methods.method import Packed

STEM = "base_model.model."


@dataclass(frozen=True)
class Within:
    """The class of models that an adapter is used in: its task as PEFT calls it, if it has one.

    `path` is where in such a model the backbone is, and is part of the names of all tensors.
    """

    task: str | None = None
    path: str = ""

    @property
    def stem(self) -> str:
        """What the names of tensors begin with."""
        return f"{STEM}{self.path}." if self.path else STEM


@dataclass(frozen=True)
class Tensor:
    """Where in a file a tensor of ours is: its key, and which piece of its rows or columns."""

    key: str
    piece: tuple[int, int] = (0, 1)
    packed: Packed | None = None

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """Its shape in a file that has it in this one."""
        axis, count = 0, self.piece[1]
        if self.packed is not None:
            axis, count = self.packed.axis, self.packed.count
        if stored[axis] % count:
            return stored
        return (*stored[:axis], stored[axis] // count, *stored[axis + 1 :])


@dataclass
class Modules:
    """The tensors of a file by the place of their module, and what is left.

    `unplaced` is a module that has no place in the backbone.
    """

    tensors: dict[Site, dict[str, Tensor]]
    shapes: Shapes
    left: dict[str, tuple[int, ...]]
    facts: Facts
    names: dict[Site, str]
    unplaced: str | None = None

    @classmethod
    def sort(cls, facts: Facts, shapes: Shapes, *, biases: bool = False) -> Modules:
        """With `biases`, those of maps and norms that have nothing else are among them."""
        sorted_ = cls({}, shapes, {}, facts, {})
        places = _places(facts)
        stems = facts.layout.stems(facts.type)
        for key, shape in shapes.items():
            if biases and key.endswith(_COPIES):
                continue
            name = key.removeprefix(STEM)
            match = _KIND.fullmatch(name)
            if match is None:
                sorted_.left[key] = shape
                continue
            module, kind = match["module"], match["kind"]
            paths = (module.removeprefix(stem) for stem in stems)
            sites = next((places[path] for path in paths if path in places), None)
            if kind == "bias" and not (biases and sites):
                sorted_.left[key] = shape
                continue
            if not sites:
                sorted_.unplaced = sorted_.unplaced or module
                continue
            for site in sites:
                piece = facts.layout.sites[site.name].piece
                split = piece if kind in _BY_ROWS else (0, 1)
                sorted_.tensors.setdefault(site, {})[_OURS[kind]] = Tensor(key, split)
                sorted_.names[site] = module
        return sorted_

    def settle(self, method: Changing) -> Any:
        """A method at the places of the file."""
        return method.settled(self.facts, tuple(self.tensors))

    def shape(self, site: Site, name: str) -> tuple[int, ...] | None:
        """The shape of one of our tensors in the file."""
        tensor = self.tensors[site].get(name)
        return None if tensor is None else tensor.shape(self.shapes[tensor.key])


def _places(facts: Facts) -> dict[str, list[Site]]:
    """Sites by the path of their module; a map that is merged with others has several."""
    found: dict[str, list[Site]] = {}
    for site in facts.of_kind("linear", "norm"):
        found.setdefault(facts.layout.path(site), []).append(site)
    whole = {path: [s for s in sites if _whole(s, facts)] for path, sites in found.items()}
    return {path: whole[path] or sites for path, sites in found.items()}


def _whole(site: Site, facts: Facts) -> bool:
    return facts.layout.sites[site.name].piece == (0, 1)


_OURS = {
    "lora_A.weight": "A",
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
"""Kinds of PEFT's tensors, and our names."""

_BY_ROWS = ("lora_B.weight", "lora_B.bias", "base_layer.bias", "bias", "vera_lambda_b")
_KIND = re.compile(rf"(?P<module>.+?)\.(?P<kind>{'|'.join(map(re.escape, _OURS))})")
_COPIES = (".modules_to_save.bias", ".original_module.bias")
"""A head's bias once more, as `bias=all` has PEFT store whatever is called so."""

PROJECTION = {"A": "base_model.vera_A", "B": "base_model.vera_B"}
