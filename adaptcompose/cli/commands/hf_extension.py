"""`adaptcompose hf-extension`."""

from __future__ import annotations

import typer

from adaptcompose.cli.app import app

extension = typer.Typer(
    no_args_is_help=True, help="Make `hf compose …` run `adaptcompose …`.", rich_markup_mode=None
)
app.add_typer(extension, name="hf-extension")


@extension.command()
def install() -> None:
    """Register adaptcompose as an extension of the command `hf`."""
    from adaptcompose.cli.hf_extension_install import install as register

    print(f"registered in {register()}")
    print("next: hf compose --help")


@extension.command()
def remove() -> None:
    """Remove the extension from the command `hf`."""
    from adaptcompose.cli.hf_extension_install import remove as unregister

    print("removed" if unregister() else "`hf compose` was not registered")
