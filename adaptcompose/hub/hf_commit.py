"""Push to the Hugging Face Hub in one commit: all files arrive, or none."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adaptcompose.hub.store import FileRecord, PullRequest, is_same_content

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from huggingface_hub import HfApi


@dataclass(frozen=True)
class Commit:
    """The changes of one commit: the files to write, by path, and the paths to delete."""

    repo: str
    files: Mapping[str, Path | bytes]
    delete: Collection[str]
    message: str


def push(api: HfApi, change: Commit, branch: str, private: bool | None) -> str:
    """Commit to a branch and return its new revision; create repository and branch if needed."""
    head = _head(api, change.repo, private)
    is_new_branch = branch != "main" and branch not in _branches(api, change.repo)
    if is_new_branch:
        api.create_branch(change.repo, branch=branch, revision=head)
    elif branch != "main":
        head = str(api.repo_info(change.repo, revision=branch).sha)
    try:
        return _commit_or_recover(api, change, branch, head)
    except BaseException:
        if is_new_branch:
            with contextlib.suppress(Exception):  # report why the push failed, not this
                api.delete_branch(change.repo, branch=branch)
        raise


def open_pull_request(api: HfApi, change: Commit) -> PullRequest:
    """Open a pull request against `main`."""
    head = str(api.repo_info(change.repo).sha)
    made = _send(api, change, head, create_pr=True)
    return PullRequest(str(made.oid), int(made.pr_num or 0), str(made.pr_url))


def _head(api: HfApi, repo: str, private: bool | None) -> str:
    """The newest commit of `main`; creates the repository if there is none."""
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
    """Commit through the client, which uploads large files first and skips those the hub has.

    Paths to delete that the hub does not have are left out.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    present = {
        entry.path for entry in api.list_repo_tree(change.repo, revision=parent, recursive=True)
    }
    added = [
        CommitOperationAdd(path, content if isinstance(content, bytes) else str(content))
        for path, content in sorted(change.files.items())
    ]
    obsolete = sorted({*change.delete} & present - {*change.files})
    deleted = [CommitOperationDelete(path) for path in obsolete]
    return api.create_commit(
        change.repo,
        [*added, *deleted],
        commit_message=change.message or "Update",
        parent_commit=parent,
        **how,
    )


def _commit_or_recover(api: HfApi, change: Commit, branch: str, parent: str) -> str:
    """The new commit, even if the hub made it but its answer was lost.

    A connection may break, or a proxy time out, after the hub has done its work.
    """
    try:
        return str(_send(api, change, parent, revision=branch).oid)
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", 500)
        if status >= 500 and (revision := _find_arrived_commit(api, change, branch, parent)):
            return revision
        raise


def _find_arrived_commit(api: HfApi, change: Commit, branch: str, parent: str) -> str | None:
    """The newest revision of the branch, if it came after `parent` and has exactly this change."""
    with contextlib.suppress(Exception):
        head = str(api.repo_info(change.repo, revision=branch).sha)
        tree = api.list_repo_tree(change.repo, revision=head, recursive=True)
        listed = {
            entry.path: record_from_listing(entry) for entry in tree if hasattr(entry, "blob_id")
        }
        is_complete = all(
            is_same_content(content, listed.get(path)) for path, content in change.files.items()
        )
        if (
            head != parent
            and is_complete
            and not {*change.delete} - {*change.files} & listed.keys()
        ):
            return head
    return None


def record_from_listing(entry: Any) -> FileRecord:
    """The record of a listed file: with SHA-256 if it is large, else with git's hash."""
    if entry.lfs is not None:
        return FileRecord(int(entry.lfs.size), sha256=str(entry.lfs.sha256))
    return FileRecord(int(entry.size), blob=str(entry.blob_id))
