"""`adaptcompose check`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from adaptcompose.commands.app import (
    Base,
    Hub,
    Quiet,
    Set,
    Target,
    app,
    checked_expression,
    exit_code,
    hint,
    is_spec,
)
from adaptcompose.language.diagnostics import Diagnostic, Failed, errors, render
from adaptcompose.terminal import paint


@app.command()
def check(
    target: Target,
    backbone: Base = None,
    hub: Hub = None,
    form: Annotated[
        Literal["text", "json", "github"], typer.Option("--format", help="for people or programs")
    ] = "text",
    overrides: Set = None,
    quiet: Quiet = False,
) -> None:
    """Say everything that is wrong with an expression or a spec; nothing is downloaded."""
    found = _diagnostics(target, backbone, hub, overrides)
    if form != "text":
        print(render(found, form))
    elif found:
        print(paint(render(found), sys.stdout))
    if errors(found):
        raise typer.Exit(exit_code(found))
    if form == "text" and not found and not quiet:
        print("fine")
        if target.endswith((".yaml", ".yml")):
            hint("plan", target)


def _diagnostics(
    target: str, backbone: str | None, hub: str | None, overrides: list[str] | None
) -> list[Diagnostic]:
    try:
        if is_spec(target, backbone, hub, overrides):
            from adaptcompose.work.prepare import check_specs
            from adaptcompose.work.spec import read_specs

            path = Path(target)
            return check_specs(read_specs(path, overrides or ()), path)
        return list(checked_expression(target, backbone, hub)[0].diagnostics)
    except Failed as failed:
        return list(failed.diagnostics)
