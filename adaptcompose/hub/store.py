"""What a hub can do, whichever it is: repositories of files, in revisions that never change."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from adaptcompose.diagnostics.codes import AC405, AC411, AC413
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed
from adaptcompose.syntax.references import is_safe_path

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

RepoType = Literal["model", "dataset"]
"""What a repository holds: adapters, compositions and backbones, or examples."""


@dataclass(frozen=True)
class FileRecord:
    """What a file must be: its size, and its SHA-256 or, where a hub knows no other, git's hash."""

    size: int
    sha256: str | None = None
    blob: str | None = None


@dataclass(frozen=True)
class PullRequest:
    """A pull request that was opened: its revision, and where it is looked at and merged."""

    revision: str
    number: int
    url: str


@dataclass(frozen=True)
class RepositoryHit:
    """A repository that a search found, and what its card says of it."""

    repo: str
    library: str | None = None
    backbones: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    task: str | None = None
    licence: str | None = None
    datasets: tuple[str, ...] = ()
    downloads: int | None = None
    tags: tuple[str, ...] = ()


class Store(Protocol):
    """A hub. A revision is 40 hex digits; a method takes one, or a branch, a tag or a prefix."""

    @property
    def name(self) -> str:
        """As messages and the lock call it."""

    def resolve(self, repo: str, revision: str | None = None) -> str:
        """The 40 hex digits of a branch, tag or abbreviation; without one, of the newest."""

    def list_files(self, repo: str, revision: str | None = None) -> dict[str, FileRecord]:
        """The files of a revision, sorted by path."""

    def fetch(
        self, repo: str, revision: str | None = None, paths: Collection[str] | None = None
    ) -> Path:
        """A folder on this machine with the files asked for (or all), every hash verified."""

    def commit(
        self,
        repo: str,
        files: Mapping[str, Path | bytes],
        *,
        message: str,
        delete: Collection[str] = (),
        branch: str = "main",
        private: bool | None = None,
    ) -> str:
        """A new revision with these files instead of or beside the old ones; all or nothing.

        `private` is for a repository that does not exist yet, on a hub that knows the difference.
        """

    def open_pull_request(
        self,
        repo: str,
        files: Mapping[str, Path | bytes],
        *,
        message: str,
        delete: Collection[str] = (),
    ) -> PullRequest:
        """The same change as a pull request, for others to merge; AC433 on a hub without them."""

    def list_repositories(self, pattern: str = "*") -> list[str]:
        """The repositories whose name fits a glob, sorted."""

    def search(self, words: Collection[str], *, language: str | None = None) -> list[RepositoryHit]:
        """Repositories of adapters in whose name or card every word occurs, most used first."""

    def is_public(self, repo: str) -> bool:
        """Whether everybody who has this hub can fetch from a repository."""

    def unavailable_files(self, repo: str, revision: str, paths: Collection[str]) -> list[str]:
        """Those of the files that are not on this machine while offline mode is on, sorted."""

    def uncached_files(self, repo: str, revision: str, paths: Collection[str]) -> list[str]:
        """Those of the files that a fetch would bring to this machine, sorted."""


@runtime_checkable
class RangedStore(Store, Protocol):
    """A hub that serves byte ranges, so that a file's header can be read before its tensors."""

    def read_range(self, repo: str, revision: str, path: str, start: int, stop: int) -> bytes:
        """The bytes of a file from `start` to `stop` (exclusive), or fewer where it ends."""


def file_record(path: Path) -> FileRecord:
    """The size and SHA-256 of a file; one that has not changed since is not read again."""
    found = Path(path).stat()
    stamp = found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns
    if time.time_ns() - max(stamp[2:]) > _TICK:
        return FileRecord(found.st_size, _known_digest(str(path), stamp))
    return FileRecord(found.st_size, _digest(str(path)))


_TICK = 2 * 10**9
"""Nanoseconds within which a file may change twice and have the same times; FAT counts by two."""


@lru_cache(maxsize=4096)
def _known_digest(path: str, stamp: tuple[int, ...]) -> str:
    return _digest(path)


def _digest(path: str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_records(folder: Path, paths: Iterable[str] | None = None) -> dict[str, FileRecord]:
    """The records of the files of a folder, or of some: what a lock keeps of them, sorted."""
    folder = Path(folder)
    found = walk_files(folder) if paths is None else paths
    return {path: file_record(folder / path) for path in sorted(found)}


def walk_files(folder: Path) -> list[str]:
    """The files below a folder, hidden ones left out, sorted."""
    found: list[str] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(place).relative_to(folder)
        found += [(below / name).as_posix() for name in names if not name.startswith(".")]
    return sorted(found)


def verify_file(folder: Path, path: str, expected: FileRecord, repo: str) -> None:
    """Raise unless the file below the folder is exactly the expected one."""
    place = folder / path
    try:
        size = place.stat().st_size
        if size < expected.size:
            why = f"it is cut off after {size} of {expected.size} bytes"
            raise Failed(AC413.at(file=f"{repo}: {path}", why=why))
        found = file_record(place)
        blob = git_blob(place, size) if expected.blob else None
    except OSError as error:
        why = "it is missing" if isinstance(error, FileNotFoundError) else str(error.strerror)
        raise Failed(AC413.at(file=f"{repo}: {path}", why=why)) from None
    wrong = expected.sha256 is not None and found.sha256 != expected.sha256
    if wrong or size != expected.size or blob != expected.blob:
        raise Failed(AC411.at(file=path, repo=repo))


def git_blob(path: Path, size: int) -> str:
    """The hash that git gives a file."""
    digest = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def offline_diagnostic(
    repo: str, revision: str, paths: Collection[str], repo_type: RepoType = "model"
) -> Diagnostic:
    """What is not on this machine in offline mode, and the one command that fetches it."""
    names = sorted(paths)
    label = f"{repo}@{revision[:12]}: {', '.join(names)}"
    given = f"{repo} {' '.join(names)} --revision {revision}"
    given += " --repo-type dataset" if repo_type == "dataset" else ""
    help = f"run this once while you are online: `hf download {given}`"
    return AC405.at(name=label, help=help)


def check_paths(paths: Collection[str], repo: str) -> None:
    """Raise if a file name of a repository could leave its folder, or two cannot both exist."""
    folded = {path.casefold() for path in paths}
    for path in paths:
        parents = path.casefold().split("/")[:-1]
        above = ("/".join(parents[: n + 1]) for n in range(len(parents)))
        if not is_safe_path(path) or any(folder in folded for folder in above):
            shown = ascii(path[:80])[1:-1]
            raise Failed(AC413.at(file=f"{repo}: {shown}", why="this is not an allowed file name"))
    if len(folded) != len(paths):
        raise Failed(
            AC413.at(file=repo, why="two of its file names differ only in upper and lower case")
        )
