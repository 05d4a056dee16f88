"""A hub in a folder: it keeps every revision, hashes every file, and commits all or nothing.

    <hub>/<user>/<repo>/revisions/<40 hex>/...    the files of a revision
    <hub>/<user>/<repo>/revisions/<40 hex>.json   its parent, message and file hashes
    <hub>/<user>/<repo>/refs/<branch>             the newest revision of a branch
    <hub>/<user>/<repo>/tags/<tag>                a name for one revision

The name of a revision is a hash of its content and its parent. A revision exists once a branch or a
later revision names it, so whatever an interrupted commit leaves is ignored.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptcompose.diagnostics.codes import AC401, AC402, AC411, AC412, AC413, AC415, AC420, AC433
from adaptcompose.diagnostics.diagnostic import Failed, suggest
from adaptcompose.hub.readme import hit_from_file, matches_words
from adaptcompose.hub.store import (
    FileRecord,
    PullRequest,
    RepositoryHit,
    check_paths,
    expand_abbreviation,
    file_record,
    verify_file,
    walk_files,
)
from adaptcompose.storage.atomic import write_atomically
from adaptcompose.syntax.references import is_repo_name, is_revision, matches_glob

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

MANIFEST_LIMIT = 16_000_000
BRANCH = "main"

_HEX = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class RevisionManifest:
    """The content of a revision: its parent, its files and its message."""

    parent: str | None
    files: dict[str, FileRecord]
    message: str = ""

    @property
    def revision(self) -> str:
        """The hash of content and parent: the same commit has the same name in every hub."""
        content = {path: [file.size, file.sha256] for path, file in self.files.items()}
        text = json.dumps(["adaptcompose revision 1", self.parent, content], sort_keys=True)
        return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def as_json(self) -> str:
        files = {
            path: {"size": file.size, "sha256": file.sha256}
            for path, file in sorted(self.files.items())
        }
        data = {"parent": self.parent, "message": self.message, "files": files}
        return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


class FolderStore:
    """`hub: ./dir`: a hub in a folder."""

    def __init__(self, root: Path, name: str | None = None) -> None:
        self.root = Path(root).absolute()
        self.name = name or str(root)

    def list_repositories(self, pattern: str = "*") -> list[str]:
        """The repositories with a commit on `main` whose name matches a glob, sorted."""
        heads = self.root.glob(f"*/*/refs/{BRANCH}")
        names = {"/".join(head.relative_to(self.root).parts[:2]) for head in heads}
        return sorted(
            n for n in names if is_repo_name(n) and (pattern == "*" or matches_glob(pattern, n))
        )

    def resolve(self, repo: str, revision: str | None = None) -> str:
        """The revision that a branch, a tag or at least seven digits mean."""
        head = self._head(repo)
        if revision is None and head is not None:
            return head
        known = (
            self._known_revisions(repo) if head is not None or self._folder(repo).is_dir() else []
        )
        if not known:
            raise self._unknown_repo(repo)
        wanted = revision or BRANCH
        if wanted in known:
            return wanted
        for kind in ("refs", "tags"):
            if (found := self._pointer(repo, kind, wanted)) is not None:
                return found
        return self._abbreviated(repo, wanted, known)

    def history(self, repo: str, revision: str | None = None) -> list[str]:
        """A revision and its ancestors, newest first."""
        ancestors, step = [], self.resolve(repo, revision)
        while step not in ancestors:
            ancestors.append(step)
            step = self._manifest(repo, step).parent or step
        return ancestors

    def list_files(self, repo: str, revision: str | None = None) -> dict[str, FileRecord]:
        """The files of a revision, sorted by path."""
        return dict(sorted(self._manifest(repo, self.resolve(repo, revision)).files.items()))

    def fetch(
        self, repo: str, revision: str | None = None, paths: Collection[str] | None = None
    ) -> Path:
        """The folder of a revision, after the files in `paths` (default: all) are verified."""
        revision = self.resolve(repo, revision)
        recorded = self._manifest(repo, revision).files
        folder, label = self._revision_folder(repo, revision), f"{repo}@{revision[:7]}"
        for path in sorted(recorded if paths is None else paths):
            if path not in recorded:
                raise Failed(AC413.at(file=f"{label}: {path}", why="the file does not exist"))
            self._refuse_links(folder / path)
            verify_file(folder, path, recorded[path], label)
        for path in set(walk_files(folder)) - set(recorded):
            raise Failed(
                AC413.at(file=f"{label}: {path}", why="it was added to the folder after publishing")
            )
        return folder

    def tag(self, repo: str, name: str, revision: str | None = None) -> None:
        """Name a revision with a tag."""
        if not is_revision(name) or _HEX.fullmatch(name):
            raise Failed(AC415.at(repo=repo, why=f"`{name}` is not a valid name for a tag"))
        found = self.resolve(repo, revision)
        with _translate_os_errors(repo), _commit_lock(self._folder(repo) / "revisions"):
            write_atomically(self._folder(repo) / "tags" / name, f"{found}\n")

    def commit(
        self,
        repo: str,
        files: Mapping[str, Path | bytes],
        *,
        message: str,
        delete: Collection[str] = (),
        branch: str = BRANCH,
        private: bool | None = None,
    ) -> str:
        """Add a revision: the parent's files without `delete`, replaced or extended by `files`.

        If the commit is interrupted, the branch still names a complete revision, the old one or
        the new one. A commit without a change returns the parent.
        """
        if not is_revision(branch):
            raise Failed(AC415.at(repo=repo, why=f"`{branch}` is not a valid name for a branch"))
        revisions = self._folder(repo) / "revisions"
        with _translate_os_errors(repo):
            revisions.mkdir(parents=True, exist_ok=True)
            with _commit_lock(revisions):
                self._remove_drafts(repo)
                parent = self._pointer(repo, "refs", branch)
                old = self._manifest(repo, parent).files if parent else {}
                kept = {path: old[path] for path in old if path not in {*files, *delete}}
                check_paths([*kept, *files], repo)
                return self._commit(repo, branch, (parent, kept, files, message))

    def open_pull_request(
        self,
        repo: str,
        files: Mapping[str, Path | bytes],
        *,
        message: str,
        delete: Collection[str] = (),
    ) -> PullRequest:
        """Raise Failed with AC433: a folder has no pull requests."""
        raise Failed(AC433.at(hub=self.name))

    def search(self, words: Collection[str], *, language: str | None = None) -> list[RepositoryHit]:
        """The repositories with every word in their name or card, sorted."""
        heads = [
            (repo, self._revision_folder(repo, self.resolve(repo)))
            for repo in self.list_repositories()
        ]
        hits = (hit_from_file(repo, folder / "README.md") for repo, folder in heads)
        matching = [hit for hit in hits if matches_words(hit, tuple(words))]
        return [hit for hit in matching if language is None or language in hit.languages]

    def is_public(self, repo: str) -> bool:
        """True: whoever can read the folder can read every repository in it."""
        return True

    def unavailable_files(self, repo: str, revision: str, paths: Collection[str]) -> list[str]:
        """Always empty, since a folder is on this machine."""
        return []

    def uncached_files(self, repo: str, revision: str, paths: Collection[str]) -> list[str]:
        """Always empty, since a folder is on this machine."""
        return []

    def _commit(
        self,
        repo: str,
        branch: str,
        change: tuple[str | None, dict[str, FileRecord], Mapping[str, Path | bytes], str],
    ) -> str:
        parent, kept, files, message = change
        draft = self._folder(repo) / "revisions" / f".draft-{secrets.token_hex(8)}"
        try:
            draft.mkdir()
            for path, file in kept.items():
                self._keep(repo, str(parent), draft, path, file)
            new = {path: _write(draft / path, content) for path, content in files.items()}
            manifest = RevisionManifest(parent, {**kept, **new}, message)
            if parent and manifest.files == self._manifest(repo, parent).files:
                return parent
            for folder in (draft, *(path for path in draft.rglob("*") if path.is_dir())):
                _sync(folder)
            self._install(repo, branch, draft, manifest)
            return manifest.revision
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _keep(self, repo: str, parent: str, draft: Path, path: str, file: FileRecord) -> None:
        """Put an unchanged file into a draft: as a hard link if the file system has them."""
        old, new = self._revision_folder(repo, parent), draft / path
        self._refuse_links(old / path)
        verify_file(old, path, file, f"{repo}@{parent[:7]}")
        new.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(old / path, new)
        except OSError:
            _write(new, old / path)

    def _install(self, repo: str, branch: str, draft: Path, manifest: RevisionManifest) -> None:
        """Make a draft a revision by three renames: of its files, its manifest, and the branch."""
        revision = manifest.revision
        folder = self._revision_folder(repo, revision)
        page, head = folder.with_suffix(".json"), self._folder(repo) / "refs" / branch
        is_known = revision in self._known_revisions(repo)
        try:
            if not is_known:
                # an interrupted commit of the same content may have left both
                page.unlink(missing_ok=True)
                shutil.rmtree(folder, ignore_errors=True)
                draft.replace(folder)
                _sync(folder.parent)
                write_atomically(page, manifest.as_json())
            write_atomically(head, f"{revision}\n")
        except BaseException as error:
            if self._pointer(repo, "refs", branch) == revision:
                if isinstance(error, OSError):
                    return
                raise
            if not is_known:
                page.unlink(missing_ok=True)
                shutil.rmtree(folder, ignore_errors=True)
            raise

    def _remove_drafts(self, repo: str) -> None:
        """Remove what a killed process left; under the lock no other process is writing."""
        for draft in (self._folder(repo) / "revisions").glob(".*"):
            if draft.is_dir() and not draft.is_symlink():
                shutil.rmtree(draft, ignore_errors=True)
            else:
                draft.unlink(missing_ok=True)
        for kind in ("refs", "tags"):
            for draft in (self._folder(repo) / kind).rglob(".*.tmp"):
                draft.unlink(missing_ok=True)

    def _folder(self, repo: str) -> Path:
        if not is_repo_name(repo) or repo.count("/") != 1:
            raise Failed(AC420.at(name=repo))
        return self.root / repo

    def _revision_folder(self, repo: str, revision: str) -> Path:
        return self._folder(repo) / "revisions" / revision

    def _head(self, repo: str) -> str | None:
        return self._pointer(repo, "refs", BRANCH)

    def _pointer(self, repo: str, kind: str, name: str) -> str | None:
        """The revision that a branch or tag names."""
        path = self._folder(repo) / kind / name
        if not is_revision(name) or not path.is_file():
            return None
        self._refuse_links(path)
        with path.open("rb") as file:
            text = file.read(64).decode("ascii", "replace").strip()
        if not _HEX.fullmatch(text):
            raise Failed(
                AC413.at(file=f"{repo}: {kind}/{name}", why="it does not contain a revision")
            )
        return text

    def _names(self, repo: str, kind: str) -> list[str]:
        folder = self._folder(repo) / kind
        return walk_files(folder) if folder.is_dir() else []

    def _known_revisions(self, repo: str) -> list[str]:
        """All revisions that branches and tags name, and their ancestors."""
        pointers = [(kind, name) for kind in ("refs", "tags") for name in self._names(repo, kind)]
        ahead = [self._pointer(repo, kind, name) for kind, name in pointers]
        known: dict[str, None] = {}
        while ahead:
            revision = ahead.pop()
            if revision is not None and revision not in known:
                known[revision] = None
                ahead.append(self._manifest(repo, revision).parent)
        return sorted(known)

    def _abbreviated(self, repo: str, wanted: str, known: list[str]) -> str:
        expanded = expand_abbreviation(repo, wanted, known)
        if expanded is None:
            names = [*self._names(repo, "refs"), *self._names(repo, "tags")]
            shown = ", ".join([f"`{name}`" for name in names] or [f"`{known[0][:7]}`"])
            raise Failed(AC402.at(repo=repo, revision=wanted, known=shown))
        return expanded

    def _manifest(self, repo: str, revision: str) -> RevisionManifest:
        path = self._revision_folder(repo, revision).with_suffix(".json")
        label = f"{repo}@{revision[:7]}"
        self._refuse_links(path)
        try:
            if path.stat().st_size > MANIFEST_LIMIT:
                raise ValueError("too long")
            manifest = _parse(json.loads(path.read_bytes()))
        except FileNotFoundError:
            raise Failed(AC413.at(file=label, why="its manifest is missing")) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise Failed(AC413.at(file=label, why="its manifest is damaged")) from None
        if manifest.revision != revision:
            raise Failed(AC411.at(file=path.name, repo=label))
        check_paths(manifest.files, label)
        return manifest

    def _refuse_links(self, path: Path) -> None:
        """Raise Failed with AC413 for a symbolic link, which could lead to any file."""
        for step in (path, *path.parents):
            if step == self.root:
                return
            if step.is_symlink():
                shown = path.relative_to(self.root).as_posix()
                raise Failed(AC413.at(file=shown, why="it is a symbolic link"))

    def _unknown_repo(self, repo: str) -> Failed:
        if not self.root.is_dir():
            return Failed(AC412.at(path=self.name, root="the folder of the spec"))
        near = suggest(repo, self.list_repositories())
        return Failed(AC401.at(repo=repo, hub=self.name, help=near))


def _parse(data: Any) -> RevisionManifest:
    files = {
        str(path): FileRecord(int(file["size"]), str(file["sha256"]))
        for path, file in data["files"].items()
    }
    parent = data["parent"]
    if parent is not None and not _HEX.fullmatch(parent):
        raise ValueError("parent")
    return RevisionManifest(parent, files, str(data["message"]))


def _write(place: Path, content: Path | bytes) -> FileRecord:
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("xb") as target:
        if isinstance(content, bytes):
            target.write(content)
        else:
            with Path(content).open("rb") as source:
                shutil.copyfileobj(source, target, 1 << 20)
        target.flush()
        os.fsync(target.fileno())
    return file_record(place)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _commit_lock(folder: Path) -> Iterator[None]:
    """Let one process commit at a time; the lock ends with the process, even if it is killed."""
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def _translate_os_errors(repo: str) -> Iterator[None]:
    """Report errors of the file system, such as a full disk, as AC415."""
    try:
        yield
    except OSError as error:
        raise Failed(AC415.at(repo=repo, why=error.strerror or str(error))) from None
