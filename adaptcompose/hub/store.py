"""The interface of a hub: repositories of files, in revisions that never change."""

from __future__ import annotations

import hashlib
import io
import os
import re
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
    """The size of a file in bytes and its hash, by which a copy of it is verified.

    The Hugging Face Hub lists the SHA-256 of large files only, and git's hash of all others.
    """

    size: int
    sha256: str | None = None
    blob: str | None = None


@dataclass(frozen=True)
class PullRequest:
    """A pull request: its revision, and the page on which people review and merge it."""

    revision: str
    number: int
    url: str


@dataclass(frozen=True)
class RepositoryHit:
    """A repository that a search returned, with the metadata of its card."""

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
        """The name of the hub in messages and in the lock."""

    def resolve(self, repo: str, revision: str | None = None) -> str:
        """The 40 hex digits of a branch, a tag or a prefix; without `revision`, of the newest."""

    def list_files(self, repo: str, revision: str | None = None) -> dict[str, FileRecord]:
        """The files of a revision, sorted by path."""

    def fetch(
        self, repo: str, revision: str | None = None, paths: Collection[str] | None = None
    ) -> Path:
        """A folder on this machine with the files in `paths` (default: all), each hash verified."""

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
        """Add a revision in which `files` replace or extend the old ones; all or nothing.

        `private` matters only if the commit creates the repository, and only on a hub that has
        private repositories.
        """

    def open_pull_request(
        self,
        repo: str,
        files: Mapping[str, Path | bytes],
        *,
        message: str,
        delete: Collection[str] = (),
    ) -> PullRequest:
        """Propose the same change as a pull request; AC433 on a hub that has none."""

    def list_repositories(self, pattern: str = "*") -> list[str]:
        """The repositories whose name matches a glob, sorted."""

    def search(self, words: Collection[str], *, language: str | None = None) -> list[RepositoryHit]:
        """The repositories of adapters that match every word, the most downloaded first.

        A word matches if it occurs in the name or in the metadata of the card.
        """

    def is_public(self, repo: str) -> bool:
        """Whether everybody with access to this hub can fetch from a repository."""

    def unavailable_files(self, repo: str, revision: str, paths: Collection[str]) -> list[str]:
        """The files in `paths` that offline mode keeps from being fetched, sorted."""

    def uncached_files(self, repo: str, revision: str, paths: Collection[str]) -> list[str]:
        """The files in `paths` that a fetch would download, sorted."""


@runtime_checkable
class RangedStore(Store, Protocol):
    """A hub that serves byte ranges, so that a file's header can be read before its tensors."""

    def read_range(self, repo: str, revision: str, path: str, start: int, stop: int) -> bytes:
        """The bytes of a file from `start` to `stop` (exclusive), or fewer where it ends."""


def file_record(path: Path) -> FileRecord:
    """The size and SHA-256 of a file; a file that has not changed is not read again."""
    status = Path(path).stat()
    stamp = status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns
    if time.time_ns() - max(stamp[2:]) > _TICK:
        return FileRecord(status.st_size, _cached_digest(str(path), stamp))
    return FileRecord(status.st_size, _digest(str(path)))


_TICK = 2 * 10**9
"""Nanoseconds in which a file may change without a change of its times: FAT counts in 2 s."""


@lru_cache(maxsize=4096)
def _cached_digest(path: str, stamp: tuple[int, ...]) -> str:
    return _digest(path)


def _digest(path: str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_records(folder: Path, paths: Iterable[str] | None = None) -> dict[str, FileRecord]:
    """The records of the files in a folder, sorted; of those in `paths` if it is given."""
    folder = Path(folder)
    names = walk_files(folder) if paths is None else paths
    return {path: file_record(folder / path) for path in sorted(names)}


def walk_files(folder: Path) -> list[str]:
    """The files in a folder and its subfolders, without hidden ones, sorted."""
    paths: list[str] = []
    for directory, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inner = Path(directory).relative_to(folder)
        paths += [(inner / name).as_posix() for name in names if not name.startswith(".")]
    return sorted(paths)


def verify_file(folder: Path, path: str, expected: FileRecord, repo: str) -> None:
    """Raise Failed unless a file has the recorded size and hashes.

    AC413 if it is missing or cut off, AC411 if its content is another.
    """
    local = folder / path
    try:
        size = local.stat().st_size
        if size < expected.size:
            why = f"it is cut off after {size} of {expected.size} bytes"
            raise Failed(AC413.at(file=f"{repo}: {path}", why=why))
        record = file_record(local)
        blob = git_blob(local) if expected.blob else None
    except OSError as error:
        why = "it is missing" if isinstance(error, FileNotFoundError) else str(error.strerror)
        raise Failed(AC413.at(file=f"{repo}: {path}", why=why)) from None
    wrong = expected.sha256 is not None and record.sha256 != expected.sha256
    if wrong or size != expected.size or blob != expected.blob:
        raise Failed(AC411.at(file=path, repo=repo))


def is_same_content(content: Path | bytes, listed: FileRecord | None) -> bool:
    """Whether a hub lists a file with the content that is here; False if it lists no such file."""
    if listed is None:
        return False
    if isinstance(content, bytes):
        size, sha256 = len(content), hashlib.sha256(content).hexdigest()
    else:
        record = file_record(Path(content))
        size, sha256 = record.size, str(record.sha256)
    if size != listed.size or listed.sha256 not in (None, sha256):
        return False
    return listed.blob in (None, git_blob(content))


def git_blob(content: Path | bytes) -> str:
    """The hash that git gives to a file: SHA-1 over `blob <size>`, a zero byte and the content."""
    size = len(content) if isinstance(content, bytes) else Path(content).stat().st_size
    digest = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with io.BytesIO(content) if isinstance(content, bytes) else Path(content).open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


_ABBREVIATION = re.compile(r"[0-9a-f]{7,39}")


def is_abbreviation(revision: str) -> bool:
    """Whether a revision may be the first digits of one: at least seven, as git prints them."""
    return bool(_ABBREVIATION.fullmatch(revision))


def expand_abbreviation(repo: str, wanted: str, revisions: Collection[str]) -> str | None:
    """The revision that starts with `wanted`; None if there is none.

    Raises Failed with AC402 if there are several.
    """
    is_prefix = is_abbreviation(wanted)
    matching = [revision for revision in revisions if is_prefix and revision.startswith(wanted)]
    if len(matching) > 1:
        help = f"write more digits: {', '.join(revision[:12] for revision in matching)}"
        text = f"`{wanted}` matches {len(matching)} revisions of `{repo}`"
        raise Failed(Diagnostic("AC402", text, help=help))
    return next(iter(matching), None)


def offline_diagnostic(
    repo: str, revision: str, paths: Collection[str], repo_type: RepoType = "model"
) -> Diagnostic:
    """AC405 for files that are missing in offline mode, with the command that fetches them."""
    names = sorted(paths)
    label = f"{repo}@{revision[:12]}: {', '.join(names)}"
    arguments = f"{repo} {' '.join(names)} --revision {revision}"
    arguments += " --repo-type dataset" if repo_type == "dataset" else ""
    help = f"run this once while you are online: `hf download {arguments}`"
    return AC405.at(name=label, help=help)


def check_paths(paths: Collection[str], repo: str) -> None:
    """Raise Failed with AC413 unless all files can be written to a folder.

    A path must not leave the folder, and no two paths may be the same file, or a file and its
    folder, where names are case-insensitive.
    """
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
