"""`adaptcompose run`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adaptcompose.commands.app import RUN, Form, app, prepared_spec, say
from adaptcompose.language.codes import AC425

if TYPE_CHECKING:
    from adaptcompose.compiler.plan import Plan
    from adaptcompose.terminal import Terminal
    from adaptcompose.work.prepare import Prepared


@app.command()
def run(
    spec: Annotated[Path, typer.Argument(help="a spec.yaml")],
    fresh: Annotated[bool, typer.Option("--fresh", help="train again what is done")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="print the report only")] = False,
    form: Form = "text",
) -> None:
    """Do everything that a spec says: lock, plan, train, evaluate, predict, report, publish."""
    from adaptcompose.terminal import Terminal

    prepared = prepared_spec(str(spec))
    found, notes = prepared.plan(), [*prepared.notes, *prepared.read()]
    terminal = Terminal(quiet=quiet or form == "json")
    say(notes)
    if not terminal.quiet:
        print(f"{found}\n")
    folder = Path("runs") / prepared.spec.name
    try:
        result = _run(prepared, found, folder, terminal, fresh)
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
    print(f"report: {folder / 'report.json'}")


def _run(
    prepared: Prepared, plan: Plan, folder: Path, terminal: Terminal, fresh: bool
) -> dict[str, Any]:
    """Nothing is written before everything that the run reads was opened."""
    from adaptcompose.terminal import hush
    from adaptcompose.work.prepare import lock_path

    hush()
    from adaptcompose.work.run import Run

    made = Run(prepared, plan, folder, terminal, fresh=fresh)
    prepared.lock.write(lock_path(prepared.path))
    return made.run()
