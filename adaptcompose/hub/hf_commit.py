"""Pushing to the Hugging Face Hub: one commit that is there as a whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptcompose.hub.store import FileRecord, PullRequest, file_record, git_blob

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from huggingface_hub import HfApi


@dataclass(frozen=True)
class Commit:
    """What a commit does to a repository."""

    repo: str
    files: Mapping[str, Path | bytes]
    delete: Collection[str]
    message: str


def push(api: HfApi, change: Commit, branch: str, private: bool | None) -> str:
    """The new revision of a branch; repository and branch are made where there are none."""
    head = _head(api, change.repo, private)
    made = branch != "main" and branch not in _branches(api, change.repo)
    if made:
        api.create_branch(change.repo, branch=branch, revision=head)
    elif branch != "main":
        head = str(api.repo_info(change.repo, revision=branch).sha)
    try:
        return _commit_or_recover(api, change, branch, head)
    except BaseException:
        if made:
            with contextlib.suppress(Exception):  # why the push failed is what counts
                api.delete_branch(change.repo, branch=branch)
        raise


def open_pull_request(api: HfApi, change: Commit) -> PullRequest:
    """A pull request against `main`."""
    head = str(api.repo_info(change.repo).sha)
    made = _send(api, change, head, create_pr=True)
    return PullRequest(str(made.oid), int(made.pr_num or 0), str(made.pr_url))


def is_same_content(content: Path | bytes, listed: FileRecord | None) -> bool:
    """Whether a file of a hub is the one that lies here."""
    if listed is None:
        return False
    if isinstance(content, bytes):
        local = FileRecord(len(content), hashlib.sha256(content).hexdigest(), _blob(content))
    else:
        place = Path(content)
        local = file_record(place)
        local = FileRecord(local.size, local.sha256, git_blob(place, local.size))
    return (
        local.size == listed.size
        and listed.sha256 in (None, local.sha256)
        and listed.blob in (None, local.blob)
    )


def _blob(content: bytes) -> str:
    start = f"blob {len(content)}\0".encode()
    return hashlib.sha1(start + content, usedforsecurity=False).hexdigest()


def _head(api: HfApi, repo: str, private: bool | None) -> str:
    """The newest commit of `main`, of a repository that is made if there is none."""
    from huggingface_hub import errors

    try:
        return str(api.repo_info(repo).sha)
    except (errors.GatedRepoError, errors.DisabledRepoError):
        raise
    except errors.RepositoryNotFoundError:
        api.create_repo(repo, exist_ok=True, private=private)
        return str(api.repo_info(repo).sha)


def _branches(api: HfApi, repo: str) -> set[str]:
    return {ref.name for ref in api.list_repo_refs(repo).branches}


def _send(api: HfApi, change: Commit, parent: str, **how: Any) -> Any:
    """The client's one commit: it sends large files first, and not again what the hub has."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    held = {
        entry.path for entry in api.list_repo_tree(change.repo, revision=parent, recursive=True)
    }
    added = [
        CommitOperationAdd(path, content if isinstance(content, bytes) else str(content))
        for path, content in sorted(change.files.items())
    ]
    gone = sorted({*change.delete} & held - {*change.files})
    deleted = [CommitOperationDelete(path) for path in gone]
    return api.create_commit(
        change.repo,
        [*added, *deleted],
        commit_message=change.message or "Update",
        parent_commit=parent,
        **how,
    )


def _commit_or_recover(api: HfApi, change: Commit, branch: str, parent: str) -> str:
    """The new commit; also where the hub made it and its answer was lost."""
    try:
        return str(_send(api, change, parent, revision=branch).oid)
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", 500)
        if status >= 500 and (found := _find_arrived_commit(api, change, branch, parent)):
            return found
        raise


def _find_arrived_commit(api: HfApi, change: Commit, branch: str, parent: str) -> str | None:
    """The revision of the branch if it is new and holds exactly what was sent."""
    with contextlib.suppress(Exception):
        head = str(api.repo_info(change.repo, revision=branch).sha)
        tree = api.list_repo_tree(change.repo, revision=head, recursive=True)
        listed = {
            entry.path: record_from_listing(entry) for entry in tree if hasattr(entry, "blob_id")
        }
        whole = all(
            is_same_content(content, listed.get(path)) for path, content in change.files.items()
        )
        if head != parent and whole and not {*change.delete} - {*change.files} & listed.keys():
            return head
    return None


def record_from_listing(entry: Any) -> FileRecord:
    """What a listing says of a file: SHA-256 of large ones, git's hash of others."""
    if entry.lfs is not None:
        return FileRecord(int(entry.lfs.size), sha256=str(entry.lfs.sha256))
    return FileRecord(int(entry.size), blob=str(entry.blob_id))
