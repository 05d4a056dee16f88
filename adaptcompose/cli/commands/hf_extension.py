"""`adaptcompose hf-extension`."""

from __future__ import annotations

import typer

from adaptcompose.cli.app import app

extension = typer.Typer(
    no_args_is_help=True, help="Let `hf compose …` mean `adaptcompose …`.", rich_markup_mode=None
)
app.add_typer(extension, name="hf-extension")


@extension.command()
def install() -> None:
    """Register adaptcompose with the command line `hf`."""
    from adaptcompose.cli.hf_extension_install import install as register

    print(f"registered in {register()}")
    print("next: hf compose --help")


@extension.command()
def remove() -> None:
    """Take the registration away."""
    from adaptcompose.cli.hf_extension_install import remove as take_away

    print("removed" if take_away() else "it was not registered")
