"""The data files of adaptcompose: the grammar and the catalogue."""

from __future__ import annotations

from pathlib import Path


def resource_folder(name: str) -> Path:
    """The folder `grammar` or `hub_cards`: in an installed package, or next to it in a checkout.

    >>> resource_folder("hub_cards").name
    'hub_cards'
    """
    package = Path(__file__).resolve().parent
    for folder in (package / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"adaptcompose was installed without its folder {name}/")
