"""Data sets in a hub or a folder, pinned by revision and hash. Their scripts are never run."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from adaptcompose.diagnostics.codes import AC405, AC413
from adaptcompose.diagnostics.diagnostic import Failed, Span, default_span
from adaptcompose.hub.lock import Pin
from adaptcompose.hub.opening import open_store
from adaptcompose.hub.readme import front_matter
from adaptcompose.hub.store import (
    FileRecord,
    Store,
    check_paths,
    file_record,
    verify_file,
    walk_files,
)
from adaptcompose.resolution.dataset_splits import Classes, DatasetLayout, Splits, read_layout
from adaptcompose.resolution.sources import Sources
from adaptcompose.syntax.references import Ref, parse_repository_ref

README = "README.md"
MOST_BYTES = 4_000_000_000
"""The limit for a split, since all its examples are in memory at once."""
_README_LIMIT = 1_000_000


@dataclass(frozen=True)
class DataSet:
    """A data set at a revision.

    `pin` records every file, `layout_files` are those from which the layout was read.
    """

    ref: Ref
    pin: Pin
    layout: DatasetLayout
    sources: Sources
    layout_files: tuple[str, ...] = ()

    def __str__(self) -> str:
        return str(self.pin)

    def pin_files(self, paths: Collection[str]) -> Pin:
        """The pin of some files, as a lock records it."""
        pinned = sorted({*paths, *self.layout_files})
        return replace(self.pin, files={path: self._record(path) for path in pinned})

    def splits(self, config: str | None) -> Splits:
        """The files of each split of a configuration; empty for an unknown one."""
        name = self.layout.choose_config(config)
        return {} if name is None else self.layout.splits(name)

    def classes(self, config: str | None) -> Classes:
        """The classes of each column of labels, as far as the README names them."""
        return self.layout.classes(self.layout.choose_config(config) or "")

    def fetch(self, paths: Collection[str], span: Span | None = None) -> Path:
        """The folder with some of the files, each with its recorded hash."""
        if sum(self.pin.files[path].size for path in paths) > MOST_BYTES:
            why = f"the files are larger than {MOST_BYTES // 10**9} GB"
            raise Failed(AC413.at(span, file=f"{self}: {', '.join(sorted(paths))}", why=why))
        if self.pin.path is not None:
            return self.sources.local_folder(self.pin.path, span)
        assert self.pin.repo is not None
        with default_span(span):
            folder = _store(self.ref, self.sources).fetch(self.pin.repo, self.pin.revision, paths)
            for path in paths:
                verify_file(folder, path, self.pin.files[path], str(self))
        return folder

    def missing_files(self, paths: Collection[str]) -> dict[str, int]:
        """The sizes in bytes of the files that are not on this machine yet."""
        if self.pin.path is not None:
            return {}
        assert self.pin.repo is not None and self.pin.revision is not None
        store = _store(self.ref, self.sources)
        missing = store.uncached_files(self.pin.repo, self.pin.revision, paths)
        return {path: self.pin.files[path].size for path in missing}

    def _record(self, path: str) -> FileRecord:
        # in a folder, only files in use are hashed
        folder = None if self.pin.path is None else self.sources.local_folder(self.pin.path)
        return self.pin.files[path] if folder is None else file_record(folder / path)


def parse_dataset_ref(text: str, span: Span | None = None) -> Ref:
    """Parse `repo:` of a data set: `user/name@revision`, `hf://datasets/…`, or a folder.

    >>> print(parse_dataset_ref("hf://datasets/user/name@v1"), parse_dataset_ref("squad@main"))
    hf://user/name@v1 squad@main
    """
    help = "name the repository only, and set `config: {folder}`"
    return parse_repository_ref(text.replace("hf://datasets/", "hf://", 1), span, help)


def find_dataset(
    text: str, sources: Sources, *, pin: Pin | None = None, span: Span | None = None
) -> DataSet:
    """The data set in a repository or a folder; only its README is read.

    With a `pin` it has the pinned revision. In offline mode its files are those of the pin.
    """
    ref = parse_dataset_ref(text, span)
    with default_span(span):
        found = _local(ref, sources) if ref.kind == "local" else _of_hub(ref, sources, pin)
        read = tuple(name for name in (README,) if name in found.files)
        bare = DataSet(ref, found, DatasetLayout({}, None, {}), sources, read)
        layout = read_layout(found.files, _metadata(bare))
        if not layout.configs:
            why = "it has no files with examples"
            raise Failed(AC413.at(file=str(ref), why=why, help=_help(found)))
    return replace(bare, layout=layout)


def _help(pin: Pin) -> str:
    if any(path.endswith(".py") for path in pin.files):
        # the Hub converts the output of such scripts to Parquet files
        parquet = f"`repo: {pin.repo}@refs/convert/parquet`"
        return f"use its Parquet files, {parquet}; scripts are never run"
    return "use files in parquet, csv, tsv, jsonl, json, conll or txt, plain or compressed by gzip"


def _metadata(found: DataSet) -> dict[str, object]:
    if not found.layout_files or found.pin.files[README].size > _README_LIMIT:
        return {}
    page = found.fetch([README]) / README
    return front_matter(page.read_text("utf-8", "replace"))


def _local(ref: Ref, sources: Sources) -> Pin:
    assert ref.path is not None
    folder = sources.local_folder(ref.path)
    inside = (
        path for path in walk_files(folder) if (folder / path).resolve().is_relative_to(folder)
    )
    sizes = {path: FileRecord((folder / path).stat().st_size) for path in inside}
    check_paths(sizes, ref.path)
    return Pin(path=ref.path, files=sizes)


def _of_hub(ref: Ref, sources: Sources, pin: Pin | None) -> Pin:
    assert ref.repo is not None
    store = _store(ref, sources)
    if pin is None or pin.repo != ref.repo:
        revision = store.resolve(ref.repo, ref.revision)
        return Pin(ref.repo, revision, files=store.list_files(ref.repo, revision))
    try:
        return replace(pin, files=store.list_files(ref.repo, pin.revision))
    except Failed as failed:
        if failed.diagnostics[0].code != AC405.id:
            raise
        return pin


def _store(ref: Ref, sources: Sources) -> Store:
    return open_store("hf" if ref.has_hub_prefix else sources.hub, sources.root, "dataset")
