"""`adaptcompose check`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from adaptcompose.cli.app import Base, Hub, KnownAs, Quiet, Set, Target, app, is_spec
from adaptcompose.cli.inputs import diagnostics, tell


@app.command()
def check(
    target: Target,
    backbone: Base = None,
    known_as: KnownAs = None,
    hub: Hub = None,
    form: Annotated[
        Literal["text", "json", "github"], typer.Option("--format", help="for people or programs")
    ] = "text",
    overrides: Set = None,
    quiet: Quiet = False,
) -> None:
    """Say everything that is wrong with an expression or a spec; nothing is downloaded.

    What only the files on a hub tell, as the slots of a published composition, is left to plan.
    """
    is_spec(target, backbone, hub, overrides, known_as)
    found = diagnostics(target, backbone, hub, overrides, known_as)
    if code := tell(found, target, form, quiet=quiet):
        raise typer.Exit(code)
