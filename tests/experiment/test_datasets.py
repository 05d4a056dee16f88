"""Data sets on a hub are found by their layout, pinned, cached, and read without any script."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from huggingface_hub import constants
from pyarrow import parquet

from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed
from adaptcompose.experiment.prepare.prepared_run import PreparedRun
from adaptcompose.experiment.prepare.preparer import prepare_runs
from adaptcompose.experiment.prepare.spec_check import check_specs
from adaptcompose.experiment.prepare.spec_lock import lock_path
from adaptcompose.experiment.spec.spec import read_specs
from adaptcompose.experiment.spec.value_types import DataRef
from adaptcompose.hub.lock import Lock
from adaptcompose.resolution.dataset_splits import read_layout
from tests.hub.connection import connected
from tests.hub.hub_server import Hub
from tests.workshop import Workshop, sentences

CLASSES = ["in", "mombasa", "nairobi"]
CONFIGS = """\
---
configs:
- config_name: plain
  data_files:
  - {split: train, path: tables/train-*}
  - {split: held_out, path: [tables/dev.csv]}
- config_name: other
  data_dir: other
dataset_info:
- config_name: plain
  features:
  - {name: text, dtype: string}
  - name: label
    dtype: {class_label: {names: {'0': mombasa, '1': nairobi}}}
---
# Places
"""


def rows(count: int, start: int = 0) -> list[tuple[str, str]]:
    return [(" ".join(words), words[2]) for words in sentences(count, start)]


def table(count: int, start: int = 0, *, numbers: bool = False) -> bytes:
    found = rows(count, start)
    named = [(t, str(["mombasa", "nairobi"].index(label)) if numbers else label)
             for t, label in found]  # fmt: skip
    return ("text,label\n" + "".join(f"{t},{label}\n" for t, label in named)).encode()


def packed(folder: Path, count: int, start: int = 0, *, secret: bool = False) -> bytes:
    """Write Parquet like the library `datasets`: class numbers, with names in the metadata."""
    found = rows(count, start)
    features = {"sentence": {"dtype": "string", "_type": "Value"},
                "place": {"names": CLASSES, "_type": "ClassLabel"}}  # fmt: skip
    labels = [-1 if secret else CLASSES.index(label) for _, label in found]
    made = pa.table({"sentence": [text for text, _ in found], "place": labels, "more": labels})
    told = json.dumps({"info": {"features": features}})
    path = folder / "made.parquet"
    parquet.write_table(made.replace_schema_metadata({"huggingface": told}), path)
    return path.read_bytes()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A loopback Hub with a data set of tables and one in Parquet."""
    with connected(Hub(large=(".parquet",)), tmp_path, monkeypatch) as hub:
        shards = {
            "data/train-00000-of-00002.parquet": packed(tmp_path, 6),
            "data/train-00001-of-00002.parquet": packed(tmp_path, 4, 6),
            "data/validation-00000-of-00001.parquet": packed(tmp_path, 5, 3),
            "data/test-00000-of-00001.parquet": packed(tmp_path, 5, 5, secret=True),
            "places.py": b"raise SystemExit",
        }
        hub.add("datasets/user/packed", shards)
        tables = {
            "README.md": CONFIGS.encode(),
            "tables/train-a.csv": table(8, numbers=True),
            "tables/dev.csv": table(5, 3, numbers=True),
            "other/train.jsonl": b'{"text": "amina", "label": "x"}\n',
        }
        hub.add("datasets/user/places", tables)
        yield hub


PACKED = {"repo": "hf://datasets/user/packed", "columns": {"text": "sentence", "labels": "place"}}
TABLES = {"repo": "hf://user/places", "config": "plain", "splits": {"validation": "held_out"}}


def spec(shop: Workshop, data: dict[str, Any], **more: Any) -> Path:
    start: dict[str, Any] = {
        "compose": "pfeiffer(reduction=4)",
        "task": {"kind": "text-classification"},
        "data": {"d": data},
        "train": {"data": "d", "steps": 1, "batch": 4},
    }
    return shop.spec(**{k: v for k, v in (start | more).items() if v is not None})


def prepared(path: Path) -> PreparedRun:
    made = prepare_runs(read_specs(path), path)[0]
    made.read_inputs()
    return made


def problem(path: Path) -> Diagnostic:
    with pytest.raises(Failed) as caught:
        prepared(path)
    (found,) = caught.value.diagnostics
    return found


@pytest.mark.usefixtures("hub")
def test_parquet_is_found_read_and_named(shop: Workshop) -> None:
    path = spec(shop, PACKED, predict=[{"name": "p", "data": "d"}])
    made = prepared(path)
    train = made.spec.train
    assert train is not None and made.task is not None
    assert (str(train.data), str(train.validation), train.keep) == (
        "d/train", "d/validation", "best",
    )  # fmt: skip
    assert made.task.labels == tuple(CLASSES)
    assert [tuple(row) for row in made.read_examples(train.data).rows] == rows(10)
    # a split without labels can be predicted
    assert made.read_examples(DataRef("d", None, "test"), labelled=False).columns == ("text",)


@pytest.mark.usefixtures("hub")
def test_the_readme_says_which_files_and_classes(shop: Workshop) -> None:
    made = prepared(spec(shop, TABLES))
    train = made.spec.train
    assert train is not None and made.task is not None
    assert (str(train.data), str(train.validation)) == ("d[plain]/train", "d[plain]/validation")
    assert made.task.labels == ("mombasa", "nairobi")
    assert [tuple(row) for row in made.read_examples(train.data).rows] == rows(8)


def test_the_lock_pins_revision_and_hashes(
    shop: Workshop, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = spec(shop, TABLES)
    first = prepared(path)
    first.lock.write(lock_path(path))
    assert Lock.load(lock_path(path)) == first.lock
    pin = first.lock.data["d[plain]/train"]
    assert (
        pin.repo == "user/places" and pin.revision == hub.branches["datasets/user/places", "main"]
    )
    assert [*pin.files] == ["README.md", "tables/train-a.csv"]
    hub.add("datasets/user/places", {"tables/train-b.csv": table(3)})
    assert prepared(path).lock == first.lock
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.requests)
    assert prepared(path).lock == first.lock
    assert len(hub.requests) == asked
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    again = prepare_runs(read_specs(spec(shop, PACKED)), path, rewrite_lock=True)[0]
    assert again.lock.data["d/train"].repo == "user/packed"


def test_a_pin_stays_unless_it_is_upgraded(shop: Workshop, hub: Hub) -> None:
    path = spec(shop, {"repo": "hf://user/places", "config": "plain"})
    old = prepared(path).lock
    old.write(lock_path(path))
    files = dict(hub.files("datasets/user/places"))
    hub.add("datasets/user/places", files | {"tables/train-b.csv": table(3, numbers=True)})
    specs = read_specs(path)
    assert prepare_runs(specs, path, rewrite_lock=True)[0].lock == old
    new = prepare_runs(specs, path, rewrite_lock=True, upgrade=("d",))[0].lock
    assert "tables/train-b.csv" in new.data["d[plain]/train"].files


def test_offline_without_a_cache_says_what_to_fetch(
    shop: Workshop, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = spec(shop, PACKED)
    lock = prepare_runs(read_specs(path), path)[0].lock
    lock.write(lock_path(path))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "nobody"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Failed) as caught:
        prepared(path)
    found = caught.value.diagnostics
    assert {one.code for one in found} == {"AC405"}
    assert "hf download user/packed data/train-0" in str(found[0].help)
    assert "--repo-type dataset" in str(found[0].help)


def test_what_does_not_have_its_hash_is_not_read(shop: Workshop, hub: Hub) -> None:
    hub.changed["tables/train-a.csv"] = table(8)[::-1].ljust(len(table(8, numbers=True)), b" ")[
        : len(table(8, numbers=True))
    ]
    found = problem(spec(shop, TABLES))
    assert found.code == "AC411" and found.position()[1] > 1


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("data", "train", "code", "words"),
    [
        (TABLES | {"repo": "hf://user/place"}, "d", "AC401", "datasets/user/place"),
        (TABLES | {"repo": "hf://user/places@v9"}, "d", "AC402", "v9"),
        (TABLES, "d[plane]", "AC610", "did you mean `d[plain]`"),
        ({"repo": "hf://user/places"}, "d", "AC610", "d[plain], d[other]"),
        (TABLES | {"splits": {"train": "trian"}}, "d", "AC610", "did you mean `train`"),
        (PACKED, "d/tran", "AC610", "did you mean `d/train`"),
        (PACKED | {"columns": {"text": "sentense"}}, "d", "AC605", "did you mean `sentence`"),
        (TABLES | {"columns": {"labels": "lable"}}, "d", "AC605", "did you mean `label`"),
    ],
)
def test_a_wrong_name_is_told_once_where_it_stands(
    shop: Workshop, data: dict[str, Any], train: str, code: str, words: str
) -> None:
    path = spec(shop, data, train={"data": train, "steps": 1})
    found = problem(path)
    assert found.code == code and words in f"{found.message} {found.help}", found
    assert found.span is not None and found.position()[1] > 1


def test_a_plan_counts_the_bytes_of_data(shop: Workshop, hub: Hub) -> None:
    labelled = {"kind": "text-classification", "labels": CLASSES}
    path = spec(shop, PACKED, task=labelled, evaluate=[{"name": "e", "data": "d/train"}])
    made, files = prepare_runs(read_specs(path), path)[0], hub.files("datasets/user/packed")
    wanted = sum(len(files[name]) for name in files if "/train-" in name or "/valid" in name)
    assert made.make_plan().other_downloads["data"] == made.make_plan().download_bytes == wanted
    assert "(data)" in str(made.make_plan())
    made.read_inputs()
    assert made.make_plan().download_bytes == 0


def test_a_check_does_not_ask_the_hub(shop: Workshop, hub: Hub) -> None:
    path = spec(shop, PACKED)
    assert check_specs(read_specs(path), path) == []
    assert hub.requests == []


def test_a_folder_and_a_folder_hub_hold_data_sets_too(shop: Workshop, hub: Hub) -> None:
    from adaptcompose.hub.folder import FolderStore

    files = hub.files("datasets/user/packed")
    for name, content in files.items():
        place = shop.root / "packed" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    FolderStore(shop.root / "hub" / "datasets").commit("user/packed", files, message="x")
    asked = len(hub.requests)
    for repo in ("./packed", "user/packed"):
        path = spec(shop, PACKED | {"repo": repo}, evaluate=[{"name": "v", "data": "d/validation"}])
        made = prepared(path)
        assert made.task is not None and made.task.labels == tuple(CLASSES)
        assert check_specs(read_specs(path), path) == []
    assert "data/train-00000-of-00002.parquet" in made.lock.data["d/train"].files
    assert len(hub.requests) == asked


def test_a_script_is_never_run(shop: Workshop, hub: Hub) -> None:
    hub.add("datasets/user/script", {"script.py": b"raise SystemExit"})
    found = problem(spec(shop, {"repo": "hf://user/script"}))
    assert found.code == "AC413" and "@refs/convert/parquet" in str(found.help)


def test_without_pyarrow_the_remedy_is_named(
    shop: Workshop, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    found = problem(spec(shop, PACKED))
    assert found.code == "AC615" and "adaptcompose[parquet]" in str(found.help)
    assert found.span is not None and found.span.text == PACKED["repo"]


def test_a_damaged_file_is_told(shop: Workshop) -> None:
    (shop.root / "x.parquet").write_bytes(b"PAR1 no PAR1")
    found = problem(spec(shop, {"files": {"train": "x.parquet"}}))
    assert found.code == "AC413"
    assert found.span is not None and "x.parquet" in found.span.text


def test_layouts() -> None:
    convert = ["en/train/0000.parquet", "en/test/0000.parquet", "sw/train/0000.parquet"]
    assert read_layout(convert, {}).splits("en") == {
        "train": ("en/train/0000.parquet",),
        "test": ("en/test/0000.parquet",),
    }
    assert read_layout(convert, {}).choose_config(None) is None
    mixed = ["a.csv", "b.csv", "c.json", "README.md", "LICENSE.txt"]
    assert read_layout(mixed, {}).splits("default") == {"train": ("a.csv", "b.csv")}
    assert read_layout(["x.bin", "train.csv.zip"], {}).configs == {}
    shards = ["en/train-00000-of-00002.json.gz", "en/train-00001-of-00002.json.gz", "en/a.csv"]
    assert read_layout(shards, {}).splits("en") == {"train": tuple(shards[:2])}
    outside = {"configs": [{"config_name": "a", "data_files": "../../etc/*"}]}
    assert read_layout(["train.csv"], outside).choose_config("a") is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("data", [PACKED, TABLES])
def test_a_step_is_trained(shop: Workshop, data: dict[str, Any]) -> None:
    items = [{"name": "held out", "data": "d/validation"}]
    report = shop.run(spec(shop, data, evaluate=items))
    assert report["scores"][0]["name"] == "held out"
    assert any("user/" in pin["repo"] for pin in report["lock"]["data"].values())
