"""Read and write files of named tensors: safetensors, and torch's `.bin` without unpickling.

A `.bin` is read by an interpreter (pickles.py) that knows nothing but tensors. If a file contains
anything else, AC414 names it.
"""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from adaptcompose.diagnostics.codes import AC413, AC414
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.formats.pickles import (
    ForbiddenPickleError,
    InvalidPickleError,
    Storage,
    StridedView,
    escape_name,
    read_pickle,
)
from adaptcompose.storage.atomic import write_atomically

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
_Named = dict[str, StridedView]
_Data = Callable[[Storage], bytes]

FILE_LIMIT = 8_000_000_000
HEADER_LIMIT = 16_000_000
TENSOR_LIMIT = 100_000
_USUAL_HEADER = 65_536  # read at once: a second request takes longer than these bytes

_WIDTHS = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}
_SAFE_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


def read_tensors(path: Path, name: str | None = None) -> dict[str, torch.Tensor]:
    """The tensors of a `.safetensors` or `.bin` file by name. Messages call the file `name`.

    Tensors may be views of the file or of one another: copy those that you keep. Raises Failed with
    AC413 for a damaged file, AC414 for a pickle of other things than tensors.
    """
    path = Path(path)
    return _with_diagnostics(name or path.name, lambda: _read(path))


Shapes = dict[str, tuple[int, ...]]


def read_shapes(path: Path, name: str | None = None) -> Shapes:
    """The shapes of the tensors in a file, without reading the tensors or importing torch."""
    path = Path(path)
    return _with_diagnostics(name or path.name, lambda: _read_shapes(path))


def read_header(piece: Callable[[int, int], bytes], size: int, name: str) -> Shapes:
    """The shapes in a safetensors file of `size` bytes that is not on this machine.

    `piece` returns the bytes from a start to an end (exclusive). Only the header is read.
    """
    return _with_diagnostics(name, lambda: _read_header(piece, size))


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether all numbers are finite. A finite sum shows that faster than checking each."""
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file; the same tensors give the same bytes."""
    from safetensors.torch import save

    own = {"format": "pt", **(metadata or {})}
    write_atomically(Path(path), save(_separate(tensors), metadata=own))


def write_bin(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a `.bin` file of torch, which is a dict of tensors."""
    import torch

    buffer = io.BytesIO()
    torch.save(_separate(tensors), buffer)
    write_atomically(Path(path), buffer.getvalue())


def _separate(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies with separate storages: safetensors refuses aliases, torch writes all of a base."""
    return {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}


def _with_diagnostics(name: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except ForbiddenPickleError as error:
        raise Failed(AC414.at(file=name, what=str(error))) from None
    except InvalidPickleError as error:
        raise Failed(AC413.at(file=name, why=str(error))) from None
    except OSError as error:
        raise Failed(AC413.at(file=name, why=error.strerror or str(error))) from None


def _read(path: Path) -> dict[str, torch.Tensor]:
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        _check_size(path)
        _read_shapes(path)
        try:
            return dict(sorted(load_file(path).items()))
        except SafetensorError as error:
            raise InvalidPickleError("its header is damaged") from error
    data = _bytes(path)
    if data[:2] == b"PK":
        return _tensors(*_read_archive(data))
    return _tensors(*_read_legacy(data))


def _read_shapes(path: Path) -> Shapes:
    if path.suffix != ".safetensors":
        data = _bytes(path)
        zipped = data[:2] == b"PK"
        named, _ = _read_archive(data) if zipped else _read_legacy(data)
        return {key: tensor.shape for key, tensor in named.items()}
    with path.open("rb") as file:

        def piece(start: int, stop: int) -> bytes:
            file.seek(start)
            return file.read(stop - start)

        return _read_header(piece, path.stat().st_size)


def _read_header(piece: Callable[[int, int], bytes], size: int) -> Shapes:
    start = piece(0, min(_USUAL_HEADER, size))
    length = int.from_bytes(start[:8], "little")
    _require(length <= HEADER_LIMIT, "its header is too long or damaged")
    if 8 + length > len(start):
        start += piece(len(start), min(8 + length, size))
    header = _safe_header(start, size)
    return {key: tuple(entry["shape"]) for key, entry in header.items()}


def _bytes(path: Path) -> bytes:
    _check_size(path)
    return path.read_bytes()


def _check_size(path: Path) -> None:
    _require(path.stat().st_size <= FILE_LIMIT, f"it is larger than {FILE_LIMIT // 10**9} GB")


def _require(condition: bool, why: str) -> None:
    if not condition:
        raise InvalidPickleError(why)


def _safe_header(data: bytes, size: int) -> dict[str, Any]:
    """The header of a safetensors file; its tensors must fill the file without gaps or overlaps."""
    length = int.from_bytes(data[:8], "little")
    _require(len(data) >= 8 and length <= HEADER_LIMIT, "its header is too long or damaged")
    _require(8 + length <= len(data), "it is cut off")
    try:
        header: dict[str, Any] = json.loads(data[8 : 8 + length], object_pairs_hook=_unique)
        _require(isinstance(header, dict), "its header is not a mapping")
        header.pop("__metadata__", None)
        _require(len(header) <= TENSOR_LIMIT, "it has too many tensors")
        extents = sorted(_extent(entry) for entry in header.values())
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidPickleError("its header is damaged") from error
    end = 0
    for begin, stop in extents:
        _require(begin == end, "its tensors overlap or leave gaps")
        end = stop
    _require(8 + length + end <= size, "it is cut off")
    _require(8 + length + end == size, "it has more bytes than its header describes")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(result := dict(pairs)) != len(pairs):
        raise ValueError("a tensor name appears twice")
    return result


def _extent(entry: Any) -> tuple[int, int]:
    begin, end = entry["data_offsets"]
    shape = entry["shape"]
    kind = _SAFE_DTYPES.get(entry["dtype"])
    if kind is None:
        raise InvalidPickleError(
            f"it has tensors of the unsupported type {escape_name(str(entry['dtype']))}"
        )
    if not all(isinstance(n, int) and 0 <= n < 2**48 for n in (begin, end, *shape)):
        raise ValueError("sizes")
    _require(
        len(shape) <= 8 and end - begin == math.prod(shape) * _WIDTHS[kind],
        "the sizes of a tensor do not match",
    )
    return begin, end


_ZIP_ERRORS = (
    ValueError,
    EOFError,
    RuntimeError,
    OverflowError,
    struct.error,
)


def _read_archive(data: bytes) -> tuple[_Named, _Data]:
    """Read torch's zip format: a folder with data.pkl and an entry for each storage."""
    import zipfile

    broken = (zipfile.BadZipFile, *_ZIP_ERRORS)
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except broken as error:
        raise InvalidPickleError("it is cut off or damaged") from error
    entries = {entry.filename: entry for entry in archive.infolist()}
    sizes = sum(entry.file_size for entry in entries.values())
    plain = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries.values())
    _require(len(entries) == len(archive.infolist()), "an entry of its archive appears twice")
    _require(plain and sizes <= len(data), "its archive unpacks to more data than it declares")
    pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    _require(len(pickles) == 1, "it is not a file of torch tensors")
    folder = pickles[0].removesuffix("data.pkl")

    def entry(name: str, expected: int | None = None) -> bytes:
        _require(name in entries, "a part of it is missing")
        limit = HEADER_LIMIT if expected is None else expected
        _require(entries[name].file_size <= limit, "its sizes do not match")
        try:
            return archive.read(name)
        except broken as error:
            raise InvalidPickleError("it is damaged") from error

    order = entry(f"{folder}byteorder") if f"{folder}byteorder" in entries else b"little"
    _require(order == b"little", "its numbers are big-endian")
    named = _named(read_pickle(io.BytesIO(entry(pickles[0]))))
    return named, lambda storage: entry(f"{folder}data/{storage.key}", _extent_of(storage))


_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001


def _read_legacy(data: bytes) -> tuple[_Named, _Data]:
    """Read torch's format before 1.6: five pickles, then each storage after its count."""
    file = io.BytesIO(data)
    _require(data[:2] == b"\x80\x02", "it is not a file of torch tensors")
    if read_pickle(file) != _LEGACY_MAGIC:
        raise ForbiddenPickleError("a pickle that torch did not write")
    _require(read_pickle(file) == _LEGACY_VERSION, "its version is unknown")
    system = read_pickle(file)
    _require(isinstance(system, dict) and system.get("little_endian") is True, "big-endian numbers")
    named = _named(read_pickle(file))
    keys = read_pickle(file)
    storages = {tensor.storage.key: tensor.storage for tensor in named.values()}
    listed = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    _require(listed and sorted(keys) == sorted(storages), "its storages do not match")
    contents: dict[str, bytes] = {}
    for key in keys:
        _require(
            int.from_bytes(file.read(8), "little") == storages[key].count,
            "the sizes of a tensor do not match",
        )
        contents[key] = file.read(_extent_of(storages[key]))
    return named, lambda storage: contents[storage.key]


def _named(value: Any) -> dict[str, StridedView]:
    if not isinstance(value, dict):
        raise ForbiddenPickleError(f"a {type(value).__name__.lower()} instead of named tensors")
    _require(len(value) <= TENSOR_LIMIT, "it has too many tensors")
    for key, tensor in value.items():
        if not isinstance(tensor, StridedView):
            kind = "dict" if isinstance(tensor, dict) else type(tensor).__name__
            raise ForbiddenPickleError(f"a {kind} called `{escape_name(key)}`")
    kinds: dict[str, Storage] = {}
    for tensor in value.values():
        known = kinds.setdefault(tensor.storage.key, tensor.storage)
        _require(known == tensor.storage, "its storages do not match")
        _check_view(tensor)
    return value


def _extent_of(storage: Storage) -> int:
    return storage.count * _WIDTHS[storage.dtype]


def _check_view(tensor: StridedView) -> None:
    """Raise unless a view is inside its storage and not larger: a small file stays small."""
    _require(len(tensor.shape) == len(tensor.strides), "the sizes of a tensor do not match")
    steps = zip(tensor.shape, tensor.strides, strict=True)
    last = tensor.offset + sum((size - 1) * stride for size, stride in steps)
    count = math.prod(tensor.shape)
    inside = count == 0 or (last < tensor.storage.count and count <= tensor.storage.count)
    _require(inside, "a tensor reaches beyond its data")


def _tensors(named: _Named, read: _Data) -> dict[str, torch.Tensor]:
    import torch

    numbers_by_key: dict[str, torch.Tensor] = {}
    for storage in {tensor.storage.key: tensor.storage for tensor in named.values()}.values():
        data = read(storage)
        _require(len(data) == _extent_of(storage), "it is cut off")
        numbers = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0)
        numbers_by_key[storage.key] = _as(numbers, storage.dtype)
    return {
        key: _view(numbers_by_key[tensor.storage.key], tensor)
        for key, tensor in sorted(named.items())
    }


def _view(numbers: torch.Tensor, tensor: StridedView) -> torch.Tensor:
    if 0 in tensor.shape:
        return numbers.new_empty(tensor.shape)
    return numbers.as_strided(tensor.shape, tensor.strides, tensor.offset)


def _as(numbers: torch.Tensor, dtype: str) -> torch.Tensor:
    import torch

    kind: torch.dtype = getattr(torch, dtype)
    if kind is torch.bool or not numbers.numel():
        return numbers.to(kind)
    return numbers.view(kind)
