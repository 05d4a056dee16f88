"""Folders of adapters in AdapterHub's format or PEFT's, read and written in one way.

file = open_adapter_folder(folder, "user/adapter")   # reads the configuration only
adapter = file.on(facts)                             # what it is on one backbone
adapter.method, adapter.head, adapter.tensors(), adapter.head_tensors()
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.diagnostics.codes import AC406, AC418
from adaptcompose.diagnostics.diagnostic import Failed, Span
from adaptcompose.formats import adapterhub, peft, peft_writer
from adaptcompose.formats.adapterhub import ADAPTER, FUSION, HEAD
from adaptcompose.formats.adapterhub_setup import SETUP
from adaptcompose.formats.adapterhub_versions import may_lack_invertible
from adaptcompose.formats.adapterhub_writer import AdapterHubWriter
from adaptcompose.formats.peft_modules import ModelClass
from adaptcompose.formats.stored_object import StoredObject, read_document
from adaptcompose.formats.tensors import Shapes, read_shapes
from adaptcompose.formats.transformers_heads import undo_scale
from adaptcompose.methods import Method
from adaptcompose.methods.targeted import NATIVE_ARCHITECTURE

if TYPE_CHECKING:
    import torch

ADAPTER_FILES = {
    *adapterhub.WEIGHTS,
    *(name for pair in adapterhub.WEIGHTS.values() for name in pair),
    peft.CONFIG,
    *peft.WEIGHTS,
    SETUP,
}
"""The files of a folder that are read; all others are ignored."""

SAFETENSORS_OF_PICKLE = {
    pickle: safe for safe, pickle in (*adapterhub.WEIGHTS.values(), peft.WEIGHTS)
}
"""For each pickle the file that is read instead if a folder has both."""

PEFT_SUBFOLDER = "peft"
"""The subfolder with an adapter in PEFT's format, if its folder has it in AdapterHub's."""


def open_adapter_folder(folder: Path, title: str, span: Span | None = None) -> AdapterFile:
    """The adapter and the head in a folder; reads the adapter's configuration.

    Messages call the folder `title`. Raises Failed with AC413 if the configuration is invalid.
    """
    document = read_document(folder, ADAPTER, title, span)
    if document is None:
        return AdapterFile(folder, title, span, None)
    if peft.is_peft(document):
        stored = peft.to_stored_object(document, folder, title, span)
    else:
        stored = adapterhub.to_stored_object(document, folder, ADAPTER, title, span)
    return AdapterFile(folder, title, span, stored)


class AdapterFile:
    """The adapter and the head in a folder, as far as their configurations describe them.

    Either may be missing: a folder may have a head alone, and most adapters have no head.
    """

    def __init__(
        self, folder: Path, title: str, span: Span | None, stored: StoredObject | None
    ) -> None:
        self.folder, self.title, self.span = folder, title, span
        self._stored = stored

    @property
    def adapter(self) -> StoredObject:
        """The adapter's configuration; raises Failed with AC406 if the folder has no adapter."""
        if self._stored is None:
            what, help = self._other_content()
            diagnostic = AC406.at(
                self.span, name=self.title, what=what, wanted="an adapter", help=help
            )
            raise Failed(diagnostic)
        return self._stored

    @cached_property
    def adapterhub_head(self) -> StoredObject | None:
        """The configuration of the head in AdapterHub's format, if the folder has one."""
        head = adapterhub.read_config(self.folder, HEAD, self.title, self.span)
        return head if head is not None and head.config else None

    @property
    def is_peft(self) -> bool:
        """Whether the adapter is in PEFT's format."""
        return self._stored is not None and peft.is_peft(self._stored.document)

    @property
    def weight_files(self) -> tuple[str, str]:
        """The names of the file of weights: as safetensors, as a pickle."""
        return peft.WEIGHTS if self.is_peft else adapterhub.WEIGHTS[ADAPTER]

    @property
    def needs_tensors(self) -> bool:
        """Whether the configuration alone does not determine the method.

        PEFT's patterns of modules are not evaluated: the tensors show which modules they matched.
        """
        return self.is_peft or may_lack_invertible(self.adapter.document)

    def on(self, facts: Facts, shapes: Shapes | None = None) -> StoredAdapter:
        """The adapter on a backbone; nothing is read until you ask for it.

        `shapes` are the shapes of the tensors in the file of weights, which need not be on this
        machine then. Without `shapes` the file must be there if `needs_tensors`, and shapes are
        compared with those of the method only when its tensors are read.
        """
        reader = _PeftAdapter if self.is_peft else _AdapterHubAdapter
        return reader(self, facts, shapes)

    def _other_content(self) -> tuple[str, str]:
        """What a folder without an adapter contains, and how to use it."""
        kinds = {
            FUSION: ("a fusion", f"load it: `fuse(…, load={self.title})`"),
            "config.json": ("a full model", f"use it as the backbone: `backbone: {self.title}`"),
        }
        present = (kind for name, kind in kinds.items() if (self.folder / name).is_file())
        return next(present, ("other files", f"name a folder or repository with {ADAPTER}"))


class StoredAdapter(ABC):
    """An adapter and its head on one backbone, read from a folder when you ask for them.

    Whatever is read raises Failed if the file does not fit: AC403 for another backbone, AC407 for
    an unknown method, AC408 for other shapes, AC413 for invalid content, AC418 for missing files
    or tensors.
    """

    def __init__(self, file: AdapterFile, facts: Facts, shapes: Shapes | None) -> None:
        self.file, self.facts, self.shapes = file, facts, shapes

    @property
    @abstractmethod
    def method(self) -> Method:
        """The method with its settings."""

    @property
    def head(self) -> Mapping[str, Any] | None:
        """The configuration of the head, in the form of AdapterHub's flexible heads."""
        head = self.file.adapterhub_head
        return None if head is None else head.config

    @abstractmethod
    def tensors(self) -> dict[tuple[Site, str], torch.Tensor]:
        """The tensors of the adapter by site and name, each of the shape that its method has."""

    def head_tensors(self) -> dict[str, torch.Tensor]:
        """The tensors of the head by slot: `1.weight`, …"""
        head = self.file.adapterhub_head
        if head is None:
            raise Failed(AC418.at(self.file.span, name=self.file.title, missing=HEAD))
        return undo_scale(head.document, adapterhub.read_head(head), self._state_scale)

    @property
    def residual_init_kind(self) -> str | None:
        """The initialisation that leaves some factors to be computed from the backbone's weights.

        PEFT's PiSSA, OLoRA and the like move part of the backbone's weight into the adapter.
        """
        return None

    def backbone_copies(self) -> dict[Site, torch.Tensor]:
        """The backbone's own matrices as far as the file has copies of them."""
        return {}

    @property
    def _state_scale(self) -> float:
        layout = self.facts.layout
        return layout.scale(self.facts.config) if layout.scale else 1.0


class _AdapterHubAdapter(StoredAdapter):
    @cached_property
    def method(self) -> Method:
        stored, shapes = self.file.adapter, self.shapes
        method = adapterhub.read_method(stored, self.facts, shapes)
        problems = adapterhub.shape_problems(stored, method, self.facts, shapes or {})
        if shapes and (diagnostics := list(problems)):
            raise Failed(diagnostics)
        return method

    def tensors(self) -> dict[tuple[Site, str], torch.Tensor]:
        return adapterhub.read_weights(self.file.adapter, self.method, self.facts)


class _PeftAdapter(StoredAdapter):
    @cached_property
    def _contents(self) -> peft.Contents:
        return peft.read_contents(self.file.adapter, self.facts, self.shapes or self._read_shapes())

    def _read_shapes(self) -> Shapes:
        for name in peft.WEIGHTS:
            if (self.file.folder / name).is_file():
                return read_shapes(self.file.folder / name, f"{self.file.title}: {name}")
        missing = " or ".join(peft.WEIGHTS)
        raise Failed(AC418.at(self.file.span, name=self.file.title, missing=missing))

    @property
    def method(self) -> Method:
        return self._contents.method

    @property
    def head(self) -> Mapping[str, Any] | None:
        return super().head or self._contents.head.config

    def tensors(self) -> dict[tuple[Site, str], torch.Tensor]:
        return peft.read_weights(self.file.adapter, self._contents, self.facts)

    def head_tensors(self) -> dict[str, torch.Tensor]:
        if self.file.adapterhub_head is not None:
            return super().head_tensors()
        tensors = peft.read_head(self.file.adapter, self._contents)
        return undo_scale({"model_class": self._contents.head.name}, tensors, self._state_scale)

    @property
    def residual_init_kind(self) -> str | None:
        return peft.residual_init_kind(self.file.adapter)

    def backbone_copies(self) -> dict[Site, torch.Tensor]:
        return peft.read_backbone_copies(self.file.adapter, self._contents)


def write_adapter(
    writer: AdapterHubWriter,
    folder: Path,
    name: str,
    method: Method,
    weights: Mapping[tuple[Site, str], torch.Tensor],
    within: ModelClass,
) -> None:
    """Write an adapter in AdapterHub's format, and in PEFT's in a subfolder if PEFT has the method.

    A method that only PEFT has is written in PEFT's format alone; one that neither has, in
    AdapterHub's format with a configuration of our own. PEFT's keys are paths in one class of
    models, which is `within`.
    """
    is_peft_method = peft_writer.can_write(method, writer.facts, within)
    config = method.adapterhub_config(writer.facts)
    if config.get("architecture") == NATIVE_ARCHITECTURE and is_peft_method:
        peft_writer.write(folder, method, weights, writer.facts, within)
        return
    writer.adapter(folder, name, method, weights)
    if is_peft_method:
        peft_writer.write(folder / PEFT_SUBFOLDER, method, weights, writer.facts, within)
