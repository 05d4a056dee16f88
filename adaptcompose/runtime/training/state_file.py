"""Hidden states on disk: one file per trunk, an entry per example, a limit for all of them.

An entry is a head (magic, digest of the example, number of tokens, checksum, type of the numbers)
and the states of its tokens. A torn end is cut off when the file is opened; an entry whose checksum
is wrong is forgotten and computed anew. A second process that uses the same trunk reads, and adds
nothing.
"""

from __future__ import annotations

import contextlib
import os
import struct
import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch
from torch import Tensor

_ENTRY_HEADER = struct.Struct("<4s16sIIB")
_MAGIC = b"ACst"
_TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
DEFAULT_SIZE_LIMIT = 8 * 2**30
"""Bytes that all trunks may take together; ADAPTCOMPOSE_TRUNK_BYTES sets another limit."""


def states_folder() -> Path:
    """The folder of cached states: below XDG_CACHE_HOME, or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "adaptcompose/trunk"


def size_limit() -> int:
    """The most bytes that all trunks together may take."""
    return int(os.environ.get("ADAPTCOMPOSE_TRUNK_BYTES") or DEFAULT_SIZE_LIMIT)


class _Entry(NamedTuple):
    start: int
    size: int  # bytes
    checksum: int
    dtype: torch.dtype


class StateFile:
    """The states of one trunk: digest of an example → [tokens, width]."""

    def __init__(self, key: str, width: int, *, folder: Path | None = None) -> None:
        self.folder = folder or states_folder()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = self.folder / f"{key}.states"
        self.key, self.width = key, width
        self._file: BinaryIO = self.path.open("a+b")
        self._close = weakref.finalize(self, self._file.close)
        self._may_write = _try_lock(self._file)
        self._index = dict(self._entries())
        os.utime(self.path)

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._index

    def __len__(self) -> int:
        return len(self._index)

    def get(self, digest: bytes) -> Tensor | None:
        """The states of an example, or None if they are missing or damaged."""
        if digest not in self._index:
            return None
        start, size, checksum, dtype = self._index[digest]
        self._file.seek(start)
        data = self._file.read(size)
        if len(data) != size or zlib.crc32(data) != checksum:
            del self._index[digest]
            return None
        return torch.frombuffer(bytearray(data), dtype=dtype).view(-1, self.width)

    def put(self, digest: bytes, states: Tensor) -> None:
        """Store the states of an example, [tokens, width], if there is room."""
        data = states.cpu().contiguous().view(torch.uint8).numpy().tobytes()
        if not self._may_write or digest in self._index or not self._make_room(len(data)):
            return
        end = self._file.seek(0, os.SEEK_END)
        checksum = zlib.crc32(data)
        number = _TYPES.index(states.dtype)
        self._file.write(_ENTRY_HEADER.pack(_MAGIC, digest, len(states), checksum, number) + data)
        self._file.flush()
        self._index[digest] = _Entry(end + _ENTRY_HEADER.size, len(data), checksum, states.dtype)

    def close(self) -> None:
        """Release the write lock."""
        self._close()

    def _entries(self) -> Iterator[tuple[bytes, _Entry]]:
        size = self._file.seek(0, os.SEEK_END)
        place = 0
        while place + _ENTRY_HEADER.size <= size:
            self._file.seek(place)
            head = _ENTRY_HEADER.unpack(self._file.read(_ENTRY_HEADER.size))
            magic, digest, tokens, checksum, number = head
            if magic != _MAGIC or number >= len(_TYPES):
                break
            start, length = (
                place + _ENTRY_HEADER.size,
                tokens * self.width * _TYPES[number].itemsize,
            )
            if start + length > size:
                break
            yield digest, _Entry(start, length, checksum, _TYPES[number])
            place = start + length
        if place < size and self._may_write:
            self._file.truncate(place)

    def _make_room(self, more: int) -> bool:
        """Delete the least recently used trunks until an entry fits; False if it never can."""
        others = sorted(
            (path for path in self.folder.glob("*.states") if path != self.path),
            key=lambda path: path.stat().st_mtime,
        )
        own = self._file.seek(0, os.SEEK_END) + more + _ENTRY_HEADER.size
        used = own + sum(path.stat().st_size for path in others)
        while used > size_limit() and others:
            oldest = others.pop(0)
            used -= oldest.stat().st_size
            oldest.unlink(missing_ok=True)
        return used <= size_limit()


def _try_lock(file: BinaryIO) -> bool:
    """True if this process holds the write lock."""
    try:
        import fcntl
    except ImportError:  # where there are no such locks, one process at a time is assumed
        return True
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
