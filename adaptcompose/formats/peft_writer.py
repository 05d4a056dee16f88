"""Write adapters as PEFT writes them, so that `PeftModel.from_pretrained` loads them.

PEFT matches `target_modules` with the ends of paths, which are the same in a base model and a task
model, but keys of tensors with whole paths. So a file fits one class of models.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.formats import peft_virtual
from adaptcompose.formats.peft import CONFIG, WEIGHTS
from adaptcompose.formats.peft_modules import STEM, ModelClass
from adaptcompose.formats.tensors import write_tensors
from adaptcompose.methods import Method
from adaptcompose.methods.dora import Dora
from adaptcompose.methods.ia3 import IA3
from adaptcompose.methods.layernorm import LayerNorm
from adaptcompose.methods.lora import Lora
from adaptcompose.methods.method import SHARED_SITE
from adaptcompose.methods.targeted import TargetedMethod
from adaptcompose.methods.vera import Vera
from adaptcompose.storage.atomic import write_atomically

if TYPE_CHECKING:
    import torch

BASE_MODEL = ModelClass()
"""The base model without a head."""

_KINDS = {
    "A": "lora_A.weight",
    "B": "lora_B.weight",
    "B.bias": "lora_B.bias",
    "m": "lora_magnitude_vector",
    "bias": "base_layer.bias",
    "d": "vera_lambda_d",
    "b": "vera_lambda_b",
}
_LOOKUP = {"A": "lora_embedding_A", "B": "lora_embedding_B", "m": "lora_magnitude_vector"}
_NORM = {"weight": "ln_tuning_layers.weight", "bias": "ln_tuning_layers.bias"}


def can_write(method: Method, facts: Facts, within: ModelClass = BASE_MODEL) -> bool:
    """Whether PEFT can store a method with these settings for a class of models."""
    if not isinstance(method, TargetedMethod):
        return peft_virtual.can_write(method, facts)
    places = [facts.layout.sites[site.name] for site in method.sites(facts) if site != SHARED_SITE]
    if any(
        place.piece != (0, 1) or (place.is_outside_base and not within.vocabulary)
        for place in places
    ):
        return False
    if isinstance(method, Lora) and not _separate(method, facts, within):
        return False
    if (
        isinstance(method, Lora)
        and method.bias == "all"
        and method.sites(facts) != replace(method, leave_out=frozenset(), without=()).sites(facts)
    ):
        return False
    if isinstance(method, Dora):
        return method.norm == "paper" and not method.gate and method.bias != "own"
    if isinstance(method, Lora | IA3):
        return not method.gate and (isinstance(method, Lora) or method.scale == 1.0)
    if isinstance(method, Vera):
        return not method.matrices and method.scale == 1.0
    return isinstance(method, LayerNorm)


def _separate(method: Lora, facts: Facts, within: ModelClass) -> bool:
    """Whether PEFT can store each tensor of a LoRA without touching other modules.

    It has no bias of its own for embeddings. It finds modules that are saved whole by the ends of
    their paths, so none of them may end like that of another module.
    """
    kinds = {facts.layout.sites[site.name].kind for site in method.target_sites(facts)}
    paths = {within.module(site, facts) for site in facts.sites_of_kind("linear", "lookup", "norm")}
    own = {within.module(site, facts) for site in _whole(method, facts)}
    alike = any(other != path and other.endswith(path) for path in own for other in paths)
    return not alike and not ("lookup" in kinds and method.bias == "own")


def _whole(method: TargetedMethod, facts: Facts) -> list[Site]:
    """The sites at which a method replaces the whole weight."""
    names = method.whole if isinstance(method, Lora) else ()
    return [site for site in method.sites(facts) if site.name in names]


def write(
    folder: Path,
    method: Method,
    weights: Mapping[tuple[Site, str], torch.Tensor],
    facts: Facts,
    within: ModelClass = BASE_MODEL,
) -> None:
    """Write the two files of an adapter for a class of models."""
    assert can_write(method, facts, within)
    if isinstance(method, TargetedMethod):
        settings = _settings(method, facts, within)
        settings["target_modules"] = [_ending(s, facts, within) for s in method.target_sites(facts)]
        saved = [within.module(site, facts) for site in _whole(method, facts)]
        tensors = dict(_keyed(method, weights, facts, within))
        tensors |= {f"{STEM}{key}": tensor for key, tensor in within.head.items()}
    else:
        saved = []
        settings, tensors = peft_virtual.to_file(method, weights, facts)
        settings["task_type"] = within.task or "FEATURE_EXTRACTION"
        tensors |= {f"base_model.{key}": tensor for key, tensor in within.head.items()}
    saved += dict.fromkeys(key.partition(".")[0] for key in within.head)
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "auto_mapping": _mapping(within, facts),
        "base_model_name_or_path": facts.name or "",
        "inference_mode": True,
        "modules_to_save": saved or None,
        "peft_version": "0.21.2",
        "revision": None,
        "task_type": within.task,
    } | settings
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)
    write_atomically(folder / CONFIG, text)
    write_tensors(folder / WEIGHTS[0], tensors)


def _mapping(within: ModelClass, facts: Facts) -> dict[str, str] | None:
    """The `auto_mapping` of a class for whose task PEFT has no name."""
    if within.task is not None or not within.name:
        return None
    module = facts.model_type.replace("-", "_")
    library = f"transformers.models.{module}.modeling_{module}"
    return {"base_model_class": within.name, "parent_library": library}


def _ending(site: Site, facts: Facts, within: ModelClass) -> str:
    """The end of a module's path that all classes with the module share."""
    return facts.layout.path(site) or within.module(site, facts)


def _settings(method: TargetedMethod, facts: Facts, within: ModelClass) -> dict[str, Any]:
    if isinstance(method, Lora):
        return _lora(method, facts, within)
    if isinstance(method, IA3):
        inner = [s for s in method.target_sites(facts) if s.name in method.inputs]
        paths = [facts.layout.path(site) for site in inner]
        return {"peft_type": "IA3", "feedforward_modules": paths, "init_ia3_weights": True}
    if isinstance(method, Vera):
        own = {"r": method.rank, "projection_prng_key": method.seed, "d_initial": method.d}
        own |= {"save_projection": method.stored, "vera_dropout": method.dropout}
        return {"peft_type": "VERA", "bias": "none"} | own
    return {"peft_type": "LN_TUNING"}


def _lora(method: Lora, facts: Facts, within: ModelClass) -> dict[str, Any]:
    places = {_ending(site, facts, within): site for site in method.target_sites(facts)}
    ranks = {path: method.rank_at(site) for path, site in places.items()}
    alphas = {path: method.alpha_at(site) for path, site in places.items()}
    return {
        "peft_type": "LORA",
        "r": method.rank,
        "lora_alpha": method.alpha,
        "lora_dropout": method.dropout,
        "lora_bias": method.bias == "own",
        "bias": {"backbone": "lora_only", "all": "all"}.get(method.bias, "none"),
        "rank_pattern": {path: rank for path, rank in ranks.items() if rank != method.rank},
        "alpha_pattern": {path: alpha for path, alpha in alphas.items() if alpha != method.alpha},
        "use_rslora": method.rslora,
        "use_dora": isinstance(method, Dora),
        "fan_in_fan_out": False,
        "init_lora_weights": True,
    }


def _keyed(
    method: TargetedMethod,
    weights: Mapping[tuple[Site, str], torch.Tensor],
    facts: Facts,
    within: ModelClass,
) -> Iterator[tuple[str, torch.Tensor]]:
    whole = _whole(method, facts)
    for (site, name), tensor in weights.items():
        module = within.module(site, facts) if site != SHARED_SITE else ""
        if site == SHARED_SITE:
            yield f"base_model.vera_{name}", tensor
        elif site in whole:
            turned = name == "weight" and facts.is_transposed(site)
            yield f"{STEM}{module}.{name}", tensor.T.contiguous() if turned else tensor
        elif isinstance(method, IA3):
            yield f"{STEM}{module}.ia3_l", tensor.unsqueeze(0 if site.name in method.inputs else 1)
        else:
            yield f"{STEM}{module}.{_kind(method, site, name, facts)}", tensor


def _kind(method: TargetedMethod, site: Site, name: str, facts: Facts) -> str:
    """PEFT's name of a tensor, which follows the path of its module."""
    if facts.layout.sites[site.name].kind == "lookup":
        return _LOOKUP[name]
    if name == "bias" and site not in method.target_sites(facts):
        return name
    return (_NORM if isinstance(method, LayerNorm) else _KINDS)[name]
