"""Read PEFT's configurations: each kind becomes one of our methods."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from math import inf, isfinite
from typing import Any

from adaptcompose.backbones.layout import Site
from adaptcompose.formats import peft_virtual
from adaptcompose.formats.peft_modules import PROJECTION, FileModules, TensorSlice
from adaptcompose.methods import Method
from adaptcompose.methods.dora import Dora
from adaptcompose.methods.ia3 import IA3
from adaptcompose.methods.layernorm import LayerNorm
from adaptcompose.methods.lora import Lora
from adaptcompose.methods.vera import Vera


class UnsupportedError(Exception):
    """A setting that adaptcompose does not support; the message names it."""


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


def _lora(config: Mapping[str, Any], modules: FileModules) -> Method:
    rank, alpha = _count(config, "r", 8), _number(config, "lora_alpha", 8.0)
    cls = Dora if config.get("use_dora") else Lora
    bias = _BIASES.get(str(config.get("bias")), "none")
    bias = "own" if config.get("lora_bias") else bias
    places = [s for s, own in modules.tensors.items() if bias != "all" or own.keys() != {"bias"}]
    lacking = [site for site in places if modules.shape(site, "A") is None]
    if lacking:
        raise ValueError(f"{lacking[0]} has no lora_A")
    ranks = {site: (modules.shape(site, "A") or (rank,))[0] for site in places}
    patterns = config.get("alpha_pattern") or {}
    alphas = {site: _pattern(patterns, modules.names[site], alpha) for site in places}
    if config.get("init_lora_weights") in RESIDUAL_INITS:
        halved = _residual_init_sites(config, modules)
        if any(alphas[site] <= 0 for site in halved):
            raise ValueError("lora_alpha must be above 0 unless the factors started at zero")
        factor = 2**0.5 if config.get("use_rslora") else 2.0
        ranks |= {site: 2 * ranks[site] for site in halved}
        alphas |= {site: factor * alphas[site] for site in halved}
        rank, alpha = 2 * rank, factor * alpha
    method = cls(
        rank=rank,
        alpha=alpha,
        ranks=tuple(_exceptions(ranks, rank)),
        alphas=tuple(_exceptions(alphas, alpha)),
        dropout=_share(config, "lora_dropout"),
        rslora=bool(config.get("use_rslora")),
        bias=bias,  # type: ignore[arg-type]
        whole=tuple(dict.fromkeys(site.name for site in modules.whole_tensors)),
    )
    if bias != "all":
        return modules.with_file_targets(method)  # type: ignore[no-any-return]
    targeted = replace(method, targets=tuple(dict.fromkeys(site.name for site in places)))
    if set(targeted.target_sites(modules.facts)) != set(places):
        raise UnsupportedError("bias=all and lora_A in only some of the layers")
    stored = {*modules.tensors, *modules.whole_tensors}
    sites = [s for s in targeted.sites(modules.facts) if s in stored or s.name != "pooler"]
    return targeted.restrict_to(sites, modules.facts)  # some classes have no pooler


RESIDUAL_INITS = ("pissa", "olora")
"""Values of init_lora_weights for which PEFT subtracts the initial update from the backbone."""


def _residual_init_sites(config: Mapping[str, Any], modules: FileModules) -> list[Site]:
    """The maps from which PEFT subtracted the initial update B₀A₀; not so for embeddings.

    On the backbone's own weights such an adapter is BA - B₀A₀, a LoRA of twice the rank. The file
    has the first half of the factors; the other half is computed from the backbone's weights.
    """
    layout, kind = modules.facts.layout, config["init_lora_weights"]
    own = [site for site, tensors in modules.tensors.items() if "A" in tensors]
    maps = [site for site in own if layout.sites[site.name].kind == "linear"]
    if any(layout.sites[site.name].is_outside_base for site in maps):
        raise UnsupportedError(f"init_lora_weights={kind} for the vocabulary")
    if kind == "olora" and layout.transposed:
        raise UnsupportedError("init_lora_weights=olora for maps stored as [in, out]")
    modules.mark_halved(maps)
    return maps


_BIASES = {"lora_only": "backbone", "all": "all"}
"""Our names for PEFT's settings that train biases of the backbone."""


def _pattern(patterns: Any, module: str, default: float) -> float:
    """The value of the first pattern that matches the end of a module's path, as in PEFT."""
    if not isinstance(patterns, Mapping):
        raise ValueError("alpha_pattern must be a mapping")
    for pattern in patterns:
        if _compiled(pattern).fullmatch(module):
            return _number(patterns, pattern, default)
    return default


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        if _ways(pattern) <= _MOST_WAYS:
            return re.compile(rf"(.*\.)?({pattern})")
    except re.error as error:
        raise ValueError(f"the pattern {pattern!r} is not a regular expression: {error}") from None
    raise UnsupportedError(f"the pattern {pattern[:_LONGEST]!r}, which could take forever to match")


def _ways(pattern: str) -> float:
    r"""A bound on the number of ways in which the engine can try to match a pattern.

    Patterns come from files of strangers, and a few characters can make one take forever.

    >>> _ways(r"layer\.\d+\.(query|key)"), _ways(r"(a+)+b"), _ways("(a|a)" * 40) > _MOST_WAYS
    (128.0, inf, True)
    """
    text, ways = _CHARACTER.sub("x", pattern[: _LONGEST + 1]), 1.0
    marks = text.replace("(?:", "(")
    while group := _GROUP.search(text):
        ways *= group[1].count("|") + 1
        text = f"{text[: group.start()]}x{text[group.end() :]}"
    if len(pattern) > _LONGEST or set(text) & set("()[]\\"):
        return inf
    ways *= (text.count("|") + 1) * 2.0 ** marks.count("?")
    return ways * float(_LENGTH) ** sum(map(marks.count, "*+{"))


_LONGEST, _LENGTH, _MOST_WAYS = 200, 64, 64**3
_CHARACTER = re.compile(r"\\[.dDwW_-]|\[\^?(?:[\w.-]|\\[.dw-])+\]")
_GROUP = re.compile(r"\((?:\?:)?(?!\?)([^()]*)\)(?![*+{])")
"""A regular expression for one character, and for a group without repetition or inner groups."""


def _exceptions(numbers: Mapping[Site, float], default: float) -> Iterator[str]:
    """The values other than the default: for all sites of a name, or for single sites."""
    by_name: dict[str, set[float]] = {}
    for site, number in numbers.items():
        by_name.setdefault(site.name, set()).add(number)
    for name, values in by_name.items():
        if len(values) == 1 and values != {default}:
            yield f"{name}={_spelt(values.pop())}"
        elif len(values) > 1:
            own = {s: n for s, n in numbers.items() if s.name == name and n != default}
            yield from (f"{site}={_spelt(number)}" for site, number in own.items())


def _spelt(number: float) -> str:
    """The shortest text of a number that reads as the same number."""
    return str(int(number)) if number == int(number) and abs(number) < 1e15 else repr(number)


def _vera(config: Mapping[str, Any], modules: FileModules) -> Method:
    stored = [modules.unused_shapes.pop(key, None) for key in PROJECTION.values()]
    method = Vera(
        rank=_count(config, "r", 256),
        seed=_count(config, "projection_prng_key", 0, least=0),
        d=_number(config, "d_initial", 0.1),
        dropout=_share(config, "vera_dropout"),
        stored=all(stored),
    )
    return modules.with_file_targets(method)  # type: ignore[no-any-return]


def _ia3(config: Mapping[str, Any], modules: FileModules) -> Method:
    # a vector for inputs has the shape [1, width], one for outputs [width, 1]
    on_inputs = {site: (modules.shape(site, "l") or (0,))[0] == 1 for site in modules.tensors}
    inputs = dict.fromkeys(site.name for site, is_input in on_inputs.items() if is_input)
    if any(site.name in inputs and not is_input for site, is_input in on_inputs.items()):
        raise ValueError("feedforward_modules differ from layer to layer")
    return modules.with_file_targets(IA3(inputs=tuple(inputs)))  # type: ignore[no-any-return]


def _norms(config: Mapping[str, Any], modules: FileModules) -> Method:
    method: LayerNorm = modules.with_file_targets(LayerNorm())
    every = method.target_names(modules.facts)
    return (
        LayerNorm(leave_out=method.leave_out, without=method.without)
        if set(LayerNorm().target_names(modules.facts)) == set(every)
        else method
    )


def _virtual(config: Mapping[str, Any], modules: FileModules) -> Method:
    key = peft_virtual.KEY
    if key not in modules.unused_shapes:
        raise ValueError(f"its weights do not contain {key}")
    method, places = peft_virtual.read_method(config, modules.facts, modules.unused_shapes.pop(key))
    for (site, name), packed in places.items():
        modules.tensors.setdefault(site, {})[name] = TensorSlice(key, packed=packed)
    return method


READERS: dict[str, Callable[[Mapping[str, Any], FileModules], Method]] = {
    "LORA": _lora,
    "VERA": _vera,
    "IA3": _ia3,
    "LN_TUNING": _norms,
    **dict.fromkeys(peft_virtual.KINDS, _virtual),
}

_UNDERSTOOD = [
    *peft_virtual.KNOWN_KEYS,
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
"""The keys that are read, and those without an effect on a trained adapter."""

_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
"""The values of init_lora_weights that do not change the backbone's weights."""

_CONVERSION = "not saved with path_initial_model_for_weight_conversion"
"""The option with which PEFT saves such adapters as LoRAs on the original weights."""


def unsupported_settings(config: Mapping[str, Any], kind: str) -> Iterator[str]:
    """Yield the settings that change the computation in a way that is not supported."""
    for key in sorted(config):
        if key not in _UNDERSTOOD and config[key]:
            yield key
    if config.get("init_lora_weights") not in (
        *_STARTS,
        *(RESIDUAL_INITS if kind == "LORA" else ()),
    ):
        how = f"init_lora_weights={config['init_lora_weights']}"
        yield f"{how}, which changes the backbone, {_CONVERSION}"
    if config.get("bias", "none") not in ("none", *(_BIASES if kind == "LORA" else [])):
        yield f"bias={config['bias']}"
    if config.get("loftq_config"):
        yield "loftq_config"
