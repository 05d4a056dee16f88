"""The hubs, folders and earlier pins that references lead to, and their files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adaptcompose.catalogue.cards import Variant
from adaptcompose.composition.graph import Block
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Failed, Span, default_span
from adaptcompose.formats import adapter_folder, adapterhub
from adaptcompose.formats.tensors import Shapes, read_header, read_shapes
from adaptcompose.hub.lock import Pin
from adaptcompose.hub.opening import open_store
from adaptcompose.hub.store import (
    FileRecord,
    RangedStore,
    Store,
    file_records,
    offline_diagnostic,
    verify_file,
)
from adaptcompose.resolution.manifest import COMPOSITION_FILES, FILE
from adaptcompose.syntax.references import Ref


@dataclass
class Sources:
    """The hub, the folder that `./` is relative to, and earlier pins.

    A pinned reference never moves: its revision comes from the pin, and its files must have the
    hashes in the pin. `depth` is the number of published compositions around the expression.
    Unless `may_query`, only folders on this machine are read, even if others are in a cache.
    """

    hub: str = "hf"
    root: Path = Path()
    pins: Mapping[str, Pin] = field(default_factory=dict)
    depth: int = 0
    may_query: bool = True
    _pinned: dict[tuple[Ref, Variant | None], Pin] = field(default_factory=dict, repr=False)
    _leaves: dict[tuple[Any, ...], Block] = field(default_factory=dict, repr=False)
    """Resolved references: the compositions of a run share most of theirs."""

    def __post_init__(self) -> None:
        self.root = Path(self.root).absolute()  # the working directory may change

    @property
    def is_remote(self) -> bool:
        """Whether the hub is on another machine."""
        return self.hub == "hf" or self.hub.startswith(("https://", "http://"))

    def may_read(self, ref: Ref) -> bool:
        """Whether the target of a reference may be read."""
        return self.may_query or ref.kind == "local" or not (self.is_remote or ref.has_hub_prefix)

    def store(self, ref: Ref | None = None) -> Store:
        """The store of a reference: the Hugging Face Hub for `hf://`, otherwise the hub."""
        return open_store("hf" if ref is not None and ref.has_hub_prefix else self.hub, self.root)

    def list_repositories(self, glob: str) -> list[str]:
        """The repositories of one author on the Hugging Face Hub that match a glob."""
        return open_store("hf", self.root).list_repositories(glob)

    def local_folder(self, path: str, span: Span | None = None) -> Path:
        # the path may be too long, contain U+0000, or start with ~ and an unknown user
        with suppress(OSError, ValueError, RuntimeError):
            folder = (self.root / Path(path).expanduser()).resolve()
            if folder.is_dir():
                return folder
        raise Failed(codes.AC412.at(span, path=path, root=self.root.resolve()))

    def pin(self, ref: Ref, variant: Variant | None = None, span: Span | None = None) -> Pin:
        """The pin of a reference: an earlier one, or one of the newest revision."""
        if ref.kind == "local":
            # a folder is always read as it is now; a lock with other hashes is out of date
            assert ref.path is not None
            folder = self.local_folder(ref.path, span)
            names = (path.name for path in folder.iterdir() if path.is_file())
            relevant = relevant_files(dict.fromkeys(names, FileRecord(0)), "")
            return Pin(path=ref.path, files=file_records(folder, relevant))
        known = self.pins.get(str(ref)) or self._pinned.get((ref, variant))
        if known is not None:
            return known
        repo, revision, subfolder = _place(ref, variant)
        with default_span(span):
            store = self.store(ref)
            exact = store.resolve(repo, revision)
            files = store.list_files(repo, exact)
        pin = Pin(repo, exact, subfolder, files=relevant_files(files, subfolder or ""))
        self._pinned[ref, variant] = pin
        return pin

    def pin_checkpoint(self, ref: Ref, wanted: Callable[[str], bool], span: Span | None) -> Pin:
        """The pin of a checkpoint of transformers, with the files whose names are `wanted`.

        Always pins the newest revision; callers that have an earlier pin use that.
        """
        if ref.kind == "local":
            folder = self.local_folder(ref.path or "", span)
            names = [path.name for path in folder.iterdir() if path.is_file()]
            return Pin(path=ref.path, files=file_records(folder, filter(wanted, names)))
        assert ref.repo is not None
        with default_span(span):
            store = self.store(ref)
            revision = store.resolve(ref.repo, ref.revision)
            files = store.list_files(ref.repo, revision)
        return Pin(ref.repo, revision, files={n: f for n, f in files.items() if wanted(n)})

    def may_be_published(self, ref: Ref) -> bool:
        """Whether a reference may be a published composition, as far as is known without asking."""
        if ref.kind == "local":
            with suppress(Failed):
                return (self.local_folder(ref.path or "") / FILE).is_file()
            return False
        pin = self.pins.get(str(ref))
        return ref.kind == "hub" and (pin is None or FILE in pin.files)

    def is_on_disk(self, ref: Ref | None, pin: Pin | None) -> bool:
        """Whether all files of a pin are on this machine."""
        if ref is None or pin is None or pin.path is not None:
            return True
        assert pin.repo is not None and pin.revision is not None
        inside = [pin.path_in_repo(name) for name in pin.files]
        return not self.store(ref).uncached_files(pin.repo, pin.revision, inside)

    def fetch(self, ref: Ref, pin: Pin, names: Collection[str] | None = None) -> Path:
        """The folder with the files of a pin (or those in `names`), each with its recorded hash."""
        wanted = [name for name in pin.files if names is None or name in names]
        if pin.path is not None:
            folder = self.local_folder(pin.path)
        else:
            assert pin.repo is not None
            inside = [pin.path_in_repo(name) for name in wanted]
            folder = self.store(ref).fetch(pin.repo, pin.revision, inside)
            folder = folder / pin.subfolder if pin.subfolder else folder
        for name in wanted:
            verify_file(folder, name, pin.files[name], pin.repo or pin.path or "")
        return folder

    def check_offline(self, pins: Mapping[str, Pin]) -> None:
        """Raise Failed with AC405 for all files of some pins that are missing in offline mode.

        The pins are by reference, which determines the hub.
        """
        missing = []
        for name, pin in pins.items():
            if pin.repo is None or pin.revision is None:
                continue
            store = open_store("hf", self.root) if name.startswith("hf://") else self.store()
            inside = [pin.path_in_repo(path) for path in pin.files]
            if paths := store.unavailable_files(pin.repo, pin.revision, inside):
                missing.append(offline_diagnostic(pin.repo, pin.revision, paths))
        if missing:
            raise Failed(dict.fromkeys(missing))

    def shapes(self, ref: Ref, pin: Pin, name: str) -> Shapes | None:
        """The shapes of the tensors in a file; None if they cannot be read without a download.

        If the file is not on this machine, only its header is read, some kilobytes.
        """
        label = f"{ref}: {name}"
        if pin.path is not None or not isinstance(store := self.store(ref), RangedStore):
            return read_shapes(self.fetch(ref, pin, [name]) / name, label)
        repo, revision = pin.repo, pin.revision
        assert repo is not None and revision is not None
        path = pin.path_in_repo(name)
        if not name.endswith(".safetensors") or store.unavailable_files(repo, revision, [path]):
            return None

        def piece(start: int, stop: int) -> bytes:
            return store.read_range(repo, revision, path, start, stop)

        return read_header(piece, pin.files[name].size, label)


def _place(ref: Ref, variant: Variant | None) -> tuple[str, str | None, str | None]:
    """The repository, revision and subfolder of a reference, or of a variant in the catalogue."""
    if ref.kind == "hub":
        assert ref.repo is not None
        return ref.repo, ref.revision, ref.subfolder
    assert variant is not None, "the checker has chosen a variant"
    return variant.repo, variant.revision, variant.subfolder


def relevant_files(files: Mapping[str, FileRecord], subfolder: str) -> dict[str, FileRecord]:
    """The files directly in a folder that are read: configurations and weights.

    A pickle is not read if the folder has the same weights as safetensors.
    """
    prefix = f"{subfolder}/" if subfolder else ""
    own = {path[len(prefix) :]: file for path, file in files.items() if path.startswith(prefix)}
    names = adapter_folder.ADAPTER_FILES | (
        set() if adapterhub.ADAPTER in own else set(COMPOSITION_FILES)
    )
    relevant = {name: own[name] for name in sorted(own) if name in names}
    twins = {pickle for pickle, safe in adapter_folder.SAFETENSORS_OF_PICKLE.items() if safe in own}
    return {name: file for name, file in relevant.items() if name not in twins}
