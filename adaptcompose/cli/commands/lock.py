"""`adaptcompose lock`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adaptcompose.cli.app import QuietOption, app
from adaptcompose.cli.completion import complete_spec
from adaptcompose.cli.inputs import print_next_command, print_notes
from adaptcompose.diagnostics.diagnostic import escape_unprintable

if TYPE_CHECKING:
    from adaptcompose.hub.lock import Lock


@app.command()
def lock(
    spec: Annotated[Path, typer.Argument(help="A spec.yaml.", autocompletion=complete_spec)],
    names: Annotated[
        list[str] | None,
        typer.Argument(help="With --upgrade: only these names (glue/mnli, backbone, data …)."),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Change nothing; exit with 1 if the lock is out of date."),
    ] = False,
    upgrade: Annotated[bool, typer.Option("--upgrade", help="Take the newest revisions.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Pin everything that a spec uses by revision and hash, in <spec>.lock next to it.

    Existing pins are kept. --upgrade takes the newest revisions, and expands globs again.
    """
    from adaptcompose.experiment.prepare.preparer import prepare_runs
    from adaptcompose.experiment.prepare.spec_check import read_checked_specs
    from adaptcompose.experiment.prepare.spec_lock import lock_path, read_lock
    from adaptcompose.hub.lock import Lock

    if names and not upgrade:
        raise typer.BadParameter("use names only with --upgrade", param_hint="NAMES")
    specs, path = read_checked_specs(spec), lock_path(spec)
    if check:
        read_lock(spec)
        prepare_runs(specs, spec)
        _print(f"{path} is up to date", quiet)
        return
    old = Lock.load(path)
    prepared = prepare_runs(
        specs, spec, upgrade=tuple(names or ()) if upgrade else None, rewrite_lock=True
    )
    new = prepared[0].lock
    print_notes(note for run in prepared for note in run.notes)
    if unknown := _unknown_names(names or (), old, new):
        raise typer.BadParameter(f"{spec} does not use {', '.join(unknown)}", param_hint="NAMES")
    new.write(path)
    changes = () if old is None else _changes(old, new)
    for change in changes:
        _print(f"~ {change}", quiet)
    _print(f"{path} {'is unchanged' if old == new else 'written'}", quiet)
    print_next_command("run", str(spec), quiet=quiet)


def _print(text: str, quiet: bool) -> None:
    if not quiet:
        print(text)


def _unknown_names(names: Sequence[str], old: Lock | None, new: Lock) -> list[str]:
    """Those of the names that neither a pin nor a glob of the two locks has."""
    from adaptcompose.experiment.prepare.spec_lock import data_name

    known = {"backbone", "tokenizer"}
    for lock in filter(None, (old, new)):
        known |= {*lock.adapters, *lock.globs, *map(data_name, lock.data)}
    return [name for name in names if name not in known]


def _changes(old: Lock, new: Lock) -> Iterator[str]:
    """The names of what differs between two locks."""
    from adaptcompose.hub.lock import compare_locks

    for difference in compare_locks(old, new):
        yield escape_unprintable(difference.values["what"])
