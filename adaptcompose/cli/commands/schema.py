"""`adaptcompose schema`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from adaptcompose.cli.app import app
from adaptcompose.cli.exit_codes import EXIT_PROBLEMS
from adaptcompose.storage.atomic import write_atomically


@app.command()
def schema(
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write to this file instead of standard output."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 if the file of --out is out of date.")
    ] = False,
) -> None:
    """Print the JSON Schema of spec.yaml for editors, including installed plug-ins."""
    from adaptcompose.experiment.spec.schema import build_schema

    text = json.dumps(build_schema(), indent=2, ensure_ascii=False)
    if check:
        if out is None:
            raise typer.BadParameter("add --out with the file to compare", param_hint="--check")
        if not out.is_file() or out.read_text("utf-8") != f"{text}\n":
            print(f"{out} is out of date; run `adaptcompose schema --out {out}`")
            raise typer.Exit(EXIT_PROBLEMS)
    elif out is None:
        print(text)
    else:
        write_atomically(out, f"{text}\n")
