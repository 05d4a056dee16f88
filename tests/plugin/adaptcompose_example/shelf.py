"""`shelf://folder`: a hub in a folder below the spec's, under a scheme of its own."""

from __future__ import annotations

from pathlib import Path

from adaptcompose.hub.folder import FolderStore
from adaptcompose.hub.store import Store


def open_shelf(address: str, root: Path) -> Store:
    """The hub of an address."""
    return FolderStore(root / address.removeprefix("shelf://"), address)
