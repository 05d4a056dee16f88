"""`adaptcompose pull`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adaptcompose.cli.app import Hub, app


@app.command()
def pull(
    ref: Annotated[str, typer.Argument(help="user/repo@revision of a published composition")],
    folder: Annotated[Path | None, typer.Argument(help="where to; else its name here")] = None,
    hub: Hub = None,
) -> None:
    """Fetch a published composition, verified, into a folder."""
    from adaptcompose.experiment.share.pull import pull as pull_folder

    place = pull_folder(ref, folder, hub or "hf")
    print(f"{ref} is in {place}")
