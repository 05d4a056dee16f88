"""The files of a folder or a repository, listed before anything is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from adaptcompose.catalogue.cards import Variant
from adaptcompose.formats.tensors import Shapes, read_shapes
from adaptcompose.resolution.sources import Sources
from adaptcompose.syntax.references import Ref

_LARGEST_PICKLE = 200_000_000  # bytes; its shapes are known only after a full download


@dataclass(frozen=True)
class FileListing:
    """The sizes in bytes of the files by path, and functions that read a file or its shapes."""

    title: str
    sizes: Mapping[str, int]
    path: Callable[[str], Path]
    shapes: Callable[[str], Shapes | None]

    def files_in(self, subfolder: str) -> Mapping[str, int]:
        """The sizes of the files directly in a subfolder, by name; "" is the folder itself."""
        prefix = f"{subfolder}/" if subfolder else ""
        inner = {p.removeprefix(prefix): n for p, n in self.sizes.items() if p.startswith(prefix)}
        return {name: size for name, size in inner.items() if "/" not in name}

    def folders(self) -> list[str]:
        """The folder itself ("") and its direct subfolders that have files."""
        tops = sorted({path.split("/")[0] for path in self.sizes if path.count("/") == 1})
        return ["", *tops]


def open_listing(ref: Ref, sources: Sources, variant: Variant | None = None) -> FileListing:
    """The files that a reference leads to; for a name of the catalogue those of a variant."""
    if ref.kind == "local":
        assert ref.path is not None
        return local_listing(sources.local_folder(ref.path), str(ref))
    pin = sources.pin(ref, variant)
    assert pin.repo is not None
    prefix = f"{pin.subfolder}/" if pin.subfolder else ""
    files = {
        path.removeprefix(prefix): record
        for path, record in sources.store(ref).list_files(pin.repo, pin.revision).items()
        if path.startswith(prefix)
    }
    pin = replace(pin, files=files)

    def path(name: str) -> Path:
        return sources.fetch(ref, pin, [name]) / name

    def shapes(name: str) -> Shapes | None:
        shapes = sources.shapes(ref, pin, name)
        if shapes is None and files[name].size <= _LARGEST_PICKLE:
            return read_shapes(path(name), f"{ref}: {name}")
        return shapes

    return FileListing(
        str(ref), {name: record.size for name, record in files.items()}, path, shapes
    )


def local_listing(folder: Path, title: str) -> FileListing:
    """The files in a folder and its direct subfolders, without links out of the folder."""
    paths = [path for path in folder.iterdir() if not path.name.startswith(".")]
    paths += [inner for path in paths if path.is_dir() for inner in path.iterdir()]
    files = [path for path in paths if path.is_file() and path.resolve().is_relative_to(folder)]
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}

    def shapes(name: str) -> Shapes:
        return read_shapes(folder / name, f"{title}: {name}")

    return FileListing(title, sizes, lambda name: folder / name, shapes)
