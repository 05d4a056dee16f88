"""`adaptcompose pull`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adaptcompose.cli.app import HubOption, app


@app.command()
def pull(
    ref: Annotated[
        str, typer.Argument(help="A published composition: user/repo or user/repo@revision.")
    ],
    folder: Annotated[
        Path | None, typer.Argument(help="The new folder. Default: the name of the repository.")
    ] = None,
    hub: HubOption = None,
) -> None:
    """Download a published composition into a folder, and verify it."""
    from adaptcompose.experiment.share.pull import pull as pull_folder

    new_folder = pull_folder(ref, folder, hub or "hf")
    print(f"pulled {ref} into {new_folder}")
