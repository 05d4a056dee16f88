"""`adaptcompose run`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adaptcompose.cli.app import FormatOption, OverridesOption, QuietOption, app
from adaptcompose.cli.completion import complete_spec
from adaptcompose.cli.exit_codes import EXIT_RUN
from adaptcompose.cli.inputs import prepare_target, print_failure, print_next_command, print_notes
from adaptcompose.diagnostics.codes import AC425
from adaptcompose.diagnostics.diagnostic import Failed

if TYPE_CHECKING:
    from adaptcompose.cli.terminal import Terminal
    from adaptcompose.experiment.prepare.prepared_run import PreparedRun


@app.command()
def run(
    spec: Annotated[Path, typer.Argument(help="A spec.yaml.", autocompletion=complete_spec)],
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Train again, even if a seed is already finished.")
    ] = False,
    locked: Annotated[
        bool, typer.Option("--locked", help="Require a lock that is up to date.")
    ] = False,
    overrides: OverridesOption = None,
    quiet: QuietOption = False,
    form: FormatOption = "text",
) -> None:
    """Run a spec: lock, plan, train, evaluate, predict, report and publish."""
    from adaptcompose.cli.terminal import Terminal

    if locked:
        from adaptcompose.experiment.prepare.spec_lock import read_lock

        read_lock(spec)
    prepared = prepare_target(str(spec), overrides)
    notes = [note for each in prepared for note in (*each.notes, *each.read_inputs())]
    terminal = Terminal(quiet=quiet or form == "json")
    print_notes(notes)
    if not terminal.quiet:
        for text in dict.fromkeys(str(each.make_plan()) for each in prepared):
            print(f"{text}\n")
    folder = Path("runs") / prepared[0].spec.name
    try:
        result = _run(prepared, folder, terminal, fresh)
    except OSError as error:
        why, path = error.strerror or str(error), error.filename or folder
        print_failure(Failed(AC425.at(path=path, why=why)))
        raise typer.Exit(EXIT_RUN) from error
    finally:
        terminal.close()
    if form == "json":
        print(json.dumps(result, indent=2, ensure_ascii=False, default=str))
        return
    if "published" in result:
        print(f"published {result['published']['repo']}@{result['published']['revision'][:7]}")
    print(f"report: {folder / 'report.html'}")
    print_next_command("predict", str(folder), "--text", "…", quiet=quiet)


def _run(
    prepared: Sequence[PreparedRun], folder: Path, terminal: Terminal, fresh: bool
) -> dict[str, Any]:
    """Run the experiment, without the output of transformers."""
    from adaptcompose.cli.terminal import silence_transformers

    silence_transformers()
    from adaptcompose.experiment.run.sweep import run_experiment

    return run_experiment(prepared, folder, terminal, fresh=fresh)
