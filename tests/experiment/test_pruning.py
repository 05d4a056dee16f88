"""`prune` in a spec: measured on its data, after training, and recorded in the lock."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.experiment.prepare.preparer import prepare_runs
from adaptcompose.experiment.spec.spec import read_specs
from adaptcompose.hub.lock import Lock
from adaptcompose.runtime.compose import compose
from adaptcompose.runtime.saving.writer import save_composition
from adaptcompose.storage.yaml_source import load_yaml
from tests.workshop import Workshop, call, randomise

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
    done = call("run", "demo.yaml", "--quiet", cwd=shop.root)
    assert done.returncode == 0, done.stderr
    report = json.loads((shop.root / "runs/demo/report.json").read_text())
    scores = {row["name"]: row["value"] for row in report["scores"]}
    assert scores["three"] == scores["whole"]
    assert set(scores) == {"whole", "one", "three"}
    kept = load_yaml((shop.root / "runs/demo/activations.yaml").read_text())["fusions"]["fuse"]
    for means in kept.values():
        assert len(means) == 3
        assert sum(means) == pytest.approx(1.0, abs=1e-4)
    by = "fuse(demo/glue-a, demo/glue-b, demo/ner, load=./runs/demo/best/fuse)"
    program = call(
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
        prepare_runs(read_specs(path), path)
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


def test_what_is_unknown_moves_no_other_composition_to_the_front(shop: Workshop) -> None:
    other = 'compose: "fuse(demo/glue-a, demo/glue-b) | prune(keep=1, data=d)"'
    text = SPEC.replace("demo/ner)", "demo/nosuch)").replace('pipe: "prune(keep=1, data=d)"', other)
    (shop.root / "demo.yaml").write_text(text)
    with pytest.raises(Failed) as caught:
        prepare_runs(read_specs(shop.root / "demo.yaml"), shop.root / "demo.yaml")
    assert {one.code for one in caught.value.diagnostics} == {"AC401"}


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
    assert text == load_yaml(LOADED)["compose"]
    assert {len({*kept}) for kept in sites.values()} == {2}

    other = {site: tuple({0, 1, 2} - {kept[0]}) for site, kept in sites.items()}
    replace(lock, members={text: {"d": {fusion: other}}}).write(shop.root / "loaded.lock")
    run(shop, "loaded.yaml", "--fresh")
    assert opened(shop, "loaded").members[text]["d"][fusion] == other
    held = load_yaml((shop.root / "runs/loaded/best/activations.yaml").read_text())["fusions"]
    for site, means in next(iter(held.values())).items():
        assert {n for n, mean in enumerate(means) if mean} == {*other[site]}

    assert again(spec).members
    assert not again(spec, upgrade=()).members
    far = dict.fromkeys(sites, (0, 7))
    replace(lock, members={text: {"d": {fusion: far}}}).write(shop.root / "loaded.lock")
    with pytest.raises(Failed, match="AC410"):
        prepare_runs(read_specs(spec), spec)
    lock.write(shop.root / "loaded.lock")
    data = shop.root / "data/train.jsonl"
    data.write_text("".join(data.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(Failed, match="AC410"):
        prepare_runs(read_specs(spec), spec)
    assert not again(spec).members


@pytest.fixture(scope="module")
def fused(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A workshop with a trained fusion of three in ./fusion."""
    shop = workshop.copy(tmp_path_factory.mktemp("fused"))
    text = "fuse(demo/glue-a, demo/glue-b, demo/ner)"
    model = compose(text, shop.root / "base", hub=str(shop.root / "hub"), head=None)
    randomise(model)
    save_composition(model, shop.root / "saved")
    shutil.copytree(shop.root / "saved/fuse", shop.root / "fusion")
    return shop


def test_a_plan_shows_what_the_lock_keeps(fused: Workshop, tmp_path: Path) -> None:
    shop = fused.copy(tmp_path)
    spec = shop.root / "loaded.yaml"
    spec.write_text(LOADED)
    before = prepare_runs(read_specs(spec), spec)[0]
    everything = {item.name: len(item.sites) for item in before.make_plan().rows}
    layers = set(range(3))
    lock = before.lock
    (site,) = {
        site.name for item in before.make_plan().rows for site in item.sites if site.layer == 0
    }
    kept = {f"{layer}.{site}": (0, 2) if layer else (1, 0) for layer in layers}
    text = load_yaml(LOADED)["compose"]
    replace(lock, members={text: {"d": {"fuse": kept}}}).write(shop.root / "loaded.lock")
    after = {
        item.name: item.layers for item in prepare_runs(read_specs(spec), spec)[0].make_plan().rows
    }
    assert after["demo/glue-a"] == (0, 1, 2)
    assert after["demo/glue-b"] == (0,)
    assert after["demo/ner"] == (1, 2)
    assert everything["demo/ner"] == everything["demo/glue-b"] == 3


@pytest.mark.parametrize(
    ("values", "composed"),
    [
        ("{n: [1, 2]}", "fuse(demo/glue-a, demo/glue-b, load=./fusion) | prune(keep=${n}, data=d)"),
        (
            "{m: [demo/glue-b, demo/ner]}",
            "fuse(demo/glue-a, ${m}, load=./fusion) | prune(keep=1, data=d)",
        ),
    ],
    ids=["one set of adapters", "other adapters"],
)
def test_a_sweep_records_the_members_of_every_combination(
    fused: Workshop, tmp_path: Path, values: str, composed: str
) -> None:
    shop = fused.copy(tmp_path)
    text = LOADED.replace(load_yaml(LOADED)["compose"], composed)
    (shop.root / "loaded.yaml").write_text(f"{text}each: {values}\n")
    run(shop, "loaded.yaml")
    first = opened(shop, "loaded")
    assert len(first.members) == 2
    assert all(found["d"] for found in first.members.values())
    path = shop.root / "loaded.yaml"
    for one in prepare_runs(read_specs(path), path):
        assert one.lock == first
    run(shop, "loaded.yaml", "--fresh")
    assert opened(shop, "loaded") == first


def again(spec: Path, upgrade: tuple[str, ...] | None = None) -> Lock:
    """The lock of a spec, rewritten."""
    return prepare_runs(read_specs(spec), spec, upgrade=upgrade, rewrite_lock=True)[0].lock


def run(shop: Workshop, *arguments: str) -> None:
    done = call("run", *arguments, "--quiet", cwd=shop.root)
    assert done.returncode == 0, done.stderr


def opened(shop: Workshop, name: str) -> Lock:
    lock = Lock.load(shop.root / f"{name}.lock")
    assert lock is not None
    return lock
