"""prune in a spec: measured on its data, on what was trained, and kept for later."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from adaptcompose.documents import load
from adaptcompose.hub.lock import Lock
from adaptcompose.language.diagnostics import Failed
from adaptcompose.work.prepare import prepare, prepare_all
from adaptcompose.work.spec import read_spec
from tests.workshop import Workshop, command

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

SPEC = """\
spec: 1
name: demo
hub: ./hub
backbone: {model: ./base, as: demo/base}
compose: fuse(demo/glue-a, demo/glue-b, demo/ner)
task: {kind: text-classification}
data:
  d: {files: {train: data/train.jsonl, validation: data/validation.jsonl, test: data/test.jsonl}}
train: {data: d, steps: 2, batch: 4}
evaluate:
  - {name: whole, data: d}
  - {name: one, data: d, pipe: "prune(keep=1, data=d)"}
  - {name: three, data: d, pipe: "prune(keep=3, data=d/test)"}
"""


def test_a_run_prunes_what_it_has_trained(shop: Workshop) -> None:
    (shop.root / "demo.yaml").write_text(SPEC)
    done = command("run", "demo.yaml", "--quiet", cwd=shop.root)
    assert done.returncode == 0, done.stderr
    report = json.loads((shop.root / "runs/demo/report.json").read_text())
    scores = {row["name"]: row["value"] for row in report["scores"]}
    assert scores["three"] == scores["whole"]
    assert set(scores) == {"whole", "one", "three"}
    kept = load((shop.root / "runs/demo/activations.yaml").read_text())["fusions"]["fuse"]
    for means in kept.values():
        assert len(means) == 3
        assert sum(means) == pytest.approx(1.0, abs=1e-4)
    by = "fuse(demo/glue-a, demo/glue-b, demo/ner, load=./runs/demo/best/fuse)"
    program = command(
        "plan",
        f"{by} | prune(keep=1, by=runs/demo)",
        "--backbone",
        "./base",
        "--hub",
        "./hub",
        cwd=shop.root,
    )
    assert program.returncode == 0, program.stderr


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("prune(keep=1, data=d)", "prune(keep=1, data=e)", "AC610"),
        ("prune(keep=1, data=d)", "prune(keep=1, data=d/dev)", "AC610"),
        ("demo/ner)", "demo/ner) | prune(keep=1, data=d)", "AC501"),
        ("prune(keep=1, data=d)", "prune(keep=1, by=runs/none)", "AC607"),
        ("prune(keep=1, data=d)", "prune(keep=1)", "AC204"),
        ("prune(keep=1, data=d)", "prune(keep=0, data=d)", "AC209"),
    ],
)
def test_what_cannot_be_pruned_is_told_before_training(
    shop: Workshop, old: str, new: str, code: str
) -> None:
    path = shop.root / "demo.yaml"
    path.write_text(SPEC.replace(old, new))
    with pytest.raises(Failed) as failed:
        prepare(read_spec(path), path)
    assert {found.code for found in failed.value.diagnostics} == {code}


LOADED = """\
spec: 1
name: loaded
hub: ./hub
backbone: {model: ./base, as: demo/base}
compose: fuse(demo/glue-a, demo/glue-b, demo/ner, load=./fusion) | prune(data=d)
task: {kind: text-classification}
data:
  d: {files: {train: data/train.jsonl, validation: data/validation.jsonl, test: data/test.jsonl}}
train: {data: d, steps: 1, batch: 4}
"""


def test_the_lock_records_what_is_kept_of_a_loaded_fusion(shop: Workshop) -> None:
    (shop.root / "demo.yaml").write_text(SPEC)
    spec = shop.root / "loaded.yaml"
    spec.write_text(LOADED)
    run(shop, "demo.yaml")
    assert not opened(shop, "demo").members  # what is trained is measured in each run
    shutil.copytree(shop.root / "runs/demo/best/fuse", shop.root / "fusion")
    run(shop, "loaded.yaml")
    lock = opened(shop, "loaded")
    ((text, measured),) = lock.members.items()
    ((fusion, sites),) = measured["d"].items()
    assert text == load(LOADED)["compose"]
    assert {len({*kept}) for kept in sites.values()} == {2}

    other = {site: tuple({0, 1, 2} - {kept[0]}) for site, kept in sites.items()}
    replace(lock, members={text: {"d": {fusion: other}}}).write(shop.root / "loaded.lock")
    run(shop, "loaded.yaml", "--fresh")
    assert opened(shop, "loaded").members[text]["d"][fusion] == other
    held = load((shop.root / "runs/loaded/best/activations.yaml").read_text())["fusions"]
    for site, means in next(iter(held.values())).items():
        assert {n for n, mean in enumerate(means) if mean} == {*other[site]}

    assert again(spec).members
    assert not again(spec, upgrade=()).members
    far = dict.fromkeys(sites, (0, 7))
    replace(lock, members={text: {"d": {fusion: far}}}).write(shop.root / "loaded.lock")
    with pytest.raises(Failed, match="AC410"):
        prepare(read_spec(spec), spec)
    lock.write(shop.root / "loaded.lock")
    data = shop.root / "data/train.jsonl"
    data.write_text("".join(data.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(Failed, match="AC410"):
        prepare(read_spec(spec), spec)
    assert not again(spec).members


def again(spec: Path, upgrade: tuple[str, ...] | None = None) -> Lock:
    """The lock of a spec, written anew."""
    return prepare_all((read_spec(spec),), spec, upgrade=upgrade, anew=True)[0].lock


def run(shop: Workshop, *arguments: str) -> None:
    done = command("run", *arguments, "--quiet", cwd=shop.root)
    assert done.returncode == 0, done.stderr


def opened(shop: Workshop, name: str) -> Lock:
    lock = Lock.open(shop.root / f"{name}.lock")
    assert lock is not None
    return lock
