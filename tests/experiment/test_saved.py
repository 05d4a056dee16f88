"""Saved and published compositions: complete, portable, and the same model in another process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import adaptcompose as ac
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.resolution.manifest import Manifest
from adaptcompose.runtime.build import load_backbone
from adaptcompose.runtime.compose import compose
from adaptcompose.runtime.saving.writer import save_composition
from adaptcompose.storage.yaml_source import dump_yaml, load_yaml
from tests.parity.closeness import TOLERANCE, distance
from tests.workshop import Workshop, command, inside, logits, randomise

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

NEW = "pfeiffer(reduction=4)"
TAGS = {"task": "token-classification", "labels": ["O", "B-PER"]}
CASES: dict[str, tuple[str, Any]] = {
    "new": (f"stack(lang=demo/en, task={NEW})", TAGS),
    "fusion under drop": (
        f"stack(demo/en, {NEW}) | fuse(demo/glue-a, demo/glue-b) | drop(bottom=2)",
        TAGS,
    ),
    "fusion of new": (f"fuse({NEW}, demo/glue-a, {NEW}, query=before, value=false)", TAGS),
    "shared": (f"let x = {NEW}; fuse(stack(x, demo/glue-a), x) | drop(top=1)", TAGS),
    "brought head": ("stack(lang=demo/en, task=demo/ner)", "auto"),
    "brought head, refused": ("stack(lang=demo/en, task=demo/ner)", None),
    "brought head below": (f"stack(demo/ner, {NEW})", "auto"),
    "backbone's head": ("language() | drop(bottom=1)", "backbone"),
    "none with a head": ("none", TAGS),
    "none": ("none", None),
    "no head": (f"stack(demo/sw, {NEW})", None),
}


def make(shop: Workshop, case: str, seed: int = 3) -> Any:
    expression, head = CASES[case]
    torch.manual_seed(seed)
    with inside(shop.root):
        model = compose(expression, "./base", hub="./hub", head=head)
        randomise_new(model)
    return model


def randomise_new(model: Any) -> None:
    """Loaded parts stay as they are: they are not written again."""
    for _, part in model.parts.items():
        if part.is_trained:
            for parameter in part.parameters():
                torch.nn.init.normal_(parameter, std=0.3)
    if model.head is not None and any(p.requires_grad for p in model.head.slots.parameters()):
        for parameter in model.head.slots.parameters():
            torch.nn.init.normal_(parameter, std=0.3)


@pytest.mark.parametrize("everything", [False, True], ids=["new", "all"])
@pytest.mark.parametrize("case", CASES)
def test_what_was_saved_comes_back_bit_equal(
    workshop: Workshop, tmp_path: Path, case: str, everything: bool
) -> None:
    model = make(workshop, case)
    save_composition(model, tmp_path / "saved", everything=everything)
    again = ac.load(tmp_path / "saved")
    assert torch.equal(logits(again), logits(model))
    assert again.composition.graph != model.composition.graph or "none" in case
    # and once more: saving what was loaded loses nothing
    save_composition(again, tmp_path / "twice", everything=everything)
    assert torch.equal(logits(ac.load(tmp_path / "twice")), logits(model))


def test_with_all_weights_no_hub_is_needed(shop: Workshop) -> None:
    model = make(shop, "fusion under drop")
    save_composition(model, shop.root / "saved", everything=True)
    (shop.root / "saved/.here.yaml").unlink()
    shutil.rmtree(shop.root / "hub")
    again = ac.load(shop.root / "saved", backbone=shop.root / "base", hub=str(shop.root / "none"))
    assert torch.equal(logits(again), logits(model))
    folders = {path.name for path in (shop.root / "saved").iterdir() if path.is_dir()}
    assert {"en", "glue-a", "glue-b", "fuse", "head"} <= folders


def test_nothing_that_is_published_names_a_path_of_this_machine(shop: Workshop) -> None:
    model = make(shop, "new")
    revision = ac.push(model, "me/out", hub=str(shop.root / "hub")).revision
    place = shop.hub.fetch("me/out", revision)
    for path in place.rglob("*"):
        assert not path.name.startswith(".")
        if path.is_file():
            assert str(shop.root).encode() not in path.read_bytes(), path
    lock = load_yaml((place / "composition.lock").read_text())
    assert "path" not in lock["backbone"]
    assert set(lock["backbone"]["files"]) >= {"config.json", "model.safetensors"}


def test_a_published_composition_of_a_folder_backbone_asks_for_it(shop: Workshop) -> None:
    model = make(shop, "new")
    hub = str(shop.root / "hub")
    ac.push(model, "me/out", hub=hub)
    with pytest.raises(Failed, match=r"(?s)AC424.*the backbone of `me/out` is not .*--backbone"):
        ac.load("me/out", hub=hub)
    for backbone in (shop.root / "base", load_backbone(shop.root / "base")):
        assert torch.equal(logits(ac.load("me/out", backbone, hub)), logits(model))


def test_a_published_composition_of_a_repository_finds_it(shop: Workshop) -> None:
    shop.commit("demo/base", shop.root / "base")
    with inside(shop.root):
        model = compose(CASES["new"][0], "demo/base", hub="./hub", head=TAGS)
        randomise_new(model)
    hub = str(shop.root / "hub")
    ac.push(model, "me/out", hub=hub)
    shop.commit("demo/base", shop.root / "data")  # a newer revision without weights
    assert torch.equal(logits(ac.load("me/out", hub=hub)), logits(model))
    entry = Manifest.load(shop.hub.fetch("me/out"), "me/out").backbone
    assert entry["model"].startswith("demo/base@")


def test_a_changed_backbone_is_told(shop: Workshop) -> None:
    save_composition(make(shop, "new"), shop.root / "saved")
    weights = shop.root / "base/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(Failed, match=r"AC411.*model.safetensors"):
        ac.load(shop.root / "saved")
    ac.load(shop.root / "saved", shop.root / "base")  # said outright, it is the user's decision


def test_the_backbone_must_fit(shop: Workshop) -> None:
    from tests.workshop import make_checkpoint

    save_composition(make(shop, "new"), shop.root / "saved")
    other = make_checkpoint(shop.root / "wide", hidden_size=24)
    with pytest.raises(Failed, match=r"AC408.*width 16.*24"):
        ac.load(shop.root / "saved", other)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"composition": 2}, "its version is not 1"),
        ({"surprise": 1}, "it has an unknown key `surprise`"),
        ({"expression": 5}, "its expression is not a string"),
        ({"expression": None}, "its expression is not a string"),
        ({"backbone": "x"}, "its backbone is not a mapping"),
        ({"backbone": {"model": 3}}, "its backbone has values that are not strings"),
        ({"backbone": {"dtype": "int8"}}, "its dtype is not one of"),
        ({"head": "./../../etc"}, "its head is outside its folder"),
        ({"head": ["x"]}, "its head is not a string"),
    ],
)
def test_a_manifest_is_not_trusted(shop: Workshop, change: dict[str, Any], told: str) -> None:
    folder = shop.root / "saved"
    save_composition(make(shop, "new"), folder)
    data = load_yaml((folder / "composition.yaml").read_text())
    (folder / "composition.yaml").write_text(dump_yaml(data | change))
    with pytest.raises(Failed, match="AC413") as failed:
        ac.load(folder, shop.root / "base", str(shop.root / "hub"))
    assert told in str(failed.value)


@pytest.mark.parametrize("name", ["composition.lock", "new"])
def test_a_folder_that_lost_something_is_told(shop: Workshop, name: str) -> None:
    folder = shop.root / "saved"
    model = make(shop, "none with a head")
    save_composition(model, folder)
    if name == "new":
        (folder / "head/model_head.safetensors").unlink()
        (folder / "head/pytorch_model_head.bin").unlink()
    else:
        (folder / name).unlink()
    with pytest.raises(Failed, match="AC418"):
        ac.load(folder)


def test_another_process_and_another_place_give_the_same_logits(shop: Workshop) -> None:
    model = make(shop, "fusion under drop")
    hub = str(shop.root / "hub")
    ac.push(model, "me/out", hub=hub)
    pulled = command("pull", "me/out", "there/mine", "--hub", "hub", cwd=shop.root)
    assert pulled.returncode == 0, pulled.stderr
    code = (
        "import json, sys, adaptcompose as ac; from tests.workshop import logits;"
        "m = ac.load(sys.argv[1], sys.argv[2]);"
        "print(json.dumps(logits(m).tolist()))"
    )
    import subprocess
    import sys

    there = str(shop.root / "there/mine")
    done = subprocess.run(
        [sys.executable, "-c", code, there, str(shop.root / "base")],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    found = torch.tensor(json.loads(done.stdout.splitlines()[-1]))
    assert distance(found, logits(model)) <= TOLERANCE


def test_randomise_is_not_the_identity(workshop: Workshop) -> None:
    """The cases above compare weights that are not those of a start."""
    model = make(workshop, "new")
    before = logits(model)
    randomise(model)
    assert not torch.equal(before, logits(model))
