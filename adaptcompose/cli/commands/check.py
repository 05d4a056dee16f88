"""`adaptcompose check`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from adaptcompose.cli.app import (
    BackboneOption,
    HubOption,
    KnownAsOption,
    OverridesOption,
    QuietOption,
    TargetArgument,
    app,
    is_spec_target,
)
from adaptcompose.cli.inputs import check_target, print_diagnostics


@app.command()
def check(
    target: TargetArgument,
    backbone: BackboneOption = None,
    known_as: KnownAsOption = None,
    hub: HubOption = None,
    form: Annotated[
        Literal["text", "json", "github"],
        typer.Option(
            "--format", help="Output for people, for programs, or as annotations for GitHub."
        ),
    ] = "text",
    overrides: OverridesOption = None,
    quiet: QuietOption = False,
) -> None:
    """Find all mistakes in an expression or a spec, without downloading anything.

    Mistakes that only the files on a hub reveal, such as an unknown slot of a published
    composition, are found by plan.
    """
    is_spec_target(target, backbone, hub, overrides, known_as)
    diagnostics = check_target(target, backbone, hub, overrides, known_as)
    if code := print_diagnostics(diagnostics, target, form, quiet=quiet):
        raise typer.Exit(code)
