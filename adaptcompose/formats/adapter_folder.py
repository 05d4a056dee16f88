"""Folders of adapters, whoever wrote them: AdapterHub's and PEFT's, read in one way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.diagnostics.codes import AC418
from adaptcompose.diagnostics.diagnostic import Failed, Span
from adaptcompose.formats import adapterhub, peft
from adaptcompose.formats.adapterhub import ADAPTER, HEAD, StoredObject
from adaptcompose.formats.adapterhub_setup import SETUP
from adaptcompose.formats.adapterhub_versions import may_lack_invertible
from adaptcompose.formats.adapterhub_writer import AdapterHubWriter
from adaptcompose.formats.peft_modules import ModelClass
from adaptcompose.formats.tensors import Shapes, read_shapes
from adaptcompose.formats.transformers_heads import undo_scale
from adaptcompose.methods import Method
from adaptcompose.methods.targeted import NATIVE_ARCHITECTURE

if TYPE_CHECKING:
    import torch

ADAPTER_FILES = {*adapterhub.WEIGHTS, *(n for pair in adapterhub.WEIGHTS.values() for n in pair)}
ADAPTER_FILES |= {*peft.WEIGHTS, SETUP}
"""The names of all files that matter."""

SAFETENSORS_OF_PICKLE = {
    pickle: safe for safe, pickle in (*adapterhub.WEIGHTS.values(), peft.WEIGHTS)
}
"""Per pickle the file that is read in its place, where it is there."""


@dataclass(frozen=True)
class AdapterContents:
    """What a folder means on a backbone."""

    method: Method
    head: Mapping[str, Any] | None = None


def weight_files(found: StoredObject) -> tuple[str, str]:
    """The files of an adapter's weights: as safetensors, as a pickle."""
    return peft.WEIGHTS if peft.is_peft(found) else adapterhub.WEIGHTS[ADAPTER]


def needs_tensors(found: StoredObject) -> bool:
    """Whether what a folder means is told by the tensors in it, beside its configuration."""
    return peft.is_peft(found) or may_lack_invertible(found.document)


def read_adapter(found: StoredObject, facts: Facts, shapes: Shapes | None) -> AdapterContents:
    """Method and head of a folder, held against the shapes of its weights, if they are known.

    Where tensors tell what a folder means, the file must be there if `shapes` are not given.
    """
    if peft.is_peft(found):
        contents = peft.read_contents(found, facts, shapes or _shapes(found))
        return AdapterContents(contents.method, _head_settings(found) or contents.head.config)
    method = adapterhub.read_method(found, facts, shapes)
    if wrong := list(adapterhub.shape_problems(found, method, facts, shapes)) if shapes else []:
        raise Failed(wrong)
    return AdapterContents(method, _head_settings(found))


def _head_settings(found: StoredObject) -> Mapping[str, Any] | None:
    """The configuration of the head in the same folder."""
    head = adapterhub.read_config(found.folder, HEAD, found.title, found.span)
    return head.config if head is not None and head.config else None


def _shapes(found: StoredObject) -> Shapes:
    for name in weight_files(found):
        if (found.folder / name).is_file():
            return read_shapes(found.folder / name, f"{found.title}: {name}")
    missing = " or ".join(weight_files(found))
    raise Failed(AC418.at(found.span, name=found.title, missing=missing))


def read_weights(
    found: StoredObject, method: Method, facts: Facts
) -> dict[tuple[Site, str], torch.Tensor]:
    """The tensors of an adapter by site and name, each of the expected shape."""
    if peft.is_peft(found):
        return peft.read_weights(found, peft.read_contents(found, facts, _shapes(found)), facts)
    return adapterhub.read_weights(found, method, facts)


def residual_init_kind(found: StoredObject) -> str | None:
    """How factors began, where a file has not all of them without the backbone's weights."""
    return peft.residual_init_kind(found) if peft.is_peft(found) else None


def read_backbone_copies(found: StoredObject, facts: Facts) -> dict[Site, torch.Tensor]:
    """What a file of an adapter has of the backbone's own matrices."""
    if not peft.is_peft(found):
        return {}
    return peft.read_backbone_copies(found, peft.read_contents(found, facts, _shapes(found)))


def read_head(
    folder: Path, title: str, facts: Facts, span: Span | None = None
) -> dict[str, torch.Tensor]:
    """The tensors of the head in a folder by slot."""
    head = adapterhub.read_config(folder, HEAD, title, span)
    scale = facts.layout.scale(facts.config) if facts.layout.scale else 1.0
    if head is not None:
        return undo_scale(head.document, adapterhub.read_head(head), scale)
    found = adapterhub.read_adapter_config(folder, title, span)
    contents = peft.read_contents(found, facts, _shapes(found))
    return undo_scale({"model_class": contents.head.name}, peft.read_head(found, contents), scale)


def write_adapter(
    writer: AdapterHubWriter,
    folder: Path,
    name: str,
    method: Method,
    weights: Mapping[tuple[Site, str], torch.Tensor],
    within: ModelClass,
) -> None:
    """As AdapterHub has it; what has no form there as PEFT has it, or in a form of our own.

    PEFT's files are of a class of models, which is that of `within`.
    """
    from adaptcompose.formats.peft_writer import can_write
    from adaptcompose.formats.peft_writer import write as write_peft

    native = method.adapterhub_config(writer.facts).get("architecture") == NATIVE_ARCHITECTURE
    if native and can_write(method, writer.facts, within):
        write_peft(folder, method, weights, writer.facts, within)
    else:
        writer.adapter(folder, name, method, weights)
