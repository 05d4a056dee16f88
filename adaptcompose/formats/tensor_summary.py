"""Summarise names and shapes of tensors: equal layers appear once."""

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
_WRAPPED = "base_model.model."  # PEFT's prefix of every key


@dataclass(frozen=True)
class TensorGroup:
    """Modules with tensors of the same names and shapes; `path_pattern` has `*` for the layer."""

    path_pattern: str
    layers: tuple[int, ...]
    tensors: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def parameters(self) -> int:
        """The parameters of one of the modules."""
        return sum(math.prod(shape) for _, shape in self.tensors)

    def as_plain(self) -> dict[str, Any]:
        tensors = {name: list(shape) for name, shape in self.tensors}
        return {"where": self.path_pattern, "layers": list(self.layers), "tensors": tensors}

    def __str__(self) -> str:
        """`encoder.layer.*.output, layers 0..11: adapter_down.0 48×768+48, …`"""
        layers = f", layers {format_ranges(list(self.layers))}" if self.layers else ""
        return f"{self.path_pattern}{layers}: {', '.join(self._modules())}"

    def _modules(self) -> Iterator[str]:
        """Each inner module with the shapes of its weight and its bias."""
        shapes_by_module: dict[str, list[str]] = {}
        for name, shape in sorted(self.tensors, key=lambda item: item[0].endswith("bias")):
            module = name.removesuffix(".weight").removesuffix(".bias")
            shapes_by_module.setdefault(module, []).append("×".join(map(str, shape)) or "1")
        for module, shapes in shapes_by_module.items():
            yield f"{module} {'+'.join(shapes)}"


def group_tensors(shapes: Shapes) -> Iterator[TensorGroup]:
    """The tensors of a file by module; modules that differ only in the layer form one group.

    >>> keys = [f"bert.encoder.layer.{n}.output.adapters.a.adapter_up" for n in (0, 1)]
    >>> up = {f"{key}.weight": (8, 2) for key in keys} | {f"{key}.bias": (8,) for key in keys}
    >>> print(*group_tensors(up))
    bert.encoder.layer.*.output, layers 0..1: adapter_up 8×2+8
    """
    places: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    for key, shape in sorted(shapes.items()):
        if ".pool." not in key:  # `adapters` stores every prefix a second time in each layer
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
    """The number of parameters in a file, without the copies of prefixes in each layer."""
    return sum(math.prod(shape) for key, shape in shapes.items() if ".pool." not in key)


def layers_in(shapes: Shapes) -> int:
    """The number of layers of which a file has tensors: one more than the highest index."""
    matches = (_LAYER.search(_split(key)[0]) for key in shapes)
    return max((int(match[0]) + 1 for match in matches if match), default=0)


def _split(key: str) -> tuple[str, str]:
    """The module of a tensor, and the name of the tensor in it."""
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
