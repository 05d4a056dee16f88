"""Read AdapterHub's adapters, heads and fusions, as all versions of `adapters` wrote them.

| object | configuration | weights |
|---|---|---|
| adapter | adapter_config.json | adapter.safetensors, pytorch_adapter.bin |
| head | head_config.json | model_head.safetensors, pytorch_model_head.bin |
| fusion | adapter_fusion_config.json | model_adapter_fusion.safetensors, pytorch_model_….bin |

Configurations are read without torch, weights by readers that build nothing but tensors
(tensors.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.diagnostics.codes import AC407, AC408, AC418
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed, Span
from adaptcompose.formats.adapterhub_versions import (
    may_lack_invertible,
    modern_config,
    modern_fusion,
    modern_key,
)
from adaptcompose.formats.stored_object import (
    StoredObject,
    check_base,
    check_finite,
    config_errors,
    read_document,
)
from adaptcompose.formats.tensors import read_shapes, read_tensors
from adaptcompose.formats.transformers_heads import flexible_config, renumber_slots, to_slots
from adaptcompose.methods import Method, registered_methods
from adaptcompose.methods.fusion import Fusion
from adaptcompose.methods.targeted import NATIVE_ARCHITECTURE

if TYPE_CHECKING:
    import torch

ADAPTER, HEAD, FUSION = "adapter_config.json", "head_config.json", "adapter_fusion_config.json"

WEIGHTS = {
    ADAPTER: ("adapter.safetensors", "pytorch_adapter.bin"),
    HEAD: ("model_head.safetensors", "pytorch_model_head.bin"),
    FUSION: ("model_adapter_fusion.safetensors", "pytorch_model_adapter_fusion.bin"),
}
_ALIAS = ".prefix_tuning.pool."  # `adapters` stores every prefix a second time in each layer
_LAYER = ".adapter_fusion_layer."
_INVERTIBLE = ".invertible_adapters."

T = TypeVar("T")


def read_config(
    folder: Path, file: str, title: str, span: Span | None = None
) -> StoredObject | None:
    """The object that a configuration file describes, or None if the folder has no such file.

    `file` is ADAPTER, HEAD or FUSION. Raises Failed with AC413 if the file is invalid.
    """
    document = read_document(folder, file, title, span)
    return None if document is None else to_stored_object(document, folder, file, title, span)


def to_stored_object(
    document: Mapping[str, Any], folder: Path, file: str, title: str, span: Span | None = None
) -> StoredObject:
    """The object that a document in `file` describes; Failed with AC413 if it is invalid."""
    name, backbone = document.get("name"), str(document.get("model_name") or "")
    name = name if isinstance(name, str) else ""
    stored = StoredObject(folder, title, name, {}, document, span, backbone)
    with config_errors(stored, file):
        return replace(stored, **_modernise(document, file))


def _modernise(document: Mapping[str, Any], file: str) -> dict[str, Any]:
    """`config`, and for fusions `document`, as the newest version would have written them."""
    if file == FUSION:
        document = modern_fusion(document)
        return {"config": document["config"], "document": document}
    if file == HEAD and (config := flexible_config(document)) is not None:
        return {"config": config}
    if file == ADAPTER and "config" in document:
        return {"config": modern_config(document)}
    config = document.get("config")
    return {"config": config if isinstance(config, dict) else {}}


def _unknown(stored: StoredObject, method: str) -> Diagnostic:
    known = ", ".join(sorted(registered_methods()))
    return AC407.at(stored.span, name=stored.title, method=method, known=known)


def read_method(stored: StoredObject, facts: Facts, keys: Collection[str] | None = None) -> Method:
    """The method of an adapter on a backbone.

    `keys` are the names of the tensors if the file of weights is not on this machine. Raises Failed
    with AC403 or AC408 for another backbone, AC407 for an unknown method, AC413 for invalid
    settings.
    """
    check_base(stored, facts)
    config = dict(stored.config)
    if may_lack_invertible(stored.document) and not any(
        _INVERTIBLE in f".{key}" for key in _names(stored, ADAPTER, keys)
    ):
        config |= {"inv_adapter": None, "inv_adapter_reduction_factor": None}
    families = dict.fromkeys(type(method) for method in registered_methods().values())
    with config_errors(stored, ADAPTER):
        for family in families:
            reader = getattr(family, "from_adapterhub", None)
            method = reader(config, facts) if reader else None
            if method is not None:
                assert isinstance(method, Method)
                return method
    raise Failed(_unknown(stored, family_label(stored.config)))


def family_label(config: Mapping[str, Any]) -> str:
    """The name of the method in a configuration.

    >>> family_label({"architecture": "union", "configs": [{"architecture": "lora"}, {}]})
    'a union of lora and an unknown method'
    """
    kind = config.get("architecture")
    if kind == NATIVE_ARCHITECTURE:
        return str(config.get("method") or "an unknown method")
    if kind == "union" and isinstance(config.get("configs"), list):
        inner = (family_label(c if isinstance(c, dict) else {}) for c in config["configs"])
        return f"a union of {' and '.join(inner)}"
    if config.get("phm_layer"):
        return "compacter"
    if kind is None and "reduction_factor" in config:
        is_unknown = config.get("inv_adapter") not in (None, "nice", "glow")
        return f"invertible parts of kind {config['inv_adapter']}" if is_unknown else "bottleneck"
    return str(kind or "an unknown method")


def read_fusion(stored: StoredObject, facts: Facts, keys: Collection[str] | None = None) -> Fusion:
    """The settings of a fusion, with the sites for which it has weights.

    `keys` are the names of the tensors if the file of weights is not on this machine.
    """
    check_base(stored, facts)
    stem = f"{_LAYER}{stored.name}."
    modules = {key.split(stem)[0] for key in _names(stored, FUSION, keys) if stem in key}
    prefixes = facts.layout.key_prefixes(facts.model_type)
    sites = tuple(
        site
        for site in facts.sublayer_sites()
        if modules & {f"{prefix}{facts.layout.adapterhub_path(site)}" for prefix in prefixes}
    )
    with config_errors(stored, FUSION):
        return Fusion.from_adapterhub(dict(stored.config), sites)


def _names(stored: StoredObject, kind: str, keys: Collection[str] | None) -> Collection[str]:
    """The names of the tensors in their modern form: `keys`, or those in the file."""
    if keys is None:
        path = weights_file(stored, kind)
        keys = read_shapes(path, f"{stored.title}: {path.name}")
    return {modern_key(key) for key in keys}


def weights_file(stored: StoredObject, kind: str) -> Path:
    """The safetensors file of an object, or else its pickle; Failed with AC418 without either."""
    for name in WEIGHTS[kind]:
        if (stored.folder / name).is_file():
            return stored.folder / name
    missing = " or ".join(WEIGHTS[kind])
    raise Failed(AC418.at(stored.span, name=stored.title, missing=missing))


def read_weights(
    stored: StoredObject, method: Method, facts: Facts, kind: str = ADAPTER
) -> dict[tuple[Site, str], torch.Tensor]:
    """The tensors of an adapter or a fusion by site and name, each of the shape in `method`.

    Raises Failed with AC408, AC413 or AC418 if they do not fit.
    """
    path = weights_file(stored, kind)
    tensors = _own_tensors(stored, read_tensors(path, f"{stored.title}: {path.name}"))
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    if wrong := list(shape_problems(stored, method, facts, shapes)):
        raise Failed(wrong)
    weights = {}
    for site, name, keys in _keys(method, stored.name, facts):
        whole = tensors[next(key for key in keys if key in tensors)]
        packed = method.packed_slice(name, site, facts)
        own = whole if packed is None else packed.extract(whole, method.tensors(site, facts)[name])
        weights[site, name] = own.clone()
    check_finite(stored, weights)
    return weights


def shape_problems(
    stored: StoredObject, method: Method, facts: Facts, shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[Diagnostic]:
    """Compare the shapes of the tensors in a file with those of a method.

    Yields AC418 for the first missing tensor. If none is missing, yields AC408 for the first one of
    another shape, or else for one that the configuration does not account for.
    """
    shapes = _own_tensors(stored, shapes)
    left, lacking, odd = {key: s for key, s in shapes.items() if _ALIAS not in key}, "", ""
    for site, name, keys in _keys(method, stored.name, facts):
        key = next((key for key in keys if key in shapes), None)
        packed = method.packed_slice(name, site, facts)
        expected = packed.shape if packed else method.tensors(site, facts)[name]
        if key is None:
            lacking = lacking or f"the tensor {keys[0]}"
        elif shapes[key] != expected:
            odd = (
                odd
                or f"{name} at {site} has shape {shapes[key]}, but the backbone needs {expected}"
            )
        for alias in keys:
            left.pop(alias, None)
    if lacking:
        yield AC418.at(stored.span, name=stored.title, missing=lacking)
    if not lacking and not odd and left:
        odd = f"its configuration does not account for the tensor {min(left)}"
    if odd:
        yield AC408.at(stored.span, name=stored.title, detail=odd)


def _own_tensors(stored: StoredObject, tensors: Mapping[str, T]) -> dict[str, T]:
    """The tensors by their modern keys, without those of other fusions in the same file.

    The file of a fusion of `a,b` may also have the tensors of one of `a,b,c`.
    """
    modern = {modern_key(key): value for key, value in tensors.items()}
    mine = f"{_LAYER}{stored.name}."
    return {key: value for key, value in modern.items() if _LAYER not in key or mine in key}


def _keys(method: Method, name: str, facts: Facts) -> Iterator[tuple[Site, str, list[str]]]:
    """Every tensor with its possible keys: with or without the attribute of the base model."""
    stems = facts.layout.key_prefixes(facts.model_type)
    for site in method.sites(facts):
        for tensor, keys in method.adapterhub_keys(name, site, facts).items():
            yield site, tensor, [f"{stem}{key}" for key in keys for stem in stems]


def read_head(stored: StoredObject) -> dict[str, torch.Tensor]:
    """The tensors of a head by slot of the flexible head: `1.weight`, …"""
    path = weights_file(stored, HEAD)
    stem = f"heads.{stored.name}."
    tensors = read_tensors(path, f"{stored.title}: {path.name}")
    if flexible_config(stored.document) is not None:
        slots = dict(to_slots(str(stored.document["model_class"]), tensors))
    else:
        slots = {key[len(stem) :]: t for key, t in tensors.items() if key.startswith(stem)}
    return {key: t.clone() for key, t in renumber_slots(stored.config, slots).items()}
