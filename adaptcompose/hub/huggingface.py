"""The Hugging Face Hub, or another server with its protocol, as a hub.

The client library checks the sizes of downloads; hashes are verified here. The listing of a commit
never changes, so it is cached, and a run whose files are in the cache needs no network. The client
may wait without a limit: here a request ends after `REQUEST_TIMEOUT` seconds without an answer, and
one that writes after `WRITE_TIMEOUT_FACTOR` times as many.
"""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from adaptcompose.diagnostics.codes import AC402, AC411, AC413, AC420
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.hub import hf_commit
from adaptcompose.hub.hf_errors import HubRequest, translate_errors
from adaptcompose.hub.readme import hit_from_metadata, matches_words
from adaptcompose.hub.store import (
    FileRecord,
    PullRequest,
    RepositoryHit,
    RepoType,
    check_paths,
    expand_abbreviation,
    is_abbreviation,
    is_same_content,
    offline_diagnostic,
    verify_file,
)
from adaptcompose.storage.atomic import write_atomically
from adaptcompose.syntax.references import is_repo_name, matches_glob

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from huggingface_hub import HfApi

    Files = Mapping[str, Path | bytes]

REQUEST_TIMEOUT, WRITE_TIMEOUT_FACTOR, REACHABILITY_TIMEOUT = 20.0, 6, 5.0
LIBRARIES = ("adapter-transformers", "peft")
"""The tags under which the Hub lists adapters; adaptcompose publishes under the first."""

_FULL = re.compile(r"[0-9a-f]{40}")
_MOST_FOUND = 200


class HuggingFaceStore:
    """`hub: hf`: public and private repositories of models, or of data sets for reading."""

    def __init__(self, endpoint: str | None = None, repo_type: RepoType = "model") -> None:
        self.endpoint, self.repo_type = endpoint, repo_type
        self.name = endpoint or "hf"

    def resolve(self, repo: str, revision: str | None = None) -> str:
        """The commit of a branch, a tag, `refs/pr/3` or an abbreviation; by default of `main`.

        In offline mode it is the commit of the last online request.
        """
        if revision is not None and _FULL.fullmatch(revision):
            return revision
        note = self._folder(repo) / "refs" / quote(revision or "main", safe="")
        if self._offline and note.is_file():
            return note.read_text("ascii").strip()
        with self._hub_call(repo, revision):
            try:
                info = self._api.repo_info(repo, revision=revision, repo_type=self.repo_type)
                found = str(info.sha)
            except _errors().RevisionNotFoundError:
                if revision is None or not is_abbreviation(revision):
                    raise
                found = self._expanded(repo, revision)
        with contextlib.suppress(OSError):
            write_atomically(note, found)
        return found

    def list_files(self, repo: str, revision: str | None = None) -> dict[str, FileRecord]:
        """The files of a revision, sorted by path, with SHA-256 (large files) or git's hash."""
        revision = self.resolve(repo, revision)
        if (known := self._listed(repo, revision)) is not None:
            return known
        with self._hub_call(repo, revision):
            tree = list(
                self._api.list_repo_tree(
                    repo, revision=revision, recursive=True, repo_type=self.repo_type
                )
            )
        found = {
            entry.path: hf_commit.record_from_listing(entry)
            for entry in tree
            if hasattr(entry, "blob_id")
        }
        check_paths(found, f"{repo}@{revision[:7]}")
        entries = {path: [f.size, f.sha256, f.blob] for path, f in sorted(found.items())}
        with contextlib.suppress(OSError):
            write_atomically(self._folder(repo) / f"{revision}.json", json.dumps(entries))
        return dict(sorted(found.items()))

    def fetch(
        self, repo: str, revision: str | None = None, paths: Collection[str] | None = None
    ) -> Path:
        """The folder in the client's cache with the files in `paths` (default: all), verified."""
        revision = self.resolve(repo, revision)
        label = f"{repo}@{revision[:7]}"
        if self._offline:
            wanted = self.list_files(repo, revision) if paths is None else paths
            recorded = self._cached_records(repo, revision, wanted)
        else:
            recorded = self.list_files(repo, revision)
        folder: Path | None = None
        for path in sorted(recorded if paths is None else paths):
            if path not in recorded:
                raise Failed(AC413.at(file=f"{label}: {path}", why="the file does not exist"))
            folder = self._download(repo, revision, path)
            try:
                verify_file(folder, path, recorded[path], label)
            except Failed:
                if self._offline:
                    raise
                # the cache may have a file that was cut off earlier: download it once more
                folder = self._download(repo, revision, path, force=True)
                verify_file(folder, path, recorded[path], label)
        if folder is None:
            raise Failed(AC413.at(file=label, why="it has no files"))
        return folder

    def unavailable_files(self, repo: str, revision: str, paths: Collection[str]) -> list[str]:
        """In offline mode the files in `paths` that are not in the cache, sorted."""
        return self.uncached_files(repo, revision, paths) if self._offline else []

    def uncached_files(self, repo: str, revision: str, paths: Collection[str]) -> list[str]:
        """The files in `paths` that are not in the cache, sorted."""
        return sorted(path for path in paths if self._cached(repo, revision, path) is None)

    def read_range(self, repo: str, revision: str, path: str, start: int, stop: int) -> bytes:
        """The bytes of a file from `start` to `stop`: from the cache, or by a range request."""
        if (cached := self._cached(repo, revision, path)) is not None:
            with cached.open("rb") as file:
                file.seek(start)
                return file.read(stop - start)
        import huggingface_hub

        client: Any = huggingface_hub.utils
        url = huggingface_hub.hf_hub_url(
            repo, path, revision=revision, endpoint=self.endpoint, repo_type=self.repo_type
        )
        headers = client.build_hf_headers(token=self._api.token, library_name="adaptcompose")
        headers["range"] = f"bytes={start}-{stop - 1}"
        with self._hub_call(repo, revision):
            response = client.get_session().get(url, headers=headers, follow_redirects=True)
            client.hf_raise_for_status(response)
        content: bytes = response.content
        # a server without range requests answers with the whole file
        return content if response.status_code == 206 else content[start:stop]

    def commit(
        self,
        repo: str,
        files: Files,
        *,
        message: str,
        delete: Collection[str] = (),
        branch: str = "main",
        private: bool | None = None,
    ) -> str:
        """Commit all files; creates the branch and the repository if needed.

        Raises Failed with AC431 if somebody else commits in between, and with AC411 if the hub
        lists a file with another hash afterwards.
        """
        check_paths(files, repo)
        with self._hub_call(repo, branch, is_push=True):
            change = hf_commit.Commit(repo, files, delete, message)
            made = hf_commit.push(self._api, change, branch, private)
        self._verify(repo, made, files)
        return made

    def open_pull_request(
        self, repo: str, files: Files, *, message: str, delete: Collection[str] = ()
    ) -> PullRequest:
        """Open a pull request against `main` with one commit of all files."""
        check_paths(files, repo)
        with self._hub_call(repo, is_push=True):
            made = hf_commit.open_pull_request(
                self._api, hf_commit.Commit(repo, files, delete, message)
            )
        self._verify(repo, made.revision, files)
        return made

    def list_repositories(self, pattern: str = "*") -> list[str]:
        """The repositories of one author whose name matches `AdapterHub/bert-*`, sorted."""
        author, slash, glob = pattern.partition("/")
        if not slash or not is_repo_name(author):
            raise Failed(AC420.at(name=pattern, help="write `user/glob`, with one author"))
        words = re.findall(r"[A-Za-z0-9_-]{3,}", re.sub(r"\{[^{}]*\}", " ", glob))
        with self._hub_call(pattern):
            self._reach()
            listed = list(
                self._api.list_models(author=author, search=max(words, key=len, default=None))
            )
        return sorted(entry.id for entry in listed if matches_glob(pattern, entry.id))

    def search(self, words: Collection[str], *, language: str | None = None) -> list[RepositoryHit]:
        """The adapters that match every word, the most downloaded first.

        The hub is asked for the longest word; all words are matched here.
        """
        longest = max(words, key=len, default=None)
        hits: dict[str, RepositoryHit] = {}
        with self._hub_call(" ".join(words) or "*"):
            self._reach()
            for library in LIBRARIES:
                marks = [library, *([language] if language else [])]
                listed = self._api.list_models(
                    filter=marks, search=longest, sort="downloads", limit=_MOST_FOUND, full=True
                )
                for entry in listed:
                    hit = hit_from_metadata(entry.id, _metadata(entry), tuple(entry.tags or ()))
                    hits[entry.id] = replace(hit, downloads=entry.downloads)
        matching = [hit for hit in hits.values() if matches_words(hit, tuple(words))]
        return sorted(matching, key=lambda hit: (-(hit.downloads or 0), hit.repo))

    def is_public(self, repo: str) -> bool:
        """Whether a repository is neither private nor gated."""
        with self._hub_call(repo):
            info = self._api.repo_info(repo)
        return not info.private and not getattr(info, "gated", False)

    def describe(self, repo: str) -> tuple[RepositoryHit, str]:
        """The metadata of a repository, and its newest commit."""
        with self._hub_call(repo):
            info: Any = self._api.repo_info(repo)
        hit = hit_from_metadata(info.id, _metadata(info), tuple(info.tags or ()))
        return replace(hit, downloads=info.downloads), str(info.sha)

    @property
    def _endpoint_url(self) -> str:
        from huggingface_hub import constants

        return self.endpoint or str(constants.ENDPOINT)

    @property
    def _offline(self) -> bool:
        from huggingface_hub import constants

        return bool(constants.HF_HUB_OFFLINE)

    @property
    def _api(self) -> HfApi:
        from huggingface_hub import HfApi

        # a token is a password, so it is not sent unencrypted to another machine
        place = urlsplit(self._endpoint_url)
        is_open = place.scheme == "http" and place.hostname not in ("localhost", "127.0.0.1", "::1")
        return HfApi(
            endpoint=self.endpoint, token=False if is_open else None, library_name="adaptcompose"
        )

    @contextlib.contextmanager
    def _hub_call(
        self, repo: str, revision: str | None = None, is_push: bool = False
    ) -> Iterator[None]:
        """Report exceptions of the client as diagnostics, and limit how long its requests take."""

        def known() -> str:
            with contextlib.suppress(Exception), _limit_timeouts():
                refs = self._api.list_repo_refs(repo, repo_type=self.repo_type)
                return ", ".join(f"`{ref.name}`" for ref in [*refs.branches, *refs.tags][:12])
            return "`main`"

        label = repo if self.repo_type == "model" else f"datasets/{repo}"
        request = HubRequest(self.name, self._endpoint_url, label, revision, is_push, known)
        with translate_errors(request), _limit_timeouts():
            yield

    def _reach(self) -> None:
        """Fail early if the hub cannot be reached: the client would repeat a listing six times."""
        from huggingface_hub import get_session

        get_session().head(self._endpoint_url, timeout=REACHABILITY_TIMEOUT)

    def _download(self, repo: str, revision: str, path: str, force: bool = False) -> Path:
        with self._hub_call(repo, revision):
            place = self._api.hf_hub_download(
                repo, path, revision=revision, force_download=force, repo_type=self.repo_type
            )
        return Path(str(place)).parents[path.count("/")]

    def _verify(self, repo: str, revision: str, files: Files) -> None:
        """Raise Failed with AC411 unless the hub lists every file with its hash here."""
        listed = self.list_files(repo, revision)
        for path, content in files.items():
            if not is_same_content(content, listed.get(path)):
                (self._folder(repo) / f"{revision}.json").unlink(missing_ok=True)
                help = "push again; the hub changed the file on its way"
                raise Failed(AC411.at(file=path, repo=f"{repo}@{revision[:7]}", help=help))

    def _folder(self, repo: str) -> Path:
        """The cache of listings and of the commits of branches, next to the client's own cache."""
        from huggingface_hub import constants

        host = urlsplit(self._endpoint_url).netloc.replace(":", "_")
        kind = "" if self.repo_type == "model" else "datasets"
        return Path(constants.HF_HOME) / "adaptcompose" / host / kind / quote(repo, safe="")

    def _listed(self, repo: str, revision: str) -> dict[str, FileRecord] | None:
        """The cached listing of a revision; None if there is none or if it is damaged."""
        note = self._folder(repo) / f"{revision}.json"
        try:
            entries = json.loads(note.read_bytes()).items()
            return {str(path): FileRecord(*entry) for path, entry in entries}
        except (ValueError, TypeError, AttributeError, OSError):
            return None

    def _cached(self, repo: str, revision: str, path: str) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(repo, path, revision=revision, repo_type=self.repo_type)
        return Path(found) if isinstance(found, str) else None

    def _cached_records(
        self, repo: str, revision: str, paths: Collection[str]
    ) -> dict[str, FileRecord]:
        """The records of cached files: from the listing, or else from their names in the cache."""
        if missing := self.unavailable_files(repo, revision, paths):
            raise Failed(offline_diagnostic(repo, revision, missing, self.repo_type))
        listed = self._listed(repo, revision) or {}
        return {
            path: listed.get(path) or self._record_from_cache_name(repo, revision, path)
            for path in paths
        }

    def _record_from_cache_name(self, repo: str, revision: str, path: str) -> FileRecord:
        """A record from the client's cache, in which a file is a link to one named by its hash."""
        place = self._cached(repo, revision, path)
        assert place is not None
        name, size = place.resolve().name, place.stat().st_size
        if re.fullmatch(r"[0-9a-f]{64}", name):
            return FileRecord(size, sha256=name)
        if _FULL.fullmatch(name):
            return FileRecord(size, blob=name)
        raise Failed(offline_diagnostic(repo, revision, [path], self.repo_type))

    def _expanded(self, repo: str, revision: str) -> str:
        commits = [
            commit.commit_id
            for commit in self._api.list_repo_commits(repo, repo_type=self.repo_type)
        ]
        expanded = expand_abbreviation(repo, revision, commits)
        if expanded is None:
            raise Failed(AC402.at(repo=repo, revision=revision, known=f"`{commits[0][:7]}`"))
        return expanded


@contextlib.contextmanager
def _limit_timeouts() -> Iterator[None]:
    """Limit how long every request of the client waits for its next byte.

    A hook of the client's session fills in the timeouts that the client leaves open.
    """
    from huggingface_hub import get_session

    def limit(request: Any) -> None:
        given = request.extensions.get("timeout") or {}
        most = (
            REQUEST_TIMEOUT
            if request.method in ("GET", "HEAD")
            else WRITE_TIMEOUT_FACTOR * REQUEST_TIMEOUT
        )
        names = ("connect", "read", "write", "pool")
        filled = {name: min(given.get(name) or most, most) for name in names}
        request.extensions = {**request.extensions, "timeout": filled}

    session = get_session()
    before = session.event_hooks
    session.event_hooks = {**before, "request": [*before["request"], limit]}
    try:
        yield
    finally:
        session.event_hooks = before


def _errors() -> Any:
    from huggingface_hub import errors

    return errors


def _metadata(info: Any) -> dict[str, Any]:
    """The front matter of a card as the Hub answers it, with what it derived itself."""
    card = info.card_data.to_dict() if info.card_data is not None else {}
    derived = {"library_name": info.library_name, "pipeline_tag": info.pipeline_tag}
    return {name: value for name, value in derived.items() if value} | dict(card)
