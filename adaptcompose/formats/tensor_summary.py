"""Names and shapes of tensors, told briefly: equal layers once."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from adaptcompose.formats.tensors import Shapes
from adaptcompose.syntax.signature import format_ranges

_CONTAINERS = (
    "adapters|adapter_fusion_layer|invertible_adapters|loras|prefix_tunings|prefix_gates"
    "|shared_parameters|prompt_tunings|refts"
)
_NAMED = re.compile(rf"^(.*?)\.?({_CONTAINERS})\.[^.]+\.(.*)$")
_LAYER = re.compile(r"(?<=\.)\d+(?=\.|$)")
_WRAPPED = "base_model.model."  # what PEFT puts in front of every key


@dataclass(frozen=True)
class TensorGroup:
    """Places with tensors of the same names and shapes: `where` has `*` for the layer."""

    path_pattern: str
    layers: tuple[int, ...]
    tensors: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def parameters(self) -> int:
        """The numbers at one place."""
        return sum(math.prod(shape) for _, shape in self.tensors)

    def as_plain(self) -> dict[str, Any]:
        tensors = {name: list(shape) for name, shape in self.tensors}
        return {"where": self.path_pattern, "layers": list(self.layers), "tensors": tensors}

    def __str__(self) -> str:
        """`encoder.layer.*.output, layers 0..11: adapter_down.0 48×768+48, …`"""
        layers = f", layers {format_ranges(list(self.layers))}" if self.layers else ""
        return f"{self.path_pattern}{layers}: {', '.join(self._modules())}"

    def _modules(self) -> Iterator[str]:
        """Weight and bias of a module as one."""
        found: dict[str, list[str]] = {}
        for name, shape in sorted(self.tensors, key=lambda one: one[0].endswith("bias")):
            module = name.removesuffix(".weight").removesuffix(".bias")
            found.setdefault(module, []).append("×".join(map(str, shape)) or "1")
        for module, shapes in found.items():
            yield f"{module} {'+'.join(shapes)}"


def group_tensors(shapes: Shapes) -> Iterator[TensorGroup]:
    """The tensors of a file by place, places that differ in the layer alone as one.

    >>> keys = [f"bert.encoder.layer.{n}.output.adapters.a.adapter_up" for n in (0, 1)]
    >>> up = {f"{key}.weight": (8, 2) for key in keys} | {f"{key}.bias": (8,) for key in keys}
    >>> print(*group_tensors(up))
    bert.encoder.layer.*.output, layers 0..1: adapter_up 8×2+8
    """
    places: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    for key, shape in sorted(shapes.items()):
        if ".pool." not in key:  # a prefix that stands a second time in every layer
            where, name = _split(key)
            places.setdefault(where, []).append((name, shape))
    same: dict[tuple[str, tuple[Any, ...]], list[int]] = {}
    for where, found in places.items():
        number = _LAYER.search(where)
        pattern = _LAYER.sub("*", where, count=1)
        numbers = same.setdefault((pattern, tuple(found)), [])
        numbers += [int(number[0])] if number else []
    for (pattern, tensors), layers in same.items():
        yield TensorGroup(pattern, tuple(sorted(layers)), tensors)


def parameters(shapes: Shapes) -> int:
    """How many numbers a file holds, those that it repeats in every layer once."""
    return sum(math.prod(shape) for key, shape in shapes.items() if ".pool." not in key)


def layers_in(shapes: Shapes) -> int:
    """How many layers there are as far as a file's keys tell."""
    found = (_LAYER.search(_split(key)[0]) for key in shapes)
    return max((int(number[0]) + 1 for number in found if number), default=0)


def _split(key: str) -> tuple[str, str]:
    """The place and the name of a tensor there."""
    match = _NAMED.match(key)
    if match is not None:
        own = "" if match[2] == "adapters" else f".{match[2]}"
        return f"{match[1]}{own}".removeprefix("."), match[3]
    plain = key.removeprefix(_WRAPPED)
    if plain.startswith("heads."):
        return "head", plain.split(".", 2)[-1]
    module, _, name = plain.rpartition(".")
    if name in ("weight", "bias") and "lora_" in module:
        module, _, inner = module.rpartition(".")
        return module, f"{inner}.{name}"
    return module, name
