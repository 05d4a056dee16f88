"""Read PEFT's adapters: adapter_config.json with a `peft_type`, adapter_model.safetensors or .bin.

The names of the tensors show which modules an adapter changes; the patterns of the configuration
are ignored, since a module without tensors is not changed. Only `alpha_pattern` is matched, with
those names, and only if its regular expressions cannot take long. Tensors are named
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
from adaptcompose.formats.stored_object import StoredObject, check_base, check_finite, config_errors
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
    """The content of a folder: the method, the places of its tensors in the file, and the head.

    `backbone_copies` are the keys of matrices that are copies of the backbone's own.
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


def read_contents(stored: StoredObject, facts: Facts, shapes: Shapes) -> Contents:
    """The content of a folder on a backbone, with the shapes of the tensors in its file.

    Raises Failed with AC403, AC407, AC408, AC413 or AC418 if it does not fit.
    """
    check_base(stored, facts)
    kind = str(stored.document.get("peft_type")).rpartition(".")[2].upper()
    if kind not in READERS:
        raise Failed(unsupported_diagnostic(stored, f"PEFT's {kind}"))
    with config_errors(stored, CONFIG):
        for key in unsupported_settings(stored.document, kind):
            raise Failed(unsupported_diagnostic(stored, f"PEFT's {kind} with {key}"))
        biases = stored.document.get("bias") == "all"
        modules = FileModules.from_shapes(facts, shapes, _saved(stored.document), biases=biases)
        for what in _unsupported_changes(stored.document, kind, modules):
            raise Failed(unsupported_diagnostic(stored, what))
        try:
            method = READERS[kind](stored.document, modules)
        except UnsupportedError as error:
            raise Failed(unsupported_diagnostic(stored, f"PEFT's {kind} with {error}")) from None
    head = peft_heads.find(stored.document, facts, modules.unused_shapes)
    for key in head.slots.values():
        modules.unused_shapes.pop(key)
    for what in _unsupported_modules(stored.document, modules.unused_shapes):
        raise Failed(unsupported_diagnostic(stored, f"PEFT's {kind} with {what}"))
    tensors = _tensors(method, modules, facts)
    if resized := list(_resize_problems(stored, modules)):
        raise Failed(resized)
    if wrong := list(_misfits(stored, method, tensors, modules, facts)):
        raise Failed(wrong)
    return Contents(method, tensors, head, modules.backbone_copies)


def _unsupported_changes(
    config: Mapping[str, Any], kind: str, modules: FileModules
) -> Iterator[str]:
    """Changes of the backbone in a file that no method here can make."""
    if config.get("ensure_weight_tying") and modules.has_tied_map:
        yield f"PEFT's {kind} with ensure_weight_tying"
    if modules.whole_tensors and kind != "LORA":
        yield f"PEFT's {kind} with modules_to_save={min(modules.whole_tensors)}"
    if modules.unknown_module is not None:
        yield f"weights for {modules.unknown_module}"


def unsupported_diagnostic(stored: StoredObject, method: str) -> Diagnostic:
    """AC407 with the methods that are supported."""
    known = f"{', '.join(READERS)} of PEFT, or any method of AdapterHub"
    return AC407.at(stored.span, name=stored.title, method=method, known=known)


def _tensors(method: Method, modules: FileModules, facts: Facts) -> dict[TensorId, TensorSlice]:
    slices = {
        (site, name): tensor
        for part in (modules.tensors, modules.whole_tensors)
        for site, tensors in part.items()
        for name, tensor in tensors.items()
    }
    if SHARED_SITE in method.sites(facts):
        slices |= {(SHARED_SITE, name): TensorSlice(key) for name, key in PROJECTION.items()}
    return slices


def _misfits(
    stored: StoredObject,
    method: Method,
    tensors: Mapping[TensorId, TensorSlice],
    modules: FileModules,
    facts: Facts,
) -> Iterator[Diagnostic]:
    """Compare the tensors of a file with those of a method: the first problem of each kind.

    AC418 for a missing tensor, AC408 for one of another shape or without a meaning.
    """
    expected = {
        (site, name): shape
        for site in method.sites(facts)
        for name, shape in method.tensors(site, facts).items()
    }
    lacking = [f"{name} at {site}" for site, name in expected if (site, name) not in tensors]
    if lacking:
        yield AC418.at(stored.span, name=stored.title, missing=lacking[0])
    for (site, name), tensor in tensors.items():
        shape, wanted = (
            tensor.unpacked_shape(modules.shapes[tensor.key]),
            expected.get((site, name)),
        )
        if wanted is None:
            modules.unused_shapes[tensor.key] = shape
        elif shape != wanted and not (prod(shape) == prod(wanted) and len(wanted) == 1):
            detail = f"{name} at {site} has shape {shape}, but the backbone needs {wanted}"
            yield AC408.at(stored.span, name=stored.title, detail=detail)
            return
    if modules.unused_shapes:
        detail = f"its configuration does not account for the tensor {min(modules.unused_shapes)}"
        yield AC408.at(stored.span, name=stored.title, detail=detail)


def _unsupported_modules(
    config: Mapping[str, Any], left: Mapping[str, tuple[int, ...]]
) -> Iterator[str]:
    """The modules other than heads that a file has whole copies of."""
    for key in sorted(left):
        module, _, _ = key.removeprefix(STEM).rpartition(".")
        yield from (f"modules_to_save={name}" for name in enclosing_modules(module, _saved(config)))


def _saved(config: Mapping[str, Any]) -> list[str]:
    """The names of the modules that a file has whole copies of."""
    names = config.get("modules_to_save")
    return [n for n in names if isinstance(n, str)] if isinstance(names, list) else []


def _resize_problems(stored: StoredObject, modules: FileModules) -> Iterator[Diagnostic]:
    """AC408 if a file has embeddings with another number of tokens or of another width."""
    for key, expected in modules.vocabulary_matrices():
        shape = modules.shapes[key]
        if len(shape) == 2 and shape[0] != expected[0]:
            detail = f"{key} has {shape[0]} tokens, but the backbone has {expected[0]}"
            help = f"use a backbone saved after `model.resize_token_embeddings({shape[0]})`"
            yield AC408.at(stored.span, name=stored.title, detail=detail, help=help)
            return
        if shape != expected:
            detail = f"{key} has shape {shape}, but the backbone needs {expected}"
            yield AC408.at(stored.span, name=stored.title, detail=detail)
            return


def read_weights(
    stored: StoredObject, contents: Contents, facts: Facts
) -> dict[TensorId, torch.Tensor]:
    """The tensors of an adapter by site and name, each of the shape in its method."""
    tensors = read_file(stored)
    weights = {}
    for (site, name), place in contents.tensors.items():
        tensor = tensors[place.key]
        number, count = place.piece
        if count > 1:
            tensor = tensor.chunk(count)[number]
        tensor = tensor.T if place.transposed else tensor
        if place.halved_axis is not None:
            tensor = _with_zeros(tensor, place.halved_axis)
        shape = contents.method.tensors(site, facts)[name]
        tensor = tensor if place.packed is None else place.packed.extract(tensor, shape)
        weights[site, name] = tensor.reshape(shape).clone()
    check_finite(stored, weights)
    return weights


def _with_zeros(tensor: torch.Tensor, axis: int) -> torch.Tensor:
    import torch

    return torch.cat([tensor, torch.zeros_like(tensor)], dim=axis)


def residual_init_kind(stored: StoredObject) -> str | None:
    """The initialisation if half of the factors has to be computed from the backbone's weights."""
    kind = stored.document.get("init_lora_weights")
    return str(kind) if kind in RESIDUAL_INITS else None


def read_head(stored: StoredObject, contents: Contents) -> dict[str, torch.Tensor]:
    """The tensors of the head by slot of the flexible head: `1.weight`, …"""
    tensors = read_file(stored)
    return {slot: tensors[key].clone() for slot, key in contents.head.slots.items()}


def read_backbone_copies(stored: StoredObject, contents: Contents) -> dict[Site, torch.Tensor]:
    """The copies of the backbone's own matrices in the file."""
    tensors = read_file(stored) if contents.backbone_copies else {}
    return {site: tensors[key] for site, key in contents.backbone_copies.items()}


def read_file(stored: StoredObject) -> dict[str, torch.Tensor]:
    """All tensors in the file of weights; Failed with AC418 if there is no such file."""
    for name in WEIGHTS:
        if (stored.folder / name).is_file():
            return read_tensors(stored.folder / name, f"{stored.title}: {name}")
    missing = " or ".join(WEIGHTS)
    raise Failed(AC418.at(stored.span, name=stored.title, missing=missing))
