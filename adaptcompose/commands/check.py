"""`adaptcompose check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from adaptcompose.commands.app import Base, Hub, Target, app, checked_expression, exit_code, is_spec
from adaptcompose.language.diagnostics import Diagnostic, Failed, errors, render


@app.command()
def check(
    target: Target,
    backbone: Base = None,
    hub: Hub = None,
    form: Annotated[Literal["text", "json", "github"], typer.Option("--format")] = "text",
) -> None:
    """Say everything that is wrong with an expression or a spec; nothing is downloaded."""
    found = _diagnostics(target, backbone, hub)
    if form != "text" or found:
        print(render(found, form))
    if errors(found):
        raise typer.Exit(exit_code(found))
    if form == "text" and not found:
        print("fine")


def _diagnostics(target: str, backbone: str | None, hub: str | None) -> list[Diagnostic]:
    try:
        if is_spec(target, backbone, hub):
            from adaptcompose.work.prepare import check_spec
            from adaptcompose.work.spec import read_spec

            return check_spec(read_spec(Path(target)), Path(target))
        return list(checked_expression(target, backbone, hub)[0].diagnostics)
    except Failed as failed:
        return list(failed.diagnostics)
