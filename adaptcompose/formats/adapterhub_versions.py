"""Convert configurations and keys of all versions of AdapterHub to the newest form.

| years | `version` | peculiarities |
|---|---|---|
| 2020 | absent | `type`; nested `invertible_adapter`; keys like `layer_text_task_adapters` |
| 2020, 2021 | absent | `gelu` means the tanh approximation |
| to 2023 | absent, `3.x.y` | fusions without `dropout_prob` and `adapter_names` |
| to 2023 | absent, `3.x.y` | slots of heads not counted where dropout was 0 |
| 2023, 2024 | `0.x.y`, `adapters.1.0.x` | LoRA scaled by 1 whatever `alpha` said |
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Any

_ACTIVATIONS = {"gelu": "gelu_new", "gelu_orig": "gelu"}
"""The names of activations before 3.0, and their names today."""

_KEYS = {
    "attention_text_task_adapters": "adapters",
    "attention_text_lang_adapters": "adapters",
    "layer_text_task_adapters": "adapters",
    "layer_text_lang_adapters": "adapters",
    "invertible_lang_adapters": "invertible_adapters",
}

_BOTTLENECK = {
    "mh_adapter": False,
    "output_adapter": True,
    "original_ln_before": True,
    "non_linearity": "relu",
    "reduction_factor": 16,
}
_HOULSBY = _BOTTLENECK | {
    "mh_adapter": True,
    "original_ln_before": False,
    "non_linearity": "swish",
}
_NICE = {"inv_adapter": "nice", "inv_adapter_reduction_factor": 2}
_PARALLEL = _BOTTLENECK | {
    "original_ln_before": False,
    "is_parallel": True,
    "reduction_factor": 2,
    "init_weights": "mam_adapter",
    "scaling": 4.0,
}
_PHM = {"phm_layer": True, "non_linearity": "gelu", "reduction_factor": 32}
_PREFIX = {"architecture": "prefix_tuning", "prefix_length": 30, "bottleneck_size": 512}
_LORA = {"architecture": "lora", "r": 8, "alpha": 8}
_IA3 = {"r": 1, "alpha": 1, "composition_mode": "scale", "init_weights": "ia3"}
_GATED: dict[str, Any] = {"use_gating": True}

NAMED: dict[str, dict[str, Any]] = {
    "seq_bn": _BOTTLENECK,
    "pfeiffer": _BOTTLENECK,
    "seq_bn_inv": _BOTTLENECK | _NICE,
    "pfeiffer+inv": _BOTTLENECK | _NICE,
    "double_seq_bn": _HOULSBY,
    "houlsby": _HOULSBY,
    "double_seq_bn_inv": _HOULSBY | _NICE,
    "houlsby+inv": _HOULSBY | _NICE,
    "par_bn": _PARALLEL,
    "parallel": _PARALLEL,
    "scaled_par_bn": _PARALLEL | {"scaling": "learned"},
    "scaled_parallel": _PARALLEL | {"scaling": "learned"},
    "compacter": _HOULSBY | _PHM,
    "compacter++": _BOTTLENECK | _PHM,
    "prefix_tuning": _PREFIX,
    "prefix_tuning_flat": _PREFIX | {"flat": True},
    "prompt_tuning": {"architecture": "prompt_tuning", "prompt_length": 10},
    "lora": _LORA,
    "ia3": _LORA | _IA3 | {"attn_matrices": ["k", "v"], "intermediate_lora": True},
    "dora": _LORA | {"use_dora": True},
    "vera": _LORA | {"vera_d": 0.1, "vera_b": 0.0},
    "dvora": _LORA | {"use_dora": True, "vera_d": 0.1, "vera_b": 0.0},
    "mam": {
        "architecture": "union",
        "configs": [_PREFIX | {"bottleneck_size": 800}, _PARALLEL],
    },
    "unipelt": {
        "architecture": "union",
        "configs": [
            _PREFIX | _GATED | {"prefix_length": 10},
            _BOTTLENECK | _GATED,
            _LORA | _GATED | {"alpha": 2},
        ],
    },
}
"""The configurations that a file may name instead of listing settings; others are defaults."""

_LONGEST_NAME = 2000
_NAME = re.compile(r"([^\[\]|]+)(?:\[(.*)\])?")


def modern_config(outer: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the method in adapter_config.json; ValueError for an unknown configuration.

    >>> modern_config({"config": "pfeiffer[reduction_factor=4]"})["reduction_factor"]
    4
    """
    config = outer.get("config")
    if config is None:
        return dict(_BOTTLENECK)
    if isinstance(config, str):
        return _named(config)
    if not isinstance(config, Mapping):
        raise ValueError("config is not a mapping")
    config = dict(config)
    if "version" not in outer:
        _rename_activation(config)
    if "invertible_adapter" in config:
        _flatten_invertible(config, renamed="version" not in outer)
    return _with_unit_scale(config) if _ignored_alpha(str(outer.get("version"))) else config


def _with_unit_scale(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with alpha = r for every LoRA, so that its factor alpha / r is 1."""
    inner = config.get("configs")
    if isinstance(inner, list):
        return {**config, "configs": [_with_unit_scale(dict(settings)) for settings in inner]}
    lora = config.get("architecture") == "lora"
    return {**config, "alpha": config.get("r")} if lora else dict(config)


def may_lack_invertible(outer: Mapping[str, Any]) -> bool:
    """Whether a configuration declares an invertible part that its file may not have.

    Task adapters of 2020 declare the part of the language adapter that they were trained on. Only
    the tensors in the file show whether they have one.
    """
    config = outer.get("config")
    declared = config.get("invertible_adapter") if isinstance(config, Mapping) else None
    return outer.get("type") == "text_task" and isinstance(declared, Mapping)


def unusual_settings(outer: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is unusual about an adapter_config.json, as verb phrases for the user."""
    config, version = outer.get("config"), outer.get("version")
    if config is None:
        if "config" in outer:
            yield "has no configuration, so it uses AdapterHub's default, seq_bn"
        return
    if isinstance(config, str):
        yield f"names its configuration: {config}"
        return
    if version is None:
        yield "has no version, so it was written before 2022"
        if config.get("non_linearity") in _ACTIVATIONS:
            name = config["non_linearity"]
            yield f"has the activation {name}, which then meant {_ACTIVATIONS[name]}"
    if may_lack_invertible(outer):
        yield "declares an invertible part, which task adapters of 2020 seldom have"
    if config.get("architecture") == "lora" and _ignored_alpha(str(version)):
        yield f"has alpha {config.get('alpha')}, which its version ignored"


def modern_key(key: str) -> str:
    """The key of a tensor in files since 2021.

    >>> modern_key("bert.encoder.layer.0.output.layer_text_task_adapters.sst.adapter_up.bias")
    'bert.encoder.layer.0.output.adapters.sst.adapter_up.bias'
    """
    return ".".join(_KEYS.get(word, word) for word in key.split("."))


def modern_fusion(outer: Mapping[str, Any]) -> dict[str, Any]:
    """The document of a fusion with its settings as a mapping and the names of its members."""
    config, name = outer.get("config"), outer.get("name")
    if not isinstance(config, Mapping):
        plain = {"value": False, "regularization": False, "value_initialized": False}
        config = plain if config == "static" else {}
    document = {**outer, "config": config}
    if document.get("adapter_names") is None and isinstance(name, str) and "," in name:
        document["adapter_names"] = name.split(",")
    return document


def _named(text: str) -> dict[str, Any]:
    """The settings of a named configuration: `pfeiffer`, `lora[r=16]`, or several joined by `|`."""
    if len(text) > _LONGEST_NAME:
        raise ValueError("the name of its configuration is too long")
    configs = []
    for part in _split(text, "|"):
        match = _NAME.fullmatch(part.strip())
        if match is None or match[1] not in NAMED:
            raise ValueError(f"there is no configuration called {text!r}")
        settings = dict(_setting(pair) for pair in _split(match[2] or "", ","))
        configs.append(NAMED[match[1]] | settings)
    return configs[0] if len(configs) == 1 else {"architecture": "union", "configs": configs}


def _split(text: str, mark: str) -> list[str]:
    """The parts of a text between marks outside brackets."""
    pieces, depth = [""], 0
    for char in text:
        depth += (char in "[({") - (char in "])}")
        if char == mark and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += char
    return [piece for piece in pieces if piece.strip()]


def _setting(pair: str) -> tuple[str, Any]:
    key, _, value = pair.partition("=")
    try:
        return key.strip(), ast.literal_eval(value.strip())
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ValueError(f"`{pair}` is not a setting") from None


def _rename_activation(config: dict[str, Any]) -> None:
    name = config.get("non_linearity")
    if isinstance(name, str) and name in _ACTIVATIONS:
        config["non_linearity"] = _ACTIVATIONS[name]


def _flatten_invertible(config: dict[str, Any], *, renamed: bool) -> None:
    """Move the nested settings of 2020 to the top level, in place.

    The activation of the invertible part is recorded only if it differs from the adapter's.
    """
    nested = config.pop("invertible_adapter")
    if not isinstance(nested, Mapping):
        return
    own = dict(nested)
    if renamed:
        _rename_activation(own)
    config["inv_adapter"] = own.get("block_type")
    config["inv_adapter_reduction_factor"] = own.get("reduction_factor")
    activation = own.get("non_linearity")
    if activation is not None and activation != config.get("non_linearity"):
        config["inv_adapter_non_linearity"] = activation


def _ignored_alpha(version: str) -> bool:
    """Whether a version of `adapters` ignored alpha and scaled LoRA by 1.

    >>> [_ignored_alpha(version) for version in ("0.2.1", "adapters.1.0.1", "adapters.1.1.0.dev0")]
    [True, True, True]
    >>> [_ignored_alpha(version) for version in ("3.2.1", "adapters.1.1.0")]
    [False, False]
    """
    match = re.fullmatch(r"(?:adapters\.)?(\d+)\.(\d+)(.*)", version)
    if match is None:
        return False
    numbers = int(match[1]), int(match[2])
    return numbers < (1, 1) or (numbers == (1, 1) and "dev" in match[3])
