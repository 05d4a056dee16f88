"""Parts of files: what a hub on another machine gives without sending the whole file."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from adaptcompose.hub.store import Store


@runtime_checkable
class InPieces(Store, Protocol):
    """A hub from which the header of a file can be read before its tensors are fetched."""

    def piece(self, repo: str, revision: str, path: str, start: int, stop: int) -> bytes:
        """The bytes of a file from `start` to `stop` (exclusive), or fewer where it ends."""
