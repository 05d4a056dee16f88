"""The Hugging Face Hub, or a server that speaks its protocol, behind the interface of a hub.

The client library checks the size of what it downloads; hashes are checked here. The listing of a
commit never changes, so it is kept, and a run whose files are in the cache needs no network.
"""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from adaptcompose.documents import write_atomically
from adaptcompose.hub.refs import is_repo_name, matches
from adaptcompose.hub.store import FileRecord, check_paths, verify
from adaptcompose.language.codes import AC401, AC402, AC404, AC405, AC413, AC415, AC419, AC420
from adaptcompose.language.diagnostics import Diagnostic, Failed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from huggingface_hub import HfApi

_FULL = re.compile(r"[0-9a-f]{40}")
_SHORT = re.compile(r"[0-9a-f]{7,39}")


class HuggingFaceStore:
    """`hub: hf`: public and private repositories of models."""

    def __init__(self, endpoint: str | None = None) -> None:
        self.endpoint = endpoint
        self.name = endpoint or "hf"

    def resolve(self, repo: str, revision: str | None = None) -> str:
        """The commit of a branch, a tag, `refs/pr/3` or an abbreviation; of `main` without one."""
        if revision is not None and _FULL.fullmatch(revision):
            return revision
        with self._translated(repo, revision):
            try:
                return str(self._api.repo_info(repo, revision=revision).sha)
            except _errors().RevisionNotFoundError:
                if revision is None or not _SHORT.fullmatch(revision):
                    raise
            return self._expanded(repo, revision)

    def files(self, repo: str, revision: str | None = None) -> dict[str, FileRecord]:
        """The files of a revision, sorted by path; large ones have a SHA-256, others git's hash."""
        revision = self.resolve(repo, revision)
        kept = self._listing(repo, revision)
        if kept.is_file():
            with contextlib.suppress(ValueError, KeyError, TypeError, OSError):
                return {
                    path: FileRecord(*entry)
                    for path, entry in json.loads(kept.read_bytes()).items()
                }
        with self._translated(repo, revision):
            tree = list(self._api.list_repo_tree(repo, revision=revision, recursive=True))
        found = {entry.path: _file_record(entry) for entry in tree if hasattr(entry, "blob_id")}
        check_paths(found, f"{repo}@{revision[:7]}")
        entries = {path: [f.size, f.sha256, f.blob] for path, f in sorted(found.items())}
        with contextlib.suppress(OSError):
            write_atomically(kept, json.dumps(entries))
        return dict(sorted(found.items()))

    def fetch(
        self, repo: str, revision: str | None = None, paths: Collection[str] | None = None
    ) -> Path:
        """The folder of the client's cache, once the files asked for (or all) were verified."""
        revision = self.resolve(repo, revision)
        recorded, label = self.files(repo, revision), f"{repo}@{revision[:7]}"
        folder: Path | None = None
        for path in sorted(recorded if paths is None else paths):
            if path not in recorded:
                raise Failed(AC413.at(file=f"{label}: {path}", why="there is no such file"))
            folder = self._download(repo, revision, path)
            try:
                verify(folder, path, recorded[path], label)
            except Failed:
                # A download cut off long ago may lie in the cache: once more, then no further.
                folder = self._download(repo, revision, path, again=True)
                verify(folder, path, recorded[path], label)
        if folder is None:
            raise Failed(AC413.at(file=label, why="it has no files"))
        return folder

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
        """One commit with every file; a repository that does not exist yet is made first."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        check_paths(files, repo)
        with self._translated(repo, branch, publishing=True):
            self._api.create_repo(repo, exist_ok=True, private=private)
            parent = self._api.repo_info(repo).sha
            held = {} if parent is None else self.files(repo, parent)
            added = [
                CommitOperationAdd(path, content if isinstance(content, bytes) else str(content))
                for path, content in sorted(files.items())
            ]
            gone = [CommitOperationDelete(path) for path in sorted({*delete} & {*held} - {*files})]
            made = self._api.create_commit(
                repo,
                [*added, *gone],
                commit_message=message or "Update",
                revision=branch,
                parent_commit=parent if branch == "main" else None,
            )
        return str(made.oid)

    def repositories(self, pattern: str = "*") -> list[str]:
        """The repositories of one author whose name fits a glob: `AdapterHub/bert-*`, sorted."""
        author, slash, glob = pattern.partition("/")
        if not slash or not is_repo_name(author):
            raise Failed(AC420.at(name=pattern, help="user/glob: one author at a time"))
        words = re.findall(r"[A-Za-z0-9_-]{3,}", re.sub(r"\{[^{}]*\}", " ", glob))
        with self._translated(pattern, None):
            found = list(
                self._api.list_models(author=author, search=max(words, key=len, default=None))
            )
        return sorted(entry.id for entry in found if matches(pattern, entry.id))

    @property
    def _api(self) -> HfApi:
        from huggingface_hub import HfApi, constants

        # A token is a password: it does not travel unencrypted to another machine.
        place = urlsplit(self.endpoint or constants.ENDPOINT)
        is_open = place.scheme == "http" and place.hostname not in ("localhost", "127.0.0.1", "::1")
        return HfApi(
            endpoint=self.endpoint, token=False if is_open else None, library_name="adaptcompose"
        )

    def _download(self, repo: str, revision: str, path: str, again: bool = False) -> Path:
        with self._translated(repo, revision):
            place = self._api.hf_hub_download(repo, path, revision=revision, force_download=again)
        return Path(str(place)).parents[path.count("/")]

    def _listing(self, repo: str, revision: str) -> Path:
        from huggingface_hub import constants

        host = urlsplit(self.endpoint or constants.ENDPOINT).netloc.replace(":", "_")
        folder = Path(constants.HF_HOME) / "adaptcompose" / host / repo.replace("/", "--")
        return folder / f"{revision}.json"

    def _expanded(self, repo: str, revision: str) -> str:
        commits = [commit.commit_id for commit in self._api.list_repo_commits(repo)]
        fitting = [commit for commit in commits if commit.startswith(revision)]
        if not fitting:
            raise Failed(AC402.at(repo=repo, revision=revision, known=f"`{commits[0][:7]}`"))
        if len(fitting) > 1:
            help = f"write more digits: {', '.join(found[:12] for found in fitting)}"
            text = f"`{revision}` fits {len(fitting)} revisions of `{repo}`"
            raise Failed(Diagnostic("AC402", text, help=help))
        return fitting[0]

    @contextlib.contextmanager
    def _translated(
        self, repo: str, revision: str | None, publishing: bool = False
    ) -> Iterator[None]:
        """What the client raises, as a diagnostic."""
        errors = _errors()
        try:
            yield
        except Failed:
            raise
        except errors.HFValidationError:
            raise Failed(AC420.at(name=repo)) from None
        except errors.OfflineModeIsEnabled:
            raise Failed(AC405.at(name=_label(repo, revision))) from None
        except (errors.GatedRepoError, errors.DisabledRepoError):
            raise Failed(AC404.at(repo=repo, help=self._terms(repo))) from None
        except errors.RevisionNotFoundError:
            raise Failed(self._unknown_revision(repo, str(revision))) from None
        except errors.LocalEntryNotFoundError as error:
            raise Failed(self._unreachable(repo, revision, error)) from None
        except errors.EntryNotFoundError:
            raise Failed(AC413.at(file=_label(repo, revision), why="a file is missing")) from None
        except errors.HfHubHTTPError as error:
            raise Failed(self._refused(repo, error, publishing)) from None
        except (OSError, errors.HTTPError, ValueError) as error:
            raise Failed(self._unreachable(repo, revision, error, publishing)) from None

    def _refused(self, repo: str, error: Any, publishing: bool) -> Diagnostic:
        status = getattr(error.response, "status_code", 0)
        if publishing:
            remedy = "hf auth login, with a token that may write" if status in (401, 403) else None
            return AC415.at(repo=repo, why=_reason(error), help=remedy)
        if isinstance(error, _errors().RepositoryNotFoundError):
            remedy = f"check the name; if it is private: hf auth login ({self._terms(repo)})"
            return AC401.at(repo=repo, hub=self.name, help=remedy)
        if status in (401, 403):
            return AC404.at(repo=repo)
        return AC419.at(hub=self.name, why=_reason(error))

    def _unreachable(
        self, repo: str, revision: str | None, error: BaseException, publishing: bool = False
    ) -> Diagnostic:
        from huggingface_hub import constants

        if constants.HF_HUB_OFFLINE:
            return AC405.at(name=_label(repo, revision))
        if publishing:
            return AC415.at(repo=repo, why=_reason(error))
        return AC419.at(hub=self.name, why=_reason(error))

    def _unknown_revision(self, repo: str, revision: str) -> Diagnostic:
        known = "`main`"
        with contextlib.suppress(OSError, ValueError):
            refs = self._api.list_repo_refs(repo)
            known = ", ".join(f"`{ref.name}`" for ref in [*refs.branches, *refs.tags][:12])
        return AC402.at(repo=repo, revision=revision, known=known)

    def _terms(self, repo: str) -> str:
        place = self.endpoint or "https://huggingface.co"
        return f"hf auth login, then accept its terms at {place}/{repo}"


def _errors() -> Any:
    from huggingface_hub import errors

    return errors


def _file_record(entry: Any) -> FileRecord:
    if entry.lfs is not None:
        return FileRecord(int(entry.lfs.size), sha256=str(entry.lfs.sha256))
    return FileRecord(int(entry.size), blob=str(entry.blob_id))


def _label(repo: str, revision: str | None) -> str:
    return f"{repo}@{revision[:12]}" if revision else repo


def _reason(error: BaseException) -> str:
    """The first line of an error, short and safe for a terminal."""
    message = str(getattr(error, "server_message", None) or error).strip() or type(error).__name__
    return "".join(filter(str.isprintable, message.splitlines()[0][:200]))
