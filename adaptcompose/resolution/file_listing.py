"""The files of a folder or of a repository, looked at before anything is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from adaptcompose.catalogue.cards import Variant
from adaptcompose.formats.tensors import Shapes, read_shapes
from adaptcompose.resolution.sources import Sources
from adaptcompose.syntax.references import Ref

_LARGEST_PICKLE = 200_000_000  # a pickle has to be fetched whole to know its shapes


@dataclass(frozen=True)
class FileListing:
    """The files of a folder or a repository by path, with their sizes, and how to get at them."""

    title: str
    sizes: Mapping[str, int]
    path: Callable[[str], Path]
    shapes: Callable[[str], Shapes | None]

    def files_in(self, place: str) -> Mapping[str, int]:
        """The files directly in a subfolder (the shelf itself: an empty text), by their names."""
        prefix = f"{place}/" if place else ""
        found = {p.removeprefix(prefix): n for p, n in self.sizes.items() if p.startswith(prefix)}
        return {name: size for name, size in found.items() if "/" not in name}

    def folders(self) -> list[str]:
        """The shelf itself and the folders right below it that hold something."""
        tops = sorted({path.split("/")[0] for path in self.sizes if path.count("/") == 1})
        return ["", *tops]


def open_listing(ref: Ref, sources: Sources, variant: Variant | None = None) -> FileListing:
    """What a reference leads to; of the catalogue's it is the chosen variant."""
    if ref.kind == "local":
        assert ref.path is not None
        return local_listing(sources.local_folder(ref.path), str(ref))
    found = sources.pin(ref, variant)
    assert found.repo is not None
    prefix = f"{found.subfolder}/" if found.subfolder else ""
    files = {
        path.removeprefix(prefix): record
        for path, record in sources.store(ref).list_files(found.repo, found.revision).items()
        if path.startswith(prefix)
    }
    pin = replace(found, files=files)

    def path(name: str) -> Path:
        return sources.fetch(ref, pin, [name]) / name

    def shapes(name: str) -> Shapes | None:
        found = sources.shapes(ref, pin, name)
        if found is None and files[name].size <= _LARGEST_PICKLE:
            return read_shapes(path(name), f"{ref}: {name}")
        return found

    return FileListing(
        str(ref), {name: record.size for name, record in files.items()}, path, shapes
    )


def local_listing(folder: Path, title: str) -> FileListing:
    """A folder and the folders right below it, links out of it left alone."""
    found = [path for path in folder.iterdir() if not path.name.startswith(".")]
    found += [inner for path in found if path.is_dir() for inner in path.iterdir()]
    files = [path for path in found if path.is_file() and path.resolve().is_relative_to(folder)]
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}

    def shapes(name: str) -> Shapes:
        return read_shapes(folder / name, f"{title}: {name}")

    return FileListing(title, sizes, lambda name: folder / name, shapes)
