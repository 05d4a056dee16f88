"""`adaptcompose push`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from adaptcompose.cli.app import BackboneOption, FormatOption, HubOption, app
from adaptcompose.diagnostics.codes import AC412
from adaptcompose.diagnostics.diagnostic import Failed

if TYPE_CHECKING:
    from adaptcompose.experiment.share.push import Push, PushResult


Weights = Literal["new", "all"]


@app.command()
def push(
    source: Annotated[Path, typer.Argument(help="A run, or a saved or pulled composition.")],
    repo: Annotated[str, typer.Argument(help="The repository: user/repo.")],
    hub: HubOption = None,
    revision: Annotated[
        str, typer.Option(help="The branch; it is created if it does not exist.")
    ] = "main",
    pr: Annotated[
        bool, typer.Option("--pr", help="Open a pull request instead of pushing to the branch.")
    ] = False,
    private: Annotated[
        bool, typer.Option("--private/--public", help="The visibility of a new repository.")
    ] = True,
    weights: Annotated[
        Weights, typer.Option(help="Publish only new weights, or all weights that are used.")
    ] = "new",
    license: Annotated[str | None, typer.Option(help="The licence, such as apache-2.0.")] = None,
    message: Annotated[
        str, typer.Option("--message", "-m", help="The message of the commit.")
    ] = "",
    backbone: BackboneOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Push nothing; show the files, the card and the diff.")
    ] = False,
    form: FormatOption = "text",
) -> None:
    """Publish a composition in one commit: new weights, pins of the rest, and a card."""
    from adaptcompose.cli.terminal import silence_transformers
    from adaptcompose.experiment.share.push import PushTarget, open_push
    from adaptcompose.hub.opening import open_store

    silence_transformers()
    if not source.is_dir():
        raise Failed(AC412.at(path=source, root=Path.cwd()))
    if pr and revision != "main":
        raise typer.BadParameter(
            "leave it out with --pr: a pull request targets main", param_hint="--revision"
        )
    target = PushTarget(repo, revision, pr, private, weights == "all", message)
    store = open_store(hub or "hf", Path())
    with open_push(source, target, store, license=license, backbone=backbone) as ready:
        if dry_run:
            _print_preview(ready, form)
            return
        _print_result(ready.send(), form)


def _print_result(pushed: PushResult, form: str) -> None:
    if form == "json":
        print(json.dumps(vars(pushed)))
    elif pushed.url is not None:
        print(f"pull request {pushed.number}: {pushed.url}")
    else:
        print(f"pushed {pushed}")


def _print_preview(ready: Push, form: str) -> None:
    """Print what a push would do: files, the diff of texts, the card, and a summary."""
    from adaptcompose.experiment.share.push_diff import format_size
    from adaptcompose.hub.folder import FolderStore

    diff, target = ready.diff(), ready.target
    if form == "json":
        branch = {"repo": target.repo, "hub": ready.store.name, "branch": target.branch}
        print(json.dumps(branch | diff.as_plain() | {"card": ready.card}, indent=2))
        return
    kind = "pull request" if target.as_pull_request else f"branch {target.branch}"
    is_folder = isinstance(ready.store, FolderStore)
    visibility = "" if is_folder else "private " if target.private else "public "
    new = f", new {visibility}repository" if diff.is_new else ""
    print(f"{target.repo} on {ready.store.name}, {kind}{new}\n{diff}\n")
    if diff.text:
        print(f"{diff.text}\n")
    print(f"README.md\n{ready.card}")
    counts = f"{diff.count('+')} to add, {diff.count('~')} to change, {diff.count('-')} to remove"
    print(f"Push: {counts}; {format_size(diff.upload_bytes)} to send. Nothing was pushed.")
