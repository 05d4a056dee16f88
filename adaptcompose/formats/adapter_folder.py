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
from adaptcompose.formats.adapterhub import ADAPTER, HEAD, Described
from adaptcompose.formats.adapterhub_setup import SETUP
from adaptcompose.formats.adapterhub_versions import doubtful
from adaptcompose.formats.adapterhub_writing import Writer
from adaptcompose.formats.peft_modules import Within
from adaptcompose.formats.tensors import Shapes, read_shapes
from adaptcompose.formats.transformers_heads import unscaled
from adaptcompose.methods import Method
from adaptcompose.methods.targeted import ARCHITECTURE

if TYPE_CHECKING:
    import torch

FILES = {*adapterhub.WEIGHTS, *(n for pair in adapterhub.WEIGHTS.values() for n in pair)}
FILES |= {*peft.WEIGHTS, SETUP}
"""The names of all files that matter."""

TWINS = {pickle: safe for safe, pickle in (*adapterhub.WEIGHTS.values(), peft.WEIGHTS)}
"""Per pickle the file that is read in its place, where it is there."""


@dataclass(frozen=True)
class Read:
    """What a folder means on a backbone."""

    method: Method
    head: Mapping[str, Any] | None = None


def weights_names(found: Described) -> tuple[str, str]:
    """The files of an adapter's weights: as safetensors, as a pickle."""
    return peft.WEIGHTS if peft.is_peft(found) else adapterhub.WEIGHTS[ADAPTER]


def told_by_tensors(found: Described) -> bool:
    """Whether what a folder means is told by the tensors in it, beside its configuration."""
    return peft.is_peft(found) or doubtful(found.outer)


def read(found: Described, facts: Facts, shapes: Shapes | None) -> Read:
    """Method and head of a folder, held against the shapes of its weights, if they are known.

    Where tensors tell what a folder means, the file must be there if `shapes` are not given.
    """
    if peft.is_peft(found):
        contents = peft.read(found, facts, shapes or _shapes(found))
        return Read(contents.method, _beside(found) or contents.head.config)
    method = adapterhub.read_method(found, facts, shapes)
    if wrong := list(adapterhub.misfits(found, method, facts, shapes)) if shapes else []:
        raise Failed(wrong)
    return Read(method, _beside(found))


def _beside(found: Described) -> Mapping[str, Any] | None:
    """The configuration of the head in the same folder."""
    head = adapterhub.describe(found.folder, HEAD, found.title, found.span)
    return head.config if head is not None and head.config else None


def _shapes(found: Described) -> Shapes:
    for name in weights_names(found):
        if (found.folder / name).is_file():
            return read_shapes(found.folder / name, f"{found.title}: {name}")
    missing = " and ".join(weights_names(found))
    raise Failed(AC418.at(found.span, name=found.title, missing=missing))


def read_weights(
    found: Described, method: Method, facts: Facts
) -> dict[tuple[Site, str], torch.Tensor]:
    """The tensors of an adapter by site and name, each of the expected shape."""
    if peft.is_peft(found):
        return peft.read_weights(found, peft.read(found, facts, _shapes(found)), facts)
    return adapterhub.read_weights(found, method, facts)


def begun(found: Described) -> str | None:
    """How factors began, where a file has not all of them without the backbone's weights."""
    return peft.begun(found) if peft.is_peft(found) else None


def read_copies(found: Described, facts: Facts) -> dict[Site, torch.Tensor]:
    """What a file of an adapter has of the backbone's own matrices."""
    if not peft.is_peft(found):
        return {}
    return peft.read_copies(found, peft.read(found, facts, _shapes(found)))


def read_head(
    folder: Path, title: str, facts: Facts, span: Span | None = None
) -> dict[str, torch.Tensor]:
    """The tensors of the head in a folder by slot."""
    head = adapterhub.describe(folder, HEAD, title, span)
    scale = facts.layout.scale(facts.config) if facts.layout.scale else 1.0
    if head is not None:
        return unscaled(head.outer, adapterhub.read_head(head), scale)
    found = adapterhub.describe_adapter(folder, title, span)
    contents = peft.read(found, facts, _shapes(found))
    return unscaled({"model_class": contents.head.name}, peft.read_head(found, contents), scale)


def write(
    writer: Writer,
    folder: Path,
    name: str,
    method: Method,
    weights: Mapping[tuple[Site, str], torch.Tensor],
    within: Within,
) -> None:
    """As AdapterHub has it; what has no form there as PEFT has it, or in a form of our own.

    PEFT's files are of a class of models, which is that of `within`.
    """
    from adaptcompose.formats.peft_writing import write as write_peft
    from adaptcompose.formats.peft_writing import writes

    native = method.adapterhub_config(writer.facts).get("architecture") == ARCHITECTURE
    if native and writes(method, writer.facts, within):
        write_peft(folder, method, weights, writer.facts, within)
    else:
        writer.adapter(folder, name, method, weights)
