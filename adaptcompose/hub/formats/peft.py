"""PEFT's folders: adapter_config.json with a `peft_type`, adapter_model.safetensors or .bin.

Which modules an adapter has weights for is read from the names of its tensors, not from the
patterns of its configuration: what is not in the file does nothing, and a regular expression of a
stranger is never run. Tensors are named `base_model.model.<path in the class>.<kind>`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite, prod
from typing import TYPE_CHECKING, Any

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.hub.formats import adapterhub, peft_virtual, static_heads
from adaptcompose.hub.formats.adapterhub import Described
from adaptcompose.hub.formats.tensors import Shapes, read_tensors
from adaptcompose.language.codes import AC407, AC408, AC418
from adaptcompose.language.diagnostics import Diagnostic, Failed
from adaptcompose.methods import Method
from adaptcompose.methods.changes import Changing
from adaptcompose.methods.dora import Dora
from adaptcompose.methods.ia3 import IA3
from adaptcompose.methods.layernorm import LayerNorm
from adaptcompose.methods.lora import Lora
from adaptcompose.methods.method import SHARED, Packed
from adaptcompose.methods.vera import Vera

if TYPE_CHECKING:
    import torch

WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
STEM = "base_model.model."

Place = tuple[Site, str]


@dataclass(frozen=True)
class Tensor:
    """Where in a file a tensor of ours is: its key, and which piece of its rows or columns."""

    key: str
    piece: tuple[int, int] = (0, 1)
    packed: Packed | None = None

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """Its shape in a file that has it in this one."""
        if self.packed is not None:
            return (stored[0], stored[1] // self.packed.count)
        return (stored[0] // self.piece[1], *stored[1:]) if self.piece[1] > 1 else stored


@dataclass(frozen=True)
class Contents:
    """What a folder holds: the method, where its tensors are, and the head beside it."""

    method: Method
    tensors: Mapping[Place, Tensor]
    head: Mapping[str, Any] | None = None
    slots: Mapping[str, str] = field(default_factory=dict)


def is_peft(found: Described) -> bool:
    return "peft_type" in found.outer


def read(found: Described, facts: Facts, shapes: Shapes) -> Contents:
    """The contents of a folder on this backbone; AC403, AC407, AC408, AC413 or AC418 if none."""
    adapterhub.check_base(found, facts)
    kind = str(found.outer.get("peft_type")).rpartition(".")[2].upper()
    if kind not in _READERS:
        raise Failed(refused(found, f"PEFT's {kind}"))
    with adapterhub.understood(found, adapterhub.ADAPTER):
        for key in _risky(found.outer, kind):
            raise Failed(refused(found, f"PEFT's {kind} with {key}"))
        modules = _Modules.sort(found, facts, shapes)
        method = _READERS[kind](found.outer, modules)
    head, slots = _head(found.outer, facts, modules.left)
    for key in slots.values():
        modules.left.pop(key)
    tensors = _tensors(method, modules, facts)
    if wrong := list(_misfits(found, method, tensors, modules, facts)):
        raise Failed(wrong)
    return Contents(method, tensors, head, slots)


def refused(found: Described, method: str) -> Diagnostic:
    """AC407 with all that can be read."""
    known = f"PEFT's {', '.join(_READERS)}, and AdapterHub's methods"
    return AC407.at(found.span, name=found.title, method=method, known=known)


@dataclass
class _Modules:
    """The tensors of a file by the place of their module, and what is left."""

    tensors: dict[Site, dict[str, Tensor]]
    shapes: Shapes
    left: dict[str, tuple[int, ...]]
    facts: Facts
    names: dict[Site, str]

    @classmethod
    def sort(cls, found: Described, facts: Facts, shapes: Shapes) -> _Modules:
        sorted_ = cls({}, shapes, {}, facts, {})
        places = _places(facts)
        prefix = f"{facts.layout.prefix(facts.type)}."
        for key, shape in shapes.items():
            name = key.removeprefix(STEM)
            match = _KIND.fullmatch(name)
            if match is None:
                sorted_.left[key] = shape
                continue
            module, kind = match["module"], match["kind"]
            sites = places.get(module) or places.get(module.removeprefix(prefix))
            if not sites:
                raise Failed(refused(found, f"a change of {module}"))
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
    "vera_lambda_d": "d",
    "vera_lambda_b": "b",
    "ia3_l": "l",
    "ln_tuning_layers.weight": "weight",
    "ln_tuning_layers.bias": "bias",
}
"""Kinds of PEFT's tensors, and our names."""

_BY_ROWS = ("lora_B.weight", "lora_B.bias", "base_layer.bias", "vera_lambda_b")
_KIND = re.compile(rf"(?P<module>.+?)\.(?P<kind>{'|'.join(map(re.escape, _OURS))})")
_PROJECTION = {"A": "base_model.vera_A", "B": "base_model.vera_B"}


def _number(config: Mapping[str, Any], key: str, default: float) -> float:
    value = config.get(key, default)
    if type(value) not in (int, float) or not isfinite(value):
        raise ValueError(f"{key} must be a number, not {value!r}")
    return float(value)


def _count(config: Mapping[str, Any], key: str, default: int, least: int = 1) -> int:
    value = config.get(key, default)
    if type(value) is not int or value < least:
        raise ValueError(f"{key} must be a whole number, at least {least}, not {value!r}")
    return value


def _share(config: Mapping[str, Any], key: str) -> float:
    value = _number(config, key, 0.0)
    if not 0 <= value < 1:
        raise ValueError(f"{key} must be at least 0 and less than 1, not {value!r}")
    return value


def _lora(config: Mapping[str, Any], modules: _Modules) -> Method:
    rank, alpha = _count(config, "r", 8), _number(config, "lora_alpha", 8.0)
    cls = Dora if config.get("use_dora") else Lora
    bias = "backbone" if config.get("bias") == "lora_only" else "none"
    bias = "own" if config.get("lora_bias") else bias
    lacking = [site for site in modules.tensors if modules.shape(site, "A") is None]
    if lacking:
        raise ValueError(f"there is no lora_A at {lacking[0]}")
    ranks = {site: (modules.shape(site, "A") or (rank,))[0] for site in modules.tensors}
    patterns = config.get("alpha_pattern") or {}
    alphas = {site: _pattern(patterns, modules.names[site], alpha) for site in modules.tensors}
    method = cls(
        rank=rank,
        alpha=alpha,
        ranks=tuple(_exceptions(ranks, rank)),
        alphas=tuple(_exceptions(alphas, alpha)),
        dropout=_share(config, "lora_dropout"),
        rslora=bool(config.get("use_rslora")),
        bias=bias,  # type: ignore[arg-type]
    )
    return modules.settle(method)  # type: ignore[no-any-return]


def _pattern(patterns: Any, module: str, default: float) -> float:
    """The number of the first pattern that fits the end of a module's path, as in PEFT."""
    if not isinstance(patterns, Mapping):
        raise ValueError("alpha_pattern must be a mapping")
    for pattern in patterns:
        if len(pattern) > _LONGEST or not _HARMLESS.fullmatch(pattern):
            raise ValueError(f"the pattern {pattern[:_LONGEST]!r} is not one of plain paths")
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            return _number(patterns, pattern, default)
    return default


_LONGEST = 200
_HARMLESS = re.compile(r"\^?(?:[\w.|-]|\\\.|\\d|\[[\d-]+\]|\((?:\?:)?(?:[\w|]|\\\.)+\)){1,200}\$?")
"""Patterns without repetition: the time that they take is that of their length."""


def _exceptions(numbers: Mapping[Site, float], default: float) -> Iterator[str]:
    """What differs from the default: for all places of a name, or one by one."""
    by_name: dict[str, set[float]] = {}
    for site, number in numbers.items():
        by_name.setdefault(site.name, set()).add(number)
    for name, found in by_name.items():
        if len(found) == 1 and found != {default}:
            yield f"{name}={found.pop():g}"
        elif len(found) > 1:
            own = {s: n for s, n in numbers.items() if s.name == name and n != default}
            yield from (f"{site}={number:g}" for site, number in own.items())


def _vera(config: Mapping[str, Any], modules: _Modules) -> Method:
    stored = [modules.left.pop(key, None) for key in _PROJECTION.values()]
    method = Vera(
        rank=_count(config, "r", 256),
        seed=_count(config, "projection_prng_key", 0, least=0),
        d=_number(config, "d_initial", 0.1),
        dropout=_share(config, "vera_dropout"),
        stored=all(stored),
    )
    return modules.settle(method)  # type: ignore[no-any-return]


def _ia3(config: Mapping[str, Any], modules: _Modules) -> Method:
    sides = {site: (modules.shape(site, "l") or (0,))[0] == 1 for site in modules.tensors}
    inputs = dict.fromkeys(site.name for site, inner in sides.items() if inner)
    if any(site.name in inputs and not inner for site, inner in sides.items()):
        raise ValueError("feedforward_modules differ from layer to layer")
    return modules.settle(IA3(inputs=tuple(inputs)))  # type: ignore[no-any-return]


def _norms(config: Mapping[str, Any], modules: _Modules) -> Method:
    method: LayerNorm = modules.settle(LayerNorm())
    every = method.names(modules.facts)
    return (
        LayerNorm(leave_out=method.leave_out, without=method.without)
        if set(LayerNorm().names(modules.facts)) == set(every)
        else method
    )


def _virtual(config: Mapping[str, Any], modules: _Modules) -> Method:
    key = peft_virtual.KEY
    if key not in modules.left:
        raise ValueError(f"its weights lack {key}")
    method, places = peft_virtual.read(config, modules.facts, modules.left.pop(key))
    for (site, name), packed in places.items():
        modules.tensors.setdefault(site, {})[name] = Tensor(key, packed=packed)
    return method


_READERS: dict[str, Callable[[Mapping[str, Any], _Modules], Method]] = {
    "LORA": _lora,
    "VERA": _vera,
    "IA3": _ia3,
    "LN_TUNING": _norms,
    **dict.fromkeys(peft_virtual.KINDS, _virtual),
}

_UNDERSTOOD = [
    *peft_virtual.UNDERSTOOD,
    "peft_type",
    "task_type",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "auto_mapping",
    "peft_version",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "modules_to_save",
    "fan_in_fan_out",
    "r",
    "lora_alpha",
    "lora_dropout",
    "bias",
    "lora_bias",
    "use_rslora",
    "use_dora",
    "rank_pattern",
    "alpha_pattern",
    "init_lora_weights",
    "megatron_config",
    "megatron_core",
    "loftq_config",
    "eva_config",
    "qalora_group_size",
    "runtime_config",
    "ephemeral_gpu_offload",
    "ensure_weight_tying",
    "model_name",
    "projection_prng_key",
    "save_projection",
    "vera_dropout",
    "d_initial",
    "init_weights",
    "feedforward_modules",
    "init_ia3_weights",
]
"""Keys that are read, or that change nothing once an adapter is trained."""

_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Values of init_lora_weights that leave the backbone's weights as they are."""


def _risky(config: Mapping[str, Any], kind: str) -> Iterator[str]:
    """Settings that would change what is computed in a way that we do not know."""
    for key in sorted(config):
        if key not in _UNDERSTOOD and config[key]:
            yield key
    if config.get("init_lora_weights") not in _STARTS:
        yield f"init_lora_weights={config['init_lora_weights']}"
    if config.get("bias", "none") not in ("none", *(["lora_only"] if kind == "LORA" else [])):
        yield f"bias={config['bias']}"
    if config.get("loftq_config"):
        yield "loftq_config"


def _tensors(method: Method, modules: _Modules, facts: Facts) -> dict[Place, Tensor]:
    found = {
        (site, name): tensor
        for site, tensors in modules.tensors.items()
        for name, tensor in tensors.items()
    }
    if SHARED in method.sites(facts):
        found |= {(SHARED, name): Tensor(key) for name, key in _PROJECTION.items()}
    return found


def _misfits(
    found: Described,
    method: Method,
    tensors: Mapping[Place, Tensor],
    modules: _Modules,
    facts: Facts,
) -> Iterator[Diagnostic]:
    """What is missing, of another shape, or not explained: the first of each."""
    expected = {
        (site, name): shape
        for site in method.sites(facts)
        for name, shape in method.tensors(site, facts).items()
    }
    lacking = [f"{name} at {site}" for site, name in expected if (site, name) not in tensors]
    if lacking:
        yield AC418.at(found.span, name=found.title, missing=lacking[0])
    for (site, name), tensor in tensors.items():
        shape, wanted = tensor.shape(modules.shapes[tensor.key]), expected.get((site, name))
        if wanted is None:
            modules.left[tensor.key] = shape
        elif shape != wanted and not (prod(shape) == prod(wanted) and len(wanted) == 1):
            detail = f"{name} at {site} is {shape}, the backbone needs {wanted}"
            yield AC408.at(found.span, name=found.title, detail=detail)
            return
    if modules.left:
        detail = f"its configuration does not explain the tensor {min(modules.left)}"
        yield AC408.at(found.span, name=found.title, detail=detail)


def _head(
    config: Mapping[str, Any], facts: Facts, left: Mapping[str, tuple[int, ...]]
) -> tuple[Mapping[str, Any] | None, dict[str, str]]:
    """A classifier of transformers among the saved modules, as a flexible head, and its keys."""
    task = _TASKS.get(str(config.get("task_type")))
    family = str(facts.layout.adapterhub.get(facts.type, "")).removesuffix("AdapterModel")
    name = f"{family}{task}"
    static = static_heads.STATIC.get(name) if task else None
    if static is None:
        return None, {}
    slots: dict[str, str] = {}
    for slot, module in static.slots.items():
        for kind in ("weight", "bias"):
            for stem in (STEM, "base_model."):
                if (key := f"{stem}{module}.{kind}") in left:
                    slots[f"{slot}.{kind}"] = key
    last = slots.get(f"{max(static.slots)}.weight")
    if last is None:
        return None, {}
    outer = {"model_class": name, "num_labels": left[last][0]}
    return static_heads.flexible(outer), slots


_TASKS = {"SEQ_CLS": "ForSequenceClassification", "TOKEN_CLS": "ForTokenClassification"}


def read_weights(found: Described, contents: Contents, facts: Facts) -> dict[Place, torch.Tensor]:
    """The tensors of an adapter by site and name, each of the expected shape."""
    stored = read_file(found)
    weights = {}
    for (site, name), place in contents.tensors.items():
        tensor = stored[place.key]
        number, count = place.piece
        if count > 1:
            tensor = tensor.chunk(count)[number]
        shape = contents.method.tensors(site, facts)[name]
        tensor = tensor if place.packed is None else place.packed.take(tensor, shape)
        weights[site, name] = tensor.reshape(shape).clone()
    adapterhub.check_numbers(found, weights)
    return weights


def read_head(found: Described, contents: Contents) -> dict[str, torch.Tensor]:
    """The tensors of the head by slot: `1.weight`, …"""
    stored = read_file(found)
    return {slot: stored[key].clone() for slot, key in contents.slots.items()}


def read_file(found: Described) -> dict[str, torch.Tensor]:
    """Everything in the file of weights."""
    for name in WEIGHTS:
        if (found.folder / name).is_file():
            return read_tensors(found.folder / name, f"{found.title}: {name}")
    missing = " and ".join(WEIGHTS)
    raise Failed(AC418.at(found.span, name=found.title, missing=missing))
