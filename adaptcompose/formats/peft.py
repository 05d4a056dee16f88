"""PEFT's folders: adapter_config.json with a `peft_type`, adapter_model.safetensors or .bin.

Which modules an adapter has weights for is read from the names of its tensors, not from the
patterns of its configuration: what is not in the file does nothing. Only `alpha_pattern` is run,
on those names, and only regular expressions that cannot take long. Tensors are named
`base_model.model.<path in the class>.<kind>`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.diagnostics.codes import AC407, AC408, AC418
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed, Span
from adaptcompose.formats import peft_heads
from adaptcompose.formats.peft_heads import StoredHead
from adaptcompose.formats.peft_modules import (
    PROJECTION,
    STEM,
    FileModules,
    TensorSlice,
    enclosing_modules,
)
from adaptcompose.formats.peft_settings import (
    READERS,
    RESIDUAL_INITS,
    UnsupportedError,
    unsupported_settings,
)
from adaptcompose.formats.stored_object import (
    StoredObject,
    check_base,
    check_finite,
    config_errors,
)
from adaptcompose.formats.tensors import Shapes, read_tensors
from adaptcompose.methods import Method
from adaptcompose.methods.method import SHARED_SITE

if TYPE_CHECKING:
    import torch

CONFIG = "adapter_config.json"
"""The name of AdapterHub's file, too; `is_peft` tells them apart."""

WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")

TensorId = tuple[Site, str]


@dataclass(frozen=True)
class Contents:
    """What a folder holds: the method, where its tensors are, and the head beside it.

    `copies` are the keys of matrices that are the backbone's own.
    """

    method: Method
    tensors: Mapping[TensorId, TensorSlice]
    head: StoredHead
    backbone_copies: Mapping[Site, str] = field(default_factory=dict)


def is_peft(document: Mapping[str, Any]) -> bool:
    """Whether an adapter_config.json is PEFT's."""
    return "peft_type" in document


def to_stored_object(
    document: Mapping[str, Any], folder: Path, title: str, span: Span | None = None
) -> StoredObject:
    """The adapter that PEFT's adapter_config.json describes; its keys contain no name."""
    backbone = str(document.get("base_model_name_or_path") or "")
    return StoredObject(folder, title, "", {}, document, span, backbone)


def read_contents(found: StoredObject, facts: Facts, shapes: Shapes) -> Contents:
    """The contents of a folder on this backbone; AC403, AC407, AC408, AC413 or AC418 if none."""
    check_base(found, facts)
    kind = str(found.document.get("peft_type")).rpartition(".")[2].upper()
    if kind not in READERS:
        raise Failed(unsupported_diagnostic(found, f"PEFT's {kind}"))
    with config_errors(found, CONFIG):
        for key in unsupported_settings(found.document, kind):
            raise Failed(unsupported_diagnostic(found, f"PEFT's {kind} with {key}"))
        biases = found.document.get("bias") == "all"
        modules = FileModules.from_shapes(facts, shapes, _saved(found.document), biases=biases)
        for what in _unsupported_changes(found.document, kind, modules):
            raise Failed(unsupported_diagnostic(found, what))
        try:
            method = READERS[kind](found.document, modules)
        except UnsupportedError as error:
            raise Failed(unsupported_diagnostic(found, f"PEFT's {kind} with {error}")) from None
    head = peft_heads.find(found.document, facts, modules.unused_shapes)
    for key in head.slots.values():
        modules.unused_shapes.pop(key)
    for what in _unsupported_modules(found.document, modules.unused_shapes):
        raise Failed(unsupported_diagnostic(found, f"PEFT's {kind} with {what}"))
    tensors = _tensors(method, modules, facts)
    if resized := list(_resize_problems(found, modules)):
        raise Failed(resized)
    if wrong := list(_misfits(found, method, tensors, modules, facts)):
        raise Failed(wrong)
    return Contents(method, tensors, head, modules.backbone_copies)


def _unsupported_changes(
    config: Mapping[str, Any], kind: str, modules: FileModules
) -> Iterator[str]:
    """What else a file may change that no method of ours does."""
    if config.get("ensure_weight_tying") and modules.has_tied_map:
        yield f"PEFT's {kind} with ensure_weight_tying"
    if modules.whole_tensors and kind != "LORA":
        yield f"PEFT's {kind} with modules_to_save={min(modules.whole_tensors)}"
    if modules.unknown_module is not None:
        yield f"weights for {modules.unknown_module}"


def unsupported_diagnostic(found: StoredObject, method: str) -> Diagnostic:
    """AC407 with all that can be read."""
    known = f"{', '.join(READERS)} of PEFT, or any method of AdapterHub"
    return AC407.at(found.span, name=found.title, method=method, known=known)


def _tensors(method: Method, modules: FileModules, facts: Facts) -> dict[TensorId, TensorSlice]:
    found = {
        (site, name): tensor
        for part in (modules.tensors, modules.whole_tensors)
        for site, tensors in part.items()
        for name, tensor in tensors.items()
    }
    if SHARED_SITE in method.sites(facts):
        found |= {(SHARED_SITE, name): TensorSlice(key) for name, key in PROJECTION.items()}
    return found


def _misfits(
    found: StoredObject,
    method: Method,
    tensors: Mapping[TensorId, TensorSlice],
    modules: FileModules,
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
        shape, wanted = (
            tensor.unpacked_shape(modules.shapes[tensor.key]),
            expected.get((site, name)),
        )
        if wanted is None:
            modules.unused_shapes[tensor.key] = shape
        elif shape != wanted and not (prod(shape) == prod(wanted) and len(wanted) == 1):
            detail = f"{name} at {site} has shape {shape}, but the backbone needs {wanted}"
            yield AC408.at(found.span, name=found.title, detail=detail)
            return
    if modules.unused_shapes:
        detail = f"its configuration does not account for the tensor {min(modules.unused_shapes)}"
        yield AC408.at(found.span, name=found.title, detail=detail)


def _unsupported_modules(
    config: Mapping[str, Any], left: Mapping[str, tuple[int, ...]]
) -> Iterator[str]:
    """What PEFT's files may have of modules other than heads."""
    for key in sorted(left):
        module, _, _ = key.removeprefix(STEM).rpartition(".")
        yield from (f"modules_to_save={name}" for name in enclosing_modules(module, _saved(config)))


def _saved(config: Mapping[str, Any]) -> list[str]:
    """The names of modules of which a file has all."""
    names = config.get("modules_to_save")
    return [n for n in names if isinstance(n, str)] if isinstance(names, list) else []


def _resize_problems(found: StoredObject, modules: FileModules) -> Iterator[Diagnostic]:
    """AC408 where a file is of embeddings with another number of tokens, or of another width."""
    for key, expected in modules.vocabulary_matrices():
        stored = modules.shapes[key]
        if len(stored) == 2 and stored[0] != expected[0]:
            detail = f"{key} has {stored[0]} tokens, but the backbone has {expected[0]}"
            help = f"use a backbone saved after `model.resize_token_embeddings({stored[0]})`"
            yield AC408.at(found.span, name=found.title, detail=detail, help=help)
            return
        if stored != expected:
            detail = f"{key} has shape {stored}, but the backbone needs {expected}"
            yield AC408.at(found.span, name=found.title, detail=detail)
            return


def read_weights(
    found: StoredObject, contents: Contents, facts: Facts
) -> dict[TensorId, torch.Tensor]:
    """The tensors of an adapter by site and name, each of the expected shape."""
    stored = read_file(found)
    weights = {}
    for (site, name), place in contents.tensors.items():
        tensor = stored[place.key]
        number, count = place.piece
        if count > 1:
            tensor = tensor.chunk(count)[number]
        tensor = tensor.T if place.transposed else tensor
        if place.halved_axis is not None:
            tensor = _with_zeros(tensor, place.halved_axis)
        shape = contents.method.tensors(site, facts)[name]
        tensor = tensor if place.packed is None else place.packed.extract(tensor, shape)
        weights[site, name] = tensor.reshape(shape).clone()
    check_finite(found, weights)
    return weights


def _with_zeros(tensor: torch.Tensor, axis: int) -> torch.Tensor:
    import torch

    return torch.cat([tensor, torch.zeros_like(tensor)], dim=axis)


def residual_init_kind(found: StoredObject) -> str | None:
    """How factors began whose other half is to be made from the backbone's weights."""
    kind = found.document.get("init_lora_weights")
    return str(kind) if kind in RESIDUAL_INITS else None


def read_head(found: StoredObject, contents: Contents) -> dict[str, torch.Tensor]:
    """The tensors of the head by slot: `1.weight`, …"""
    stored = read_file(found)
    return {slot: stored[key].clone() for slot, key in contents.head.slots.items()}


def read_backbone_copies(found: StoredObject, contents: Contents) -> dict[Site, torch.Tensor]:
    """What the file has of the backbone's own matrices, as they are stored."""
    stored = read_file(found) if contents.backbone_copies else {}
    return {site: stored[key] for site, key in contents.backbone_copies.items()}


def read_file(found: StoredObject) -> dict[str, torch.Tensor]:
    """Everything in the file of weights."""
    for name in WEIGHTS:
        if (found.folder / name).is_file():
            return read_tensors(found.folder / name, f"{found.title}: {name}")
    missing = " or ".join(WEIGHTS)
    raise Failed(AC418.at(found.span, name=found.title, missing=missing))
