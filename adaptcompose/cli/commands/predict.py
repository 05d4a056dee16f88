"""`adaptcompose predict`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from adaptcompose.cli.app import Base, Form, Hub, app


@app.command()
def predict(
    target: Annotated[
        str, typer.Argument(help="a published composition, a run, a spec or an expression")
    ],
    text: Annotated[list[str], typer.Option("--text", "-t", help="a text; several times for more")],
    backbone: Base = None,
    hub: Hub = None,
    form: Form = "text",
) -> None:
    """Run a composition on texts."""
    from adaptcompose.cli.terminal import hush
    from adaptcompose.experiment.run.predict_texts import answer

    hush()

    records = answer(target, text, backbone=backbone, hub=hub)
    if form == "json":
        print(json.dumps(records, indent=2, ensure_ascii=False))
        return
    for record in records:
        print(record["shown"])
