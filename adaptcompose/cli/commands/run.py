"""`adaptcompose run`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adaptcompose.cli.app import Form, Quiet, Set, app
from adaptcompose.cli.completion import complete_spec
from adaptcompose.cli.inputs import RUN, hint, prepared_specs, say
from adaptcompose.diagnostics.codes import AC425

if TYPE_CHECKING:
    from adaptcompose.cli.terminal import Terminal
    from adaptcompose.experiment.prepare.prepared_run import Prepared


@app.command()
def run(
    spec: Annotated[Path, typer.Argument(help="a spec.yaml", autocompletion=complete_spec)],
    fresh: Annotated[bool, typer.Option("--fresh", help="train again what is done")] = False,
    locked: Annotated[
        bool, typer.Option("--locked", help="only with a lock that is there and up to date")
    ] = False,
    overrides: Set = None,
    quiet: Quiet = False,
    form: Form = "text",
) -> None:
    """Do everything that a spec says: lock, plan, train, evaluate, predict, report, publish."""
    from adaptcompose.cli.terminal import Terminal

    if locked:
        from adaptcompose.experiment.prepare.spec_lock import lock_of

        lock_of(spec)
    prepared = prepared_specs(str(spec), overrides)
    notes = [note for one in prepared for note in (*one.notes, *one.read())]
    terminal = Terminal(quiet=quiet or form == "json")
    say(notes)
    if not terminal.quiet:
        for text in dict.fromkeys(str(one.plan()) for one in prepared):
            print(f"{text}\n")
    folder = Path("runs") / prepared[0].spec.name
    try:
        result = _run(prepared, folder, terminal, fresh)
    except OSError as error:
        why, path = error.strerror or str(error), error.filename or folder
        print(AC425.at(path=path, why=why), file=sys.stderr)
        raise typer.Exit(RUN) from error
    finally:
        terminal.close()
    if form == "json":
        print(json.dumps(result, indent=2, ensure_ascii=False, default=str))
        return
    if "published" in result:
        print(f"published {result['published']['repo']}@{result['published']['revision'][:7]}")
    print(f"report: {folder / 'report.html'}")
    hint("predict", str(folder), "--text", "…", quiet=quiet)


def _run(
    prepared: Sequence[Prepared], folder: Path, terminal: Terminal, fresh: bool
) -> dict[str, Any]:
    """Nothing is written before everything that the run reads was opened."""
    from adaptcompose.cli.terminal import hush

    hush()
    from adaptcompose.experiment.run.sweep import run_all

    return run_all(prepared, folder, terminal, fresh=fresh)
