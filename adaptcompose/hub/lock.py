"""`<spec>.lock`: everything that a run used, pinned by revision and hash.

>>> lock = Lock(spec="sha256:0", backbone=Pin(repo="demo/tiny", revision="0" * 40))
>>> print(lock)
# written by adaptcompose, do not edit
lock: 1
spec: sha256:0
hub: hf
backbone:
  repo: demo/tiny
  revision: '0000000000000000000000000000000000000000'
<BLANKLINE>
>>> Lock.parse(str(lock)) == lock
True
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptcompose.diagnostics.codes import AC410, AC413
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed
from adaptcompose.hub.store import FileRecord
from adaptcompose.storage.atomic import write_atomically
from adaptcompose.storage.yaml_source import dump_yaml, load_yaml
from adaptcompose.syntax.references import is_repo_name, is_safe_path

if TYPE_CHECKING:
    from collections.abc import Callable

VERSION = 1
SIZE_LIMIT = 1_000_000
HEADER = "# written by adaptcompose, do not edit\n"

_HASH = re.compile(r"[0-9a-f]{64}")
_BLOB = _REVISION = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Pin:
    """A repository at a revision, or a local folder or file, that a run used.

    `files` are the files that were read, relative to the subfolder or folder. `method` is the
    method of an adapter as an expression.
    """

    repo: str | None = None
    revision: str | None = None
    subfolder: str | None = None
    path: str | None = None
    method: str | None = None
    files: Mapping[str, FileRecord] = field(default_factory=dict)

    def __str__(self) -> str:
        if self.path is not None:
            return self.path
        folder = f"/{self.subfolder}" if self.subfolder else ""
        return f"{self.repo}@{(self.revision or '')[:7]}{folder}"

    @property
    def size(self) -> int:
        """The size of all its files in bytes."""
        return sum(file.size for file in self.files.values())

    def path_in_repo(self, name: str) -> str:
        """The path of one of its files in the repository."""
        return f"{self.subfolder}/{name}" if self.subfolder else name

    def as_plain(self) -> dict[str, Any]:
        texts = {name: getattr(self, name) for name in _TEXTS}
        entry: dict[str, Any] = {name: text for name, text in texts.items() if text is not None}
        if self.files:
            entry["files"] = {path: _plain_file(self.files[path]) for path in sorted(self.files)}
        return entry


_TEXTS = ("repo", "revision", "subfolder", "path", "method")


PrunedMembers = Mapping[str, Mapping[str, tuple[int, ...]]]
"""The members that `prune` keeps by fusion and site, those with the most attention first."""


@dataclass(frozen=True)
class Lock:
    """The pins of a run, sorted; printing a lock is the inverse of reading it.

    `spec` is the hash of the spec, `globs` the matches of each glob, `adapters` the pin of each
    reference, and `data` that of each data set. `members` are the members that each composition
    with `prune(data=…)` keeps of its fusions, by that data. `tokenizer` is pinned only if it is not
    the backbone's own.
    """

    spec: str
    backbone: Pin
    hub: str = "hf"
    globs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    adapters: Mapping[str, Pin] = field(default_factory=dict)
    data: Mapping[str, Pin] = field(default_factory=dict)
    members: Mapping[str, Mapping[str, PrunedMembers]] = field(default_factory=dict)
    tokenizer: Pin | None = None

    def as_plain(self) -> dict[str, Any]:
        entry: dict[str, Any] = {"lock": VERSION, "spec": self.spec, "hub": self.hub}
        entry["backbone"] = self.backbone.as_plain()
        if self.tokenizer is not None:
            entry["tokenizer"] = self.tokenizer.as_plain()
        if self.globs:
            entry["globs"] = {glob: list(self.globs[glob]) for glob in sorted(self.globs)}
        for name in ("adapters", "data"):
            if pins := getattr(self, name):
                entry[name] = {key: pins[key].as_plain() for key in sorted(pins)}
        if self.members:
            entry["members"] = _plain_members(self.members)
        return entry

    def __str__(self) -> str:
        return HEADER + dump_yaml(self.as_plain())

    @classmethod
    def parse(cls, text: str, name: str = "spec.lock") -> Lock:
        """Read a lock; raises Failed with AC413 if it is damaged. Messages call the file `name`."""
        data = load_yaml(text, name)
        try:
            return _read_lock(data)
        except _DamagedError as error:
            raise Failed(
                AC413.at(file=name, why=str(error), help=f"remove it: `rm {name}`")
            ) from None

    @classmethod
    def load(cls, path: Path) -> Lock | None:
        """The lock of a file, or None if there is no such file."""
        path = Path(path)
        try:
            if path.stat().st_size > SIZE_LIMIT:
                raise Failed(AC413.at(file=path.name, why="it is larger than 1 MB"))
            return cls.parse(path.read_text("utf-8"), path.name)
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise Failed(AC413.at(file=path.name, why=str(error))) from None

    def write(self, path: Path) -> None:
        """Write the file, unless it has this content already and may keep its time."""
        path = Path(path)
        if not path.is_file() or path.read_bytes() != str(self).encode():
            write_atomically(path, str(self))


def hash_plain(value: Any) -> str:
    """The hash of plain values, whatever the order of their keys: `spec: sha256:…` in a lock.

    >>> hash_plain({"a": 1, "b": [2]}) == hash_plain({"b": [2], "a": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def compare_locks(old: Lock, new: Lock, name: str = "spec.lock") -> list[Diagnostic]:
    """AC410 for every difference between two locks."""
    changed: list[str] = []
    if old.hub != new.hub:
        changed.append("`hub`")
    changed += _differences("`backbone`", old.backbone, new.backbone)
    if old.tokenizer != new.tokenizer:
        changed += _differences("`backbone.tokenizer`", old.tokenizer, new.tokenizer)
    for glob in sorted({*old.globs, *new.globs}):
        changed += _members(glob, old.globs.get(glob, ()), new.globs.get(glob, ()))
    for section in ("adapters", "data"):
        before, after = getattr(old, section), getattr(new, section)
        for key in sorted({*before, *after}):
            changed += _differences(f"`{key}`", before.get(key), after.get(key))
    if not changed:
        gone = (text for text, kept in old.members.items() if new.members.get(text) != kept)
        changed += [f"the members kept of `{text}`" for text in gone]
    if old.spec != new.spec and not changed:
        changed.append("the spec")
    return [AC410.at(lock=name, what=what) for what in changed]


def _members(glob: str, old: tuple[str, ...], new: tuple[str, ...]) -> list[str]:
    gone, come = sorted({*old} - {*new}), sorted({*new} - {*old})
    if not gone and not come:
        return [f"the order of `{glob}`"] if old != new else []
    parts = [f"without {', '.join(gone)}"] * bool(gone) + [f"with {', '.join(come)}"] * bool(come)
    return [f"`{glob}` ({' and '.join(parts)})"]


def _differences(label: str, old: Pin | None, new: Pin | None) -> list[str]:
    if old is None or new is None:
        return [f"{label} ({'new' if old is None else 'no longer used'})"]
    found = []
    for name in _TEXTS:
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            shown = [(text or "none")[:12] if name == "revision" else text or "none"
                     for text in (before, after)]  # fmt: skip
            found.append(f"{name} {shown[0]} to {shown[1]}")
    if not found:
        paths = {*old.files, *new.files}
        found = [p for p in sorted(paths) if old.files.get(p) != new.files.get(p)]
    return [f"{label} ({', '.join(found)})"] if found else []


class _DamagedError(Exception):
    """A lock is damaged; the message is the reason."""


def _plain_file(file: FileRecord) -> dict[str, Any]:
    hashes = {"sha256": file.sha256, "blob": file.blob}
    return {"size": file.size, **{name: value for name, value in hashes.items() if value}}


_KEYS = {"lock", "spec", "hub", "backbone", "tokenizer", "globs", "adapters", "data", "members"}


def _read_lock(data: Any) -> Lock:
    entry = _mapping(data, _KEYS)
    if entry.get("lock") != VERSION:
        raise _DamagedError(f"it has version {entry.get('lock')}, not {VERSION}")
    globs = _mapping(entry.get("globs", {}))
    if not all(isinstance(names, list) for names in globs.values()):
        raise _DamagedError("the matches of a glob must be a list")
    return Lock(
        spec=_text(entry.get("spec")),
        hub=_text(entry.get("hub")),
        backbone=_read_pin(entry.get("backbone")),
        globs={glob: tuple(map(_text, names)) for glob, names in globs.items()},
        adapters=_each(entry.get("adapters", {})),
        data=_each(entry.get("data", {})),
        members=_read_members(entry.get("members", {})),
        tokenizer=_read_pin(entry["tokenizer"]) if "tokenizer" in entry else None,
    )


def _plain_members(members: Mapping[str, Mapping[str, PrunedMembers]]) -> dict[str, Any]:
    return {
        text: {
            data: {
                name: {site: list(sites[site]) for site in sites} for name, sites in kept.items()
            }
            for data, kept in sorted(measured.items())
        }
        for text, measured in sorted(members.items())
    }


def _read_members(data: Any) -> dict[str, dict[str, PrunedMembers]]:
    return {
        text: {
            name: {
                fusion: {site: _numbers(found) for site, found in _mapping(sites).items()}
                for fusion, sites in _mapping(kept).items()
            }
            for name, kept in _mapping(measured).items()
        }
        for text, measured in _mapping(data).items()
    }


def _numbers(data: Any) -> tuple[int, ...]:
    if not isinstance(data, list) or not all(type(number) is int for number in data) or not data:
        raise _DamagedError("kept members must be a list of numbers")
    return tuple(data)


def _each(data: Any) -> dict[str, Pin]:
    return {key: _read_pin(value) for key, value in _mapping(data).items()}


def _read_pin(data: Any) -> Pin:
    entry = dict(_mapping(data, {*_TEXTS, "files"}))
    files = {
        _checked(path, is_safe_path, "name of a file"): _read_file(file)
        for path, file in _mapping(entry.pop("files", {})).items()
    }
    texts = {name: _text(value) for name, value in entry.items()}
    for name, is_fine in _CHECKS.items():
        if name in texts:
            _checked(texts[name], is_fine, name)
    return Pin(**texts, files=files)


_CHECKS: dict[str, Callable[[str], Any]] = {
    "repo": is_repo_name,
    "revision": _REVISION.fullmatch,
    "subfolder": is_safe_path,
}


def _read_file(data: Any) -> FileRecord:
    entry = _mapping(data, {"size", "sha256", "blob"})
    size, sha256, blob = entry.get("size"), entry.get("sha256"), entry.get("blob")
    if not isinstance(size, int) or isinstance(size, bool) or (sha256 is None and blob is None):
        raise _DamagedError("a file must have a size and a hash")
    if sha256 is not None:
        _checked(_text(sha256), _HASH.fullmatch, "sha256")
    if blob is not None:
        _checked(_text(blob), _BLOB.fullmatch, "blob")
    return FileRecord(size, sha256, blob)


def _mapping(data: Any, keys: set[str] | None = None) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise _DamagedError("a mapping is missing")
    if keys is not None and (unknown := sorted({*data} - keys)):
        raise _DamagedError(f"it has an unknown key `{unknown[0]}`")
    return data


def _text(data: Any) -> str:
    if not isinstance(data, str) or not data:
        raise _DamagedError("a string is missing")
    return data


def _checked(text: str, is_fine: Callable[[str], Any], what: str) -> str:
    if not is_fine(text):
        raise _DamagedError(f"`{text[:60]}` is not a valid {what}")
    return text
