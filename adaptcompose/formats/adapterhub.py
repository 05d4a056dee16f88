"""AdapterHub's folders: adapter, head and fusion, as `adapters` of every year wrote them.

| object | configuration | weights |
|---|---|---|
| adapter | adapter_config.json | adapter.safetensors, pytorch_adapter.bin |
| head | head_config.json | model_head.safetensors, pytorch_model_head.bin |
| fusion | adapter_fusion_config.json | model_adapter_fusion.safetensors, pytorch_model_….bin |

Configurations are read without torch; weights through the tensors-only readers. Nothing that a
file says becomes a path, a module or an import.
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
_ALIAS = ".prefix_tuning.pool."  # under which the peer stores a prefix once more in every layer
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


def _unknown(found: StoredObject, method: str) -> Diagnostic:
    known = ", ".join(sorted(registered_methods()))
    return AC407.at(found.span, name=found.title, method=method, known=known)


def read_method(found: StoredObject, facts: Facts, keys: Collection[str] | None = None) -> Method:
    """The method that a configuration means on this backbone; AC403, AC407, AC408 if none.

    `keys` are the names of the tensors in its file, where that file is not on this machine.
    """
    check_base(found, facts)
    config = dict(found.config)
    if may_lack_invertible(found.document) and not any(
        _INVERTIBLE in f".{key}" for key in _names(found, ADAPTER, keys)
    ):
        config |= {"inv_adapter": None, "inv_adapter_reduction_factor": None}
    families = dict.fromkeys(type(method) for method in registered_methods().values())
    with config_errors(found, ADAPTER):
        for family in families:
            reader = getattr(family, "from_adapterhub", None)
            method = reader(config, facts) if reader else None
            if method is not None:
                assert isinstance(method, Method)
                return method
    raise Failed(_unknown(found, family_label(found.config)))


def family_label(config: Mapping[str, Any]) -> str:
    """What a configuration calls its method.

    >>> family_label({"architecture": "union", "configs": [{"architecture": "lora"}, {}]})
    'a union of lora and an unknown method'
    """
    kind = config.get("architecture")
    if kind == NATIVE_ARCHITECTURE:
        return str(config.get("method") or "an unknown method")
    if kind == "union" and isinstance(config.get("configs"), list):
        inner = (family_label(one if isinstance(one, dict) else {}) for one in config["configs"])
        return f"a union of {' and '.join(inner)}"
    if config.get("phm_layer"):
        return "compacter"
    if kind is None and "reduction_factor" in config:
        odd = config.get("inv_adapter") not in (None, "nice", "glow")
        return f"invertible parts of kind {config['inv_adapter']}" if odd else "bottleneck"
    return str(kind or "an unknown method")


def read_fusion(found: StoredObject, facts: Facts, keys: Collection[str] | None = None) -> Fusion:
    """The settings of a fusion, with the sites that its weights cover.

    `keys` are the names of the tensors in its file, where that file is not on this machine.
    """
    check_base(found, facts)
    stem = f"{_LAYER}{found.name}."
    places = {key.split(stem)[0] for key in _names(found, FUSION, keys) if stem in key}
    stems = facts.layout.key_prefixes(facts.model_type)
    at = tuple(
        site
        for site in facts.sublayer_sites()
        if places & {f"{stem}{facts.layout.adapterhub_path(site)}" for stem in stems}
    )
    with config_errors(found, FUSION):
        return Fusion.from_adapterhub(dict(found.config), at)


def _names(found: StoredObject, kind: str, keys: Collection[str] | None) -> Collection[str]:
    """The modern names of the tensors in a file: those given, or those of the file here."""
    if keys is None:
        path = weights_file(found, kind)
        keys = read_shapes(path, f"{found.title}: {path.name}")
    return {modern_key(key) for key in keys}


def weights_file(found: StoredObject, kind: str) -> Path:
    """Safetensors if there are any, else the pickle."""
    for name in WEIGHTS[kind]:
        if (found.folder / name).is_file():
            return found.folder / name
    missing = " or ".join(WEIGHTS[kind])
    raise Failed(AC418.at(found.span, name=found.title, missing=missing))


def read_weights(
    found: StoredObject, method: Method, facts: Facts, kind: str = ADAPTER
) -> dict[tuple[Site, str], torch.Tensor]:
    """The tensors of an adapter or a fusion by site and name, each of the expected shape."""
    path = weights_file(found, kind)
    stored = _own_tensors(found, read_tensors(path, f"{found.title}: {path.name}"))
    shapes = {key: tuple(tensor.shape) for key, tensor in stored.items()}
    if wrong := list(shape_problems(found, method, facts, shapes)):
        raise Failed(wrong)
    weights = {}
    for site, name, keys in _keys(method, found.name, facts):
        whole = stored[next(key for key in keys if key in stored)]
        packed = method.packed_slice(name, site, facts)
        own = whole if packed is None else packed.extract(whole, method.tensors(site, facts)[name])
        weights[site, name] = own.clone()
    check_finite(found, weights)
    return weights


def shape_problems(
    found: StoredObject, method: Method, facts: Facts, shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[Diagnostic]:
    """What is wrong with the weights of an adapter or a fusion as far as shapes tell.

    AC418 for the first tensor that is missing, AC408 for the first one of another shape and for
    the first one that the configuration does not explain.
    """
    shapes = _own_tensors(found, shapes)
    left, lacking, odd = {key: s for key, s in shapes.items() if _ALIAS not in key}, "", ""
    for site, name, keys in _keys(method, found.name, facts):
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
        yield AC418.at(found.span, name=found.title, missing=lacking)
    if not lacking and not odd and left:
        odd = f"its configuration does not account for the tensor {min(left)}"
    if odd:
        yield AC408.at(found.span, name=found.title, detail=odd)


def _own_tensors(found: StoredObject, stored: Mapping[str, T]) -> dict[str, T]:
    """Tensors by their modern keys; those of a fusion whose name only begins alike are not ours."""
    modern = {modern_key(key): value for key, value in stored.items()}
    mine = f"{_LAYER}{found.name}."
    return {key: value for key, value in modern.items() if _LAYER not in key or mine in key}


def _keys(method: Method, name: str, facts: Facts) -> Iterator[tuple[Site, str, list[str]]]:
    """Every tensor with the keys it may have: with or without the base model's attribute."""
    stems = facts.layout.key_prefixes(facts.model_type)
    for site in method.sites(facts):
        for tensor, keys in method.adapterhub_keys(name, site, facts).items():
            yield site, tensor, [f"{stem}{key}" for key in keys for stem in stems]


def read_head(found: StoredObject) -> dict[str, torch.Tensor]:
    """The tensors of a head by slot: `1.weight`, …"""
    path = weights_file(found, HEAD)
    stem = f"heads.{found.name}."
    stored = read_tensors(path, f"{found.title}: {path.name}")
    if flexible_config(found.document) is not None:
        slots = dict(to_slots(str(found.document["model_class"]), stored))
    else:
        slots = {key[len(stem) :]: t for key, t in stored.items() if key.startswith(stem)}
    return {key: t.clone() for key, t in renumber_slots(found.config, slots).items()}
