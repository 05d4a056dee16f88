"""`adaptcompose doctor`."""

from __future__ import annotations

import itertools
import json
from typing import Annotated

import typer

from adaptcompose.cli.app import Form, Hub, app
from adaptcompose.cli.inputs import HUB, INTERNAL


@app.command()
def doctor(
    hub: Hub = None,
    offline: Annotated[bool, typer.Option("--offline", help="do not ask the hub")] = False,
    form: Form = "text",
) -> None:
    """Say what is installed, whether the hub answers, and whether a small composition works."""
    from adaptcompose.cli.terminal import hush
    from adaptcompose.doctor import examine

    hush()
    found = list(examine(hub or "hf", offline=offline))
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
        raise typer.Exit(INTERNAL)
    if "unreachable" in states:
        raise typer.Exit(HUB)
