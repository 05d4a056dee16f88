"""`adaptcompose lock`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adaptcompose.cli.app import Quiet, app
from adaptcompose.cli.completion import complete_spec
from adaptcompose.cli.inputs import hint, say

if TYPE_CHECKING:
    from adaptcompose.hub.lock import Lock


@app.command()
def lock(
    spec: Annotated[Path, typer.Argument(help="a spec.yaml", autocompletion=complete_spec)],
    names: Annotated[
        list[str] | None, typer.Argument(help="with --upgrade: only glue/mnli, backbone, data …")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="1 if the lock is out of date")] = False,
    upgrade: Annotated[bool, typer.Option("--upgrade", help="the newest revisions")] = False,
    quiet: Quiet = False,
) -> None:
    """Pin everything that a spec uses by revision and hash, in <spec>.lock beside it.

    What is pinned stays as it is; --upgrade takes the newest revisions and anew what globs match.
    """
    from adaptcompose.experiment.prepare.preparer import prepare_all
    from adaptcompose.experiment.prepare.spec_check import read_whole
    from adaptcompose.experiment.prepare.spec_lock import lock_of, lock_path
    from adaptcompose.hub.lock import Lock

    if names and not upgrade:
        raise typer.BadParameter("names go with --upgrade", param_hint="NAMES")
    specs, path = read_whole(spec), lock_path(spec)
    if check:
        lock_of(spec)
        prepare_all(specs, spec)
        _say(f"{path} is up to date", quiet)
        return
    old = Lock.open(path)
    prepared = prepare_all(specs, spec, upgrade=tuple(names or ()) if upgrade else None, anew=True)
    new = prepared[0].lock
    say(note for one in prepared for note in one.notes)
    if unknown := _unknown(names or (), old, new):
        raise typer.BadParameter(f"{spec} uses no {', '.join(unknown)}", param_hint="NAMES")
    new.write(path)
    changed = () if old is None else _changed(old, new)
    for what in changed:
        _say(f"~ {what}", quiet)
    _say(f"{path} {'is as it was' if old == new else 'written'}", quiet)
    hint("run", str(spec), quiet=quiet)


def _say(text: str, quiet: bool) -> None:
    if not quiet:
        print(text)


def _unknown(names: Sequence[str], old: Lock | None, new: Lock) -> list[str]:
    """Names that nothing pinned has, and that no pattern did."""
    from adaptcompose.experiment.prepare.spec_lock import section_of

    known = {"backbone", "tokenizer"}
    for one in (old, new):
        known |= {*one.adapters, *one.globs, *map(section_of, one.data)} if one else set()
    return [name for name in names if name not in known]


def _changed(old: Lock, new: Lock) -> Iterator[str]:
    """What is not as it was, as AC410 would tell it."""
    from adaptcompose.hub.lock import compare

    mark = " is out of date: "
    for one in compare(old, new):
        yield one.message.partition(mark)[2].removesuffix(" changed")
