"""Hidden states on disk: one file per trunk, an entry per example, a limit for all of them.

An entry is a head (magic, digest of the example, number of tokens, checksum) and the states of its
tokens. A torn end is cut off when the file is opened; an entry whose checksum is wrong is forgotten
and computed anew. A second process that uses the same trunk reads, and adds nothing.
"""

from __future__ import annotations

import contextlib
import os
import struct
import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

_HEAD = struct.Struct("<4s16sII")
_MAGIC = b"ACst"
LIMIT = 8 * 2**30
"""Bytes that all trunks may take together; ADAPTCOMPOSE_TRUNK_BYTES sets another limit."""


def states_folder() -> Path:
    """Where states are kept: below XDG_CACHE_HOME, or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "adaptcompose/trunk"


def limit() -> int:
    """How many bytes all trunks may take."""
    return int(os.environ.get("ADAPTCOMPOSE_TRUNK_BYTES") or LIMIT)


class States:
    """The states of one trunk: digest of an example → [tokens, width]."""

    def __init__(
        self, key: str, width: int, dtype: torch.dtype, *, folder: Path | None = None
    ) -> None:
        self.folder = folder or states_folder()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = self.folder / f"{key}.states"
        self.width, self.dtype = width, dtype
        self._row = width * dtype.itemsize
        self._file: BinaryIO = self.path.open("a+b")
        self._close = weakref.finalize(self, self._file.close)
        self._mine = _lock(self._file)
        self._index = dict(self._entries())
        os.utime(self.path)

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._index

    def __len__(self) -> int:
        return len(self._index)

    def get(self, digest: bytes) -> Tensor | None:
        """The states of an example; None if there are none, or damaged ones."""
        if digest not in self._index:
            return None
        start, tokens, checksum = self._index[digest]
        self._file.seek(start)
        data = self._file.read(tokens * self._row)
        if len(data) != tokens * self._row or zlib.crc32(data) != checksum:
            del self._index[digest]
            return None
        return torch.frombuffer(bytearray(data), dtype=self.dtype).view(tokens, self.width)

    def put(self, digest: bytes, states: Tensor) -> None:
        """Keep the states of an example, as long as there is room."""
        data = states.to("cpu", self.dtype).contiguous().view(torch.uint8).numpy().tobytes()
        if not self._mine or digest in self._index or not self._room(len(data)):
            return
        end = self._file.seek(0, os.SEEK_END)
        checksum = zlib.crc32(data)
        self._file.write(_HEAD.pack(_MAGIC, digest, len(states), checksum) + data)
        self._file.flush()
        self._index[digest] = (end + _HEAD.size, len(states), checksum)

    def close(self) -> None:
        """Let another process write."""
        self._close()

    def _entries(self) -> Iterator[tuple[bytes, tuple[int, int, int]]]:
        size = self._file.seek(0, os.SEEK_END)
        place = 0
        while place + _HEAD.size <= size:
            self._file.seek(place)
            magic, digest, tokens, checksum = _HEAD.unpack(self._file.read(_HEAD.size))
            after = place + _HEAD.size + tokens * self._row
            if magic != _MAGIC or after > size:
                break
            yield digest, (place + _HEAD.size, tokens, checksum)
            place = after
        if place < size and self._mine:
            self._file.truncate(place)

    def _room(self, more: int) -> bool:
        """Whether an entry fits; trunks that were not used for the longest time give way."""
        others = sorted(
            (path for path in self.folder.glob("*.states") if path != self.path),
            key=lambda path: path.stat().st_mtime,
        )
        own = self._file.seek(0, os.SEEK_END) + more + _HEAD.size
        used = own + sum(path.stat().st_size for path in others)
        while used > limit() and others:
            oldest = others.pop(0)
            used -= oldest.stat().st_size
            oldest.unlink(missing_ok=True)
        return used <= limit()


def _lock(file: BinaryIO) -> bool:
    """Whether this process is the one that writes."""
    try:
        import fcntl
    except ImportError:  # where there are no such locks, one process at a time is assumed
        return True
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
