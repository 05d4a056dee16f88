"""The changes that a push would make: files, sizes, and lines of text files."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.hub.store import FileRecord, Store, is_same_content

_TEXT_SUFFIXES = (".md", ".yaml", ".lock", ".json")
_TEXT_LIMIT = 1_000_000
_MISSING_CODES = {"AC401", "AC402", "AC412"}


@dataclass(frozen=True)
class FileChange:
    """The change of one file: `+` new, `~` changed, `-` deleted, `=` unchanged. Size in bytes."""

    path: str
    mark: Literal["+", "~", "-", "="]
    size: int


@dataclass(frozen=True)
class PushDiff:
    """The changes of a push, sorted by path; `text` is the unified diff of the text files."""

    files: tuple[FileChange, ...]
    text: str
    is_new: bool

    @property
    def upload_bytes(self) -> int:
        """Bytes to upload: of new and changed files."""
        return sum(one.size for one in self.files if one.mark in "+~")

    def count(self, mark: str) -> int:
        return sum(one.mark == mark for one in self.files)

    def as_plain(self) -> dict[str, Any]:
        return {"new": self.is_new, "files": [vars(one) for one in self.files], "diff": self.text}

    def __str__(self) -> str:
        lines = [f"  {f.mark} {f.path}  {format_size(f.size)}" for f in self.files if f.mark != "="]
        if unchanged := self.count("="):
            lines.append(f"  = {unchanged} unchanged")
        return "\n".join(lines)


def format_size(count: int) -> str:
    """A number of bytes in B, kB or MB.

    >>> format_size(412), format_size(29_600_000)
    ('412 B', '29.6 MB')
    """
    for unit, width in (("MB", 1_000_000), ("kB", 1_000)):
        if count >= width:
            return f"{count / width:.1f} {unit}"
    return f"{count} B"


def remote_files(store: Store, repo: str, branch: str) -> dict[str, FileRecord] | None:
    """The files of a branch; None if the branch or the repository does not exist yet."""
    try:
        return store.list_files(repo, branch)
    except Failed as failed:
        if {one.code for one in failed.diagnostics} & _MISSING_CODES:
            return None
        raise


def diff_files(
    store: Store, repo: str, branch: str, files: Mapping[str, Path], obsolete: Collection[str]
) -> PushDiff:
    """Compare a branch with itself after `files` are written and `obsolete` paths deleted."""
    old = remote_files(store, repo, branch)
    changes = sorted(_changes(old or {}, files, obsolete), key=lambda change: change.path)
    texts = [change for change in changes if change.mark in "~-" and _is_text(change)]
    folder = store.fetch(repo, branch, [change.path for change in texts]) if texts else Path()
    lines = [
        line
        for change in texts
        for line in _diff_lines(change.path, folder, files.get(change.path))
    ]
    return PushDiff(tuple(changes), "\n".join(lines), old is None)


def _changes(
    old: Mapping[str, FileRecord], files: Mapping[str, Path], obsolete: Collection[str]
) -> Iterator[FileChange]:
    for path, content in files.items():
        known = old.get(path)
        mark: Literal["+", "~", "="] = "+"
        if known is not None:
            mark = "=" if is_same_content(content, known) else "~"
        yield FileChange(path, mark, content.stat().st_size)
    for path in {*obsolete} & old.keys() - files.keys():
        yield FileChange(path, "-", old[path].size)


def _is_text(change: FileChange) -> bool:
    return change.path.endswith(_TEXT_SUFFIXES) and change.size <= _TEXT_LIMIT


def _diff_lines(path: str, old: Path, new: Path | None) -> Iterator[str]:
    before = (old / path).read_text("utf-8", "replace").splitlines()
    after = new.read_text("utf-8", "replace").splitlines() if new is not None else []
    return difflib.unified_diff(before, after, f"hub/{path}", f"new/{path}", lineterm="")
