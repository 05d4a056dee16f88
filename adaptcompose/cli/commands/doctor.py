"""`adaptcompose doctor`."""

from __future__ import annotations

import itertools
import json
from typing import Annotated

import typer

from adaptcompose.cli.app import FormatOption, HubOption, app
from adaptcompose.cli.inputs import EXIT_HUB, EXIT_INTERNAL


@app.command()
def doctor(
    hub: HubOption = None,
    offline: Annotated[bool, typer.Option("--offline", help="Do not contact the hub.")] = False,
    form: FormatOption = "text",
) -> None:
    """Check the installation: versions, hub, plug-ins, and a small composition."""
    from adaptcompose.cli.terminal import silence_transformers
    from adaptcompose.doctor import run_checks

    silence_transformers()
    found = list(run_checks(hub or "hf", offline=offline))
    if form == "json":
        print(json.dumps([vars(one) for one in found], indent=2, ensure_ascii=False))
    else:
        for section, lines in itertools.groupby(found, key=lambda one: one.section):
            rows = list(lines)
            width = max(len(one.name) for one in rows)
            print(section)
            for one in rows:
                mark = " " if one.state in ("fine", "left out") else "!"
                print(f"{mark} {one.name.ljust(width)}  {one.told}")
            print()
    states = {one.state for one in found}
    if "problem" in states:
        raise typer.Exit(EXIT_INTERNAL)
    if "unreachable" in states:
        raise typer.Exit(EXIT_HUB)
