"""`adaptcompose predict`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from adaptcompose.cli.app import BackboneOption, FormatOption, HubOption, app


@app.command()
def predict(
    target: Annotated[
        str, typer.Argument(help="A published composition, a run, a spec or an expression.")
    ],
    text: Annotated[list[str], typer.Option("--text", "-t", help="A text. Can be repeated.")],
    backbone: BackboneOption = None,
    hub: HubOption = None,
    form: FormatOption = "text",
) -> None:
    """Run a composition on texts."""
    from adaptcompose.cli.terminal import silence_transformers
    from adaptcompose.experiment.run.text_prediction import predict_texts

    silence_transformers()

    records = predict_texts(target, text, backbone=backbone, hub=hub)
    if form == "json":
        print(json.dumps(records, indent=2, ensure_ascii=False))
        return
    for record in records:
        print(record["shown"])
