"""What the header of a weights file tells is told before the file is fetched."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.experiment.prepare.preparer import prepare_runs
from adaptcompose.experiment.spec.spec import read_specs
from adaptcompose.formats.tensors import read_header, read_shapes
from tests.workshop import Workshop, inside

sys.path.insert(0, str(Path(__file__).parent))
from hub_server import Hub, serve


def safetensors(shapes: dict[str, list[int]], padding: int = 0) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"padding": "x" * padding}}
    end = 0
    for name, shape in shapes.items():
        size = 4
        for number in shape:
            size *= number
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


@pytest.mark.parametrize("padding", [0, 70_000, 200_000])
def test_only_the_header_is_asked_for(padding: int, tmp_path: Path) -> None:
    data = safetensors({"a": [300, 400], "b": [7]}, padding)
    asked: list[tuple[int, int]] = []

    def piece(start: int, stop: int) -> bytes:
        asked.append((start, stop))
        return data[start:stop]

    assert read_header(piece, len(data), "x") == {"a": (300, 400), "b": (7,)}
    assert len(asked) <= 2
    assert sum(stop - start for start, stop in asked) <= max(65_536, padding + 1000)
    (tmp_path / "x.safetensors").write_bytes(data)
    assert read_shapes(tmp_path / "x.safetensors") == {"a": (300, 400), "b": (7,)}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "too long or damaged"),
        (b"\xff" * 64, "too long or damaged"),
        (safetensors({"a": [3]})[:-1], "cut off"),
        (safetensors({"a": [3]}) + b"x", "more bytes"),
        (struct.pack("<Q", 5) + b"[1,2]", "damaged|not a mapping"),
        (struct.pack("<Q", 500) + b"{}", "cut off"),
    ],
)
def test_a_damaged_header_is_told(data: bytes, why: str) -> None:
    with pytest.raises(Failed, match=f"AC413.*x.*({why})"):
        read_header(lambda start, stop: data[start:stop], len(data), "x")


@pytest.fixture
def hub(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The workshop's adapter lang/en on a hub that is another machine."""
    monkeypatch.setattr(constants, "HF_HOME", str(shop.root / "home"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(shop.root / "home/hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    hub = Hub()
    server = serve(hub)
    shop.spec(hub=f"http://127.0.0.1:{server.server_port}", compose="stack(demo/en)")
    yield hub
    server.shutdown()
    server.server_close()


def files_of(shop: Workshop, *names: str) -> dict[str, bytes]:
    place = shop.hub.fetch("demo/en")
    return {name: (place / name).read_bytes() for name in names}


def prepared(shop: Workshop) -> None:
    with inside(shop.root):
        prepare_runs(read_specs(shop.root / "demo.yaml"), shop.root / "demo.yaml")


def fetched(shop: Workshop) -> list[str]:
    return sorted(path.name for path in (shop.root / "home/hub").rglob("*adapter*"))


def test_weights_that_fit_are_not_fetched_by_a_plan(shop: Workshop, hub: Hub) -> None:
    hub.add("demo/en", files_of(shop, "adapter_config.json", "adapter.safetensors"))
    prepared(shop)
    assert fetched(shop) == ["adapter_config.json"]


def test_weights_of_another_shape_are_told_without_fetching_them(shop: Workshop, hub: Hub) -> None:
    files = files_of(shop, "adapter_config.json")
    place = shop.hub.fetch("demo/en") / "adapter.safetensors"
    shapes = {key: [2 * n for n in shape] for key, shape in read_shapes(place).items()}
    large = safetensors({**shapes, "z": [1_000_000]})
    hub.add("demo/en", {**files, "adapter.safetensors": large})
    with pytest.raises(Failed, match=r"AC408.*`demo/en` does not fit.*but the backbone needs"):
        prepared(shop)
    assert fetched(shop) == ["adapter_config.json"]
    assert hub.sent < 200_000 < len(large)


def test_a_missing_tensor_is_told_without_fetching_the_others(shop: Workshop, hub: Hub) -> None:
    hub.add(
        "demo/en",
        {**files_of(shop, "adapter_config.json"), "adapter.safetensors": safetensors({"z": [5]})},
    )
    with pytest.raises(Failed, match=r"AC418.*the tensor .* is missing"):
        prepared(shop)
    assert fetched(shop) == ["adapter_config.json"]


def test_of_a_pickle_on_another_machine_nothing_is_read_before_the_run(
    shop: Workshop, hub: Hub
) -> None:
    hub.add("demo/en", files_of(shop, "adapter_config.json", "pytorch_adapter.bin"))
    prepared(shop)
    assert fetched(shop) == ["adapter_config.json"]


def test_offline_what_is_in_the_cache_is_read(
    shop: Workshop, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("demo/en", files_of(shop, "adapter_config.json", "adapter.safetensors"))
    prepared(shop)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.requests)
    prepared(shop)
    assert len(hub.requests) == asked
