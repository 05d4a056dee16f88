"""`adaptcompose push`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from adaptcompose.cli.app import Base, Form, Hub, app
from adaptcompose.diagnostics.codes import AC412
from adaptcompose.diagnostics.diagnostic import Failed

if TYPE_CHECKING:
    from adaptcompose.experiment.share.push import Push, Pushed


Weights = Literal["new", "all"]


@app.command()
def push(
    source: Annotated[Path, typer.Argument(help="a run, or a saved or pulled composition")],
    repo: Annotated[str, typer.Argument(help="user/repo")],
    hub: Hub = None,
    revision: Annotated[str, typer.Option(help="branch; it is made if need be")] = "main",
    pr: Annotated[bool, typer.Option("--pr", help="open a pull request instead")] = False,
    private: Annotated[bool, typer.Option("--private/--public", help="if it is new")] = True,
    weights: Annotated[Weights, typer.Option(help="what is new, or everything used")] = "new",
    license: Annotated[str | None, typer.Option(help="such as apache-2.0")] = None,
    message: Annotated[str, typer.Option("--message", "-m", help="of the commit")] = "",
    backbone: Base = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show files, card and diff")] = False,
    form: Form = "text",
) -> None:
    """Publish a composition in one commit: what is new, the pins of the rest, and its card."""
    from adaptcompose.cli.terminal import hush
    from adaptcompose.experiment.share.push import Target, opened
    from adaptcompose.hub.opening import open_store

    hush()
    if not source.is_dir():
        raise Failed(AC412.at(path=source, root=Path.cwd()))
    if pr and revision != "main":
        raise typer.BadParameter("a pull request is against main", param_hint="--revision")
    target = Target(repo, revision, pr, private, weights == "all", message)
    store = open_store(hub or "hf", Path())
    with opened(source, target, store, license=license, backbone=backbone) as ready:
        if dry_run:
            _show(ready, form)
            return
        _tell(ready.send(), form)


def _tell(pushed: Pushed, form: str) -> None:
    if form == "json":
        print(json.dumps(vars(pushed)))
    elif pushed.url is not None:
        print(f"pull request {pushed.number}: {pushed.url}")
    else:
        print(f"pushed {pushed}")


def _show(ready: Push, form: str) -> None:
    """Files, then what changes in texts, then the card, then what it comes to."""
    from adaptcompose.experiment.share.push_diff import size
    from adaptcompose.hub.folder import FolderStore

    found, target = ready.difference(), ready.target
    if form == "json":
        place = {"repo": target.repo, "hub": ready.store.name, "branch": target.branch}
        print(json.dumps(place | found.as_plain() | {"card": ready.card}, indent=2))
        return
    kind = "pull request" if target.pr else f"branch {target.branch}"
    seen = "private " if target.private else "public "
    is_folder = isinstance(ready.store, FolderStore)
    new = f", new {'' if is_folder else seen}repository" * found.is_new
    print(f"{target.repo} on {ready.store.name}, {kind}{new}\n{found}\n")
    if found.text:
        print(f"{found.text}\n")
    print(f"README.md\n{ready.card}")
    counts = (
        f"{found.count('+')} to add, {found.count('~')} to change, {found.count('-')} to remove"
    )
    print(f"Push: {counts}; {size(found.sent)} to send. Nothing was pushed.")
