"""`adaptcompose lock`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adaptcompose.cli.app import QuietOption, app
from adaptcompose.cli.completion import complete_spec
from adaptcompose.cli.inputs import print_next_command, print_notes

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
    print_notes(note for one in prepared for note in one.notes)
    if unknown := _unknown_names(names or (), old, new):
        raise typer.BadParameter(f"{spec} does not use {', '.join(unknown)}", param_hint="NAMES")
    new.write(path)
    changed = () if old is None else _format_changes(old, new)
    for what in changed:
        _print(f"~ {what}", quiet)
    _print(f"{path} {'is unchanged' if old == new else 'written'}", quiet)
    print_next_command("run", str(spec), quiet=quiet)


def _print(text: str, quiet: bool) -> None:
    if not quiet:
        print(text)


def _unknown_names(names: Sequence[str], old: Lock | None, new: Lock) -> list[str]:
    """Names that nothing pinned has, and that no pattern did."""
    from adaptcompose.experiment.prepare.spec_lock import data_name

    known = {"backbone", "tokenizer"}
    for one in (old, new):
        known |= {*one.adapters, *one.globs, *map(data_name, one.data)} if one else set()
    return [name for name in names if name not in known]


def _format_changes(old: Lock, new: Lock) -> Iterator[str]:
    """What is not as it was, as AC410 would tell it."""
    from adaptcompose.hub.lock import compare_locks

    mark = " is out of date: "
    for one in compare_locks(old, new):
        yield one.message.partition(mark)[2].removesuffix(" changed")
