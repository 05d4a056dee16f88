"""`adaptcompose schema`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from adaptcompose.cli.app import app
from adaptcompose.cli.inputs import PROBLEMS
from adaptcompose.storage.atomic import write_atomically


@app.command()
def schema(
    out: Annotated[Path | None, typer.Option("--out", "-o", help="a file instead")] = None,
    check: Annotated[bool, typer.Option("--check", help="1 if that file says another")] = False,
) -> None:
    """Print the JSON Schema of spec.yaml, for editors; installed packages are in it."""
    from adaptcompose.experiment.spec.schema import schema as whole

    text = json.dumps(whole(), indent=2, ensure_ascii=False)
    if check:
        if out is None:
            raise typer.BadParameter("--check compares a file: --out", param_hint="--check")
        if not out.is_file() or out.read_text("utf-8") != f"{text}\n":
            print(f"{out} is not the schema: adaptcompose schema --out {out}")
            raise typer.Exit(PROBLEMS)
    elif out is None:
        print(text)
    else:
        write_atomically(out, f"{text}\n")
