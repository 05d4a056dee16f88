from __future__ import annotations

import collections
import io
import json
import math
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st

from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.formats.tensors import (
    is_finite,
    read_shapes,
    read_tensors,
    write_bin,
    write_tensors,
)
from tests.sampling import sampled

KINDS = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
    torch.int16, torch.int8, torch.uint8, torch.bool,
)  # fmt: skip


def sample() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    numbers = {str(kind): torch.randn(3, 4, generator=generator).to(kind) for kind in KINDS}
    whole = torch.randn(6, 5, generator=generator)
    return numbers | {
        "view": whole[1:4, ::2].t(),
        "alias": whole,
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 7),
    }


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert sorted(found) == sorted(expected)
    for key, value in expected.items():
        assert found[key].dtype == value.dtype
        assert torch.equal(found[key], value), key


def code(path: Path, read: Any = read_tensors) -> tuple[str, str]:
    with pytest.raises(Failed) as failure:
        read(path, "user/repo: weights")
    (found,) = failure.value.diagnostics
    assert "user/repo: weights" in found.message
    return found.code, found.message


@pytest.mark.parametrize("write", [write_bin, write_tensors])
def test_round_trip(tmp_path: Path, write: Any) -> None:
    path = tmp_path / ("x.bin" if write is write_bin else "x.safetensors")
    write(path, sample())
    assert_equal(read_tensors(path), sample())
    assert read_shapes(path) == {key: tuple(value.shape) for key, value in sample().items()}
    before = path.read_bytes()
    write(path, sample())
    assert path.read_bytes() == before


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_files_of_torch(tmp_path: Path, zipped: bool, protocol: int) -> None:
    state = collections.OrderedDict(sample())
    state["parameter"] = torch.nn.Parameter(torch.ones(2, 2))
    state._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    path = tmp_path / "x.bin"
    torch.save(state, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    if not zipped and protocol == 4:
        assert code(path)[0] == "AC413"
        return
    assert_equal(read_tensors(path), {**sample(), "parameter": torch.ones(2, 2)})


def test_a_module_saved_by_its_state(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    path = tmp_path / "x.bin"
    torch.save(module.state_dict(), path)
    assert_equal(read_tensors(path), dict(module.state_dict()))


def archive(path: Path, pickled: bytes, storages: dict[str, bytes], **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", **options) as file:
        file.writestr("archive/data.pkl", pickled)
        for key, data in storages.items():
            file.writestr(f"archive/data/{key}", data)
    return path


class Call:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduction = (function, arguments)

    def __reduce__(self) -> Any:
        return self.reduction


@pytest.mark.parametrize(
    ("value", "protocol"),
    [
        (Call(os.system, "touch {witness}"), 2),
        (Call(os.system, "touch {witness}"), 4),
        ({"a": Call(eval, "open('{witness}', 'w')")}, 2),
        ({"a": Call(getattr, Call(__import__, "os"), "system")}, 4),
        ({"a": [Call(subprocess.call, ["touch", "{witness}"])]}, 2),
        (collections.OrderedDict(a=Call(exec, "open('{witness}', 'w')")), 2),
    ],
)
def test_nothing_of_a_pickle_is_run(tmp_path: Path, value: Any, protocol: int) -> None:
    witness = tmp_path / "w"
    pickled = pickle.dumps(value, protocol)
    marked = b"{witness}"
    # The witness has a name of the same length, for a pickle counts its characters.
    name = str(witness).encode()[-len(marked) :].rjust(len(marked), b"/")
    pickled = pickled.replace(marked, name)
    assert code(archive(tmp_path / "x.bin", pickled, {}))[0] == "AC414"
    (tmp_path / "legacy.bin").write_bytes(pickled)
    assert code(tmp_path / "legacy.bin")[0] in ("AC413", "AC414")
    assert not Path(os.fsdecode(name)).exists()


@pytest.mark.parametrize(
    ("pickled", "what"),
    [
        (b"\x80\x02cposix\nsystem\nq\x00.", "posix.system"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", "posix.system"),
        (b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93.", "OrderedDict.__init__"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2.__globals__\n.", "__globals__"),
        (b"\x80\x02ctorch\nload\n.", "torch.load"),
        (b"(S'echo'\nios\nsystem\n.", "pickle instruction"),
        (b"\x80\x02X\x01\x00\x00\x00aQ.", "persistent object"),
        (b"\x80\x02(X\x06\x00\x00\x00modulectorch\nSize\nX\x01\x00\x00\x000tQ.", "persistent"),
        (b"\x80\x02\x82\x01.", "pickle instruction EXT1"),
        (b"\x80\x02ccollections\nOrderedDict\n}b.", "object with a state"),
        (b"\x80\x02ccollections\nOrderedDict\n](]e\x85R.", "call"),
        (b"\x80\x02K\x01.", "int"),
        (b"\x80\x02}X\x01\x00\x00\x00aK\x01s.", "int called `a`"),
        (b"\x80\x02}X\x01\x00\x00\x00a}s.", "dict called `a`"),
    ],
)
def test_more_than_tensors_is_named(tmp_path: Path, pickled: bytes, what: str) -> None:
    found, message = code(archive(tmp_path / "x.bin", pickled, {}))
    assert found == "AC414"
    assert what in message


@pytest.mark.parametrize(
    "pickled",
    [
        b"",
        b"\x80\x02",
        b".",
        b"\x80\x02}K\x01K\x02s.",
        b"\x80\x02h\x05.",
        b"\x80\x02t.",
        b"\x80\x02ctorch\nSize\nK\x05\x85R.",
        b"\x80\x02" + b"(" * 50_000 + b"t" * 50_000 + b".",
        b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"K\x01s.",
    ],
)
def test_damaged_pickles(tmp_path: Path, pickled: bytes) -> None:
    assert code(archive(tmp_path / "x.bin", pickled, {}))[0] in ("AC413", "AC414")


def rebuilt(offset: int, shape: tuple[int, ...], strides: tuple[int, ...], count: int = 4) -> bytes:
    """The pickle of {"a": a float tensor with any sizes}, its persistent id included."""

    class Writer(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            if isinstance(value, bytearray):
                return ("storage", torch.FloatStorage, "0", "cpu", count)
            return None

    buffer = io.BytesIO()
    arguments: tuple[Any, ...] = (
        bytearray(),
        offset,
        shape,
        strides,
        False,
        collections.OrderedDict(),
    )
    Writer(buffer, 2).dump({"a": Call(torch._utils._rebuild_tensor_v2, *arguments)})
    return buffer.getvalue()


def test_a_handmade_tensor_is_read(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "x.bin", rebuilt(1, (3,), (1,)), {"0": struct.pack("<4f", 1, 2, 3, 4)}
    )
    assert read_tensors(path)["a"].tolist() == [2, 3, 4]


@pytest.mark.parametrize(
    ("offset", "shape", "strides", "count"),
    [
        (2, (3,), (1,), 4),
        (0, (5,), (1,), 4),
        (0, (2,), (4,), 4),
        (0, (10**6, 10**6), (0, 0), 4),
        (0, (2, 2), (2,), 4),
        (-1, (2,), (1,), 4),
        (0, (2,), (-1,), 4),
        (0, (4,), (1,), 5),
        (0, (4,), (1,), 3),
        (0, (2**62,), (1,), 2**62),
    ],
)
def test_views_stay_inside_their_data(
    tmp_path: Path, offset: int, shape: Any, strides: Any, count: int
) -> None:
    path = archive(tmp_path / "x.bin", rebuilt(offset, shape, strides, count), {"0": b"\0" * 16})
    assert code(path)[0] == "AC413"


def test_bombs(tmp_path: Path) -> None:
    pickled, data = rebuilt(0, (4,), (1,), 10**7), b"\0" * 4 * 10**7
    squeezed = archive(tmp_path / "x.bin", pickled, {"0": data}, compression=zipfile.ZIP_DEFLATED)
    assert squeezed.stat().st_size < 100_000
    assert "unpacks to more" in code(squeezed)[1]


def test_twin_entries(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.bin", rebuilt(0, (4,), (1,)), {"0": b"\0" * 16})
    with pytest.warns(UserWarning), zipfile.ZipFile(path, "a") as file:
        file.writestr("archive/data/0", b"\1" * 16)
    assert "twice" in code(path)[1]


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_every_truncation_is_noticed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("x.safetensors" if kind == "safetensors" else "x.bin")
    tensors = {"a": torch.arange(12.0).reshape(3, 4), "b": torch.ones(2)}
    if kind == "safetensors":
        write_tensors(path, tensors)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=kind == "zip")
    data = path.read_bytes()
    for length in [*range(0, len(data), max(1, len(data) // 60)), len(data) - 1]:
        path.write_bytes(data[:length])
        assert code(path)[0] == "AC413"


@sampled(150, st.data())
def test_flipped_bytes_never_crash(tmp_path_factory: Any, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from([True, False]))
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(3)}, buffer, _use_new_zipfile_serialization=kind)
    changed = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "flipped.bin"
    path.write_bytes(changed)
    try:
        found = read_tensors(path)
    except Failed as failure:
        assert {one.code for one in failure.diagnostics} <= {"AC413", "AC414"}
    else:
        assert all(isinstance(value, torch.Tensor) for value in found.values())


INSTRUCTIONS = [
    b"(", b"t", b")", b"\x85", b"\x86", b"\x87", b"]", b"a", b"e", b"}", b"s", b"u", b"N", b"\x88",
    b"K\x01", b"J\xff\xff\xff\xff", b"q\x00", b"h\x00", b"\x94", b"Q", b"R", b"b", b"\x93", b"0",
    b"ccollections\nOrderedDict\n", b"ctorch\nSize\n", b"ctorch\nFloatStorage\n", b"cos\nsystem\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n", b"X\x07\x00\x00\x00storage", b"X\x01\x00\x00\x000",
]  # fmt: skip


@sampled(400, st.lists(st.sampled_from(INSTRUCTIONS), max_size=40))
def test_no_program_gets_further_than_tensors(tmp_path_factory: Any, program: list[bytes]) -> None:
    path = tmp_path_factory.getbasetemp() / "program.bin"
    archive(path, b"\x80\x02" + b"".join(program) + b".", {"0": b"\0" * 4})
    try:
        found = read_tensors(path)
    except Failed as failure:
        assert {one.code for one in failure.diagnostics} <= {"AC413", "AC414"}
    else:
        assert all(isinstance(value, torch.Tensor) for value in found.values())


def safe(header: Any, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        (2**60).to_bytes(8, "little") + b"{}",
        safe(b"[]", b""),
        safe(b"{", b""),
        safe(b"[" * 5000, b""),
        safe({"a": ONE}, b"\0" * 7),
        safe({"a": ONE}, b"\0" * 9),
        safe({"a": {**ONE, "shape": [3]}}, b"\0" * 8),
        safe({"a": {**ONE, "dtype": "F8_E4M3"}}, b"\0" * 8),
        safe({"a": {**ONE, "data_offsets": [-8, 0]}}, b"\0" * 8),
        safe({"a": {**ONE, "shape": [-1, -2]}}, b"\0" * 8),
        safe({"a": ONE, "b": ONE}, b"\0" * 8),
        safe({"a": ONE, "b": {**ONE, "data_offsets": [16, 24]}}, b"\0" * 24),
        safe(b'{"a": %b, "a": %b}' % ((json.dumps(ONE).encode(),) * 2), b"\0" * 8),
    ],
)
def test_damaged_safetensors(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    assert code(path)[0] == "AC413"
    assert code(path, read_shapes)[0] == "AC413"


def test_a_missing_file(tmp_path: Path) -> None:
    assert code(tmp_path / "x.safetensors")[0] == "AC413"


def test_shapes_need_no_torch(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x.safetensors", {"a": torch.ones(2, 3)})
    write_bin(tmp_path / "x.bin", {"a": torch.ones(2, 3)})
    program = (
        "import sys; from pathlib import Path\n"
        "from adaptcompose.formats.tensors import read_shapes\n"
        "for name in ('x.safetensors', 'x.bin'):\n"
        "    assert read_shapes(Path(sys.argv[1]) / name) == {'a': (2, 3)}\n"
        "assert 'torch' not in sys.modules and 'safetensors' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)


@pytest.mark.parametrize(
    ("numbers", "finite"),
    [
        ([], True),
        ([1.0, -2.0], True),
        ([3e38, 3e38], True),  # their sum is not
        ([1.0, math.inf], False),
        ([math.inf, -math.inf], False),
        ([math.nan, 1.0], False),
    ],
)
def test_finite_means_every_number(numbers: list[float], finite: bool) -> None:
    assert is_finite(torch.tensor(numbers)) is finite
