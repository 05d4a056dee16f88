"""`adaptcompose doctor`."""

from __future__ import annotations

import itertools
import json
from typing import Annotated

import typer

from adaptcompose.cli.app import FormatOption, HubOption, app
from adaptcompose.cli.exit_codes import EXIT_HUB, EXIT_INTERNAL


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
    findings = list(run_checks(hub or "hf", offline=offline))
    if form == "json":
        print(json.dumps([vars(finding) for finding in findings], indent=2, ensure_ascii=False))
    else:
        for section, group in itertools.groupby(findings, key=lambda finding: finding.section):
            rows = list(group)
            width = max(len(row.name) for row in rows)
            print(section)
            for row in rows:
                mark = " " if row.state in ("fine", "left out") else "!"
                print(f"{mark} {row.name.ljust(width)}  {row.told}")
            print()
    states = {finding.state for finding in findings}
    if "problem" in states:
        raise typer.Exit(EXIT_INTERNAL)
    if "unreachable" in states:
        raise typer.Exit(EXIT_HUB)
