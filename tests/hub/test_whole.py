"""Train, push, find, pull and load, with nothing between but the Hub's own client and protocol."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCardData, constants
from safetensors.torch import load_file, save_file
from transformers import AutoModel

import adaptcompose as ac
from adaptcompose.cli import main as cli
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.storage.yaml_source import dump_yaml, load_yaml
from tests.parity.closeness import TOLERANCE, distance
from tests.workshop import Workshop, command, inside, logits, randomise

sys.path.insert(0, str(Path(__file__).parent))
from connection import connected, use_home
from hub_server import Hub

ROOT = Path(__file__).parents[2]
BASE = "demo/base"
FLAGSHIP = "stack(lang=en, task=ner) | fuse(glue/*) | drop(bottom=1)"
SHOW = """\
import json, sys
import adaptcompose as ac
from tests.workshop import logits
print(json.dumps([logits(ac.load(name)).tolist() for name in sys.argv[1:]]))
"""

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@dataclass(frozen=True)
class Place:
    """A workshop whose repositories are on a loopback Hub, and a run that was trained there."""

    shop: Workshop
    hub: Hub

    @property
    def root(self) -> Path:
        return self.shop.root

    def environment(self, name: str) -> dict[str, str]:
        """A process of its own, with nothing in its cache."""
        home = str(self.root / name)
        found = {"HF_ENDPOINT": constants.ENDPOINT, "HF_HOME": home, "HF_TOKEN": "good"}
        return found | {"PYTHONPATH": str(ROOT)}


def serve_shop(shop: Workshop, hub: Hub) -> None:
    """The backbone and the adapters of the workshop, at the Hub."""
    for repo in shop.hub.list_repositories():
        hub.add_folder(repo, shop.hub.fetch(repo))
    hub.add_folder(BASE, shop.root / "base")


@pytest.fixture(scope="module")
def place(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    monkeypatch = pytest.MonkeyPatch()
    shop = workshop.copy(tmp_path_factory.mktemp("hub") / "shop")
    monkeypatch.setenv("HF_TOKEN", "good")
    with connected(Hub(users={"good": "write"}), shop.root, monkeypatch) as hub:
        serve_shop(shop, hub)
        spec = {
            "spec": 1,
            "name": "demo",
            "description": "Names of people and places.",
            "backbone": BASE,
            "compose": FLAGSHIP,
            "task": {"kind": "token-classification", "head": "of-adapter"},
            "data": shop.data("conll"),
            "train": {"data": "d", "steps": 2, "batch": 4, "lr": 0.02, "seeds": [0, 1]},
            "evaluate": [
                {"name": "right", "data": "d"},
                {"name": "other", "data": "d", "pipe": "swap(lang=sw)"},
            ],
        }
        (shop.root / "demo.yaml").write_text(dump_yaml(spec))
        with inside(shop.root):
            assert cli.main(["run", "demo.yaml", "--quiet"]) == 0
            for more in ([], ["--revision", "next"]):
                assert cli.main(["push", "runs/demo", "me/out", *more]) == 0
        yield Place(shop, hub)
    monkeypatch.undo()


def shown(place: Place, name: str, *refs: str) -> list[torch.Tensor]:
    """The outputs of compositions in a process of its own, with one thread."""
    done = subprocess.run(
        [sys.executable, "-c", SHOW, *refs],
        env=os.environ | place.environment(name) | {"OMP_NUM_THREADS": "1"},
        cwd=place.root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [torch.tensor(found) for found in json.loads(done.stdout.splitlines()[-1])]


def bits(model: Any) -> list[str]:
    return [value.hex() for value in logits(model).flatten().tolist()]


def test_another_machine_finds_pulls_and_computes_the_same(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    hub, root = place.hub, place.root
    assert "me/out" in hub.private
    with inside(root):
        assert cli.main(["push", "runs/demo", "me/out", "--pr", "--weights", "all"]) == 0
        assert "pull request 1: " in capsys.readouterr().out
        here = logits(ac.load("runs/demo"))
    found = command("search", "out", cwd=root, environment=place.environment("search"))
    assert "me/out" in found.stdout
    pulled = command("pull", "me/out", "there", cwd=root, environment=place.environment("pull"))
    assert pulled.returncode == 0, pulled.stderr
    refs = ["me/out", "me/out@next", "me/out@refs/pr/1", "there"]
    for found in shown(place, "load", *refs):
        assert distance(found, here) <= TOLERANCE
    assert {path.split("/")[0] for path in hub.files("me/out", "refs/pr/1") if "/" in path} == {
        "en", "fuse", "glue-a", "glue-b", "ner"
    }  # fmt: skip
    hub.merge("me/out", 1)
    (merged,) = shown(place, "merged", "me/out")
    assert distance(merged, here) <= TOLERANCE


def test_only_what_is_needed_is_fetched(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    use_home(place.root / "needed", monkeypatch)
    asked = len(place.hub.requests)
    ac.load("me/out@next")
    fetched = {
        line.split("/resolve/")[1]
        for line in place.hub.requests[asked:]
        if "GET" in line and "/resolve/" in line
    }
    names = {name.partition("/")[2] for name in fetched}
    assert not any(name.endswith((".bin", "README.md", "scores.json")) for name in names)
    assert "fuse/model_adapter_fusion.safetensors" in names


def test_offline_everything_that_is_missing_is_told_at_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_home(place.root / "offline", monkeypatch)
    model = ac.load("me/out@next")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert bits(ac.load("me/out@next")) == bits(model)
    for repo in ("demo--en", "demo--glue-b", "demo--base"):
        folder = place.root / f"offline/hub/models--{repo}"
        for name in ("adapter.safetensors", "model.safetensors"):
            for path in folder.rglob(name):
                path.unlink()
    with pytest.raises(Failed) as failed:
        ac.load("me/out@next")
    assert [one.code for one in failed.value.diagnostics] == ["AC405"] * 3
    for words in ("demo/en@", "demo/glue-b@", "demo/base@", "adapter.safetensors", "--revision"):
        assert words in str(failed.value)


def test_offline_a_run_tells_everything_that_is_missing_at_once(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_home(place.root / "offline-run", monkeypatch)
    with inside(place.root):
        assert cli.main(["plan", "demo.yaml"]) == 0, "for this no weights are needed"
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert cli.main(["plan", "demo.yaml"]) == 0
        capsys.readouterr()
        assert cli.main(["run", "demo.yaml", "--fresh"]) == 3
    err = capsys.readouterr().err
    for repo in ("base", "en", "sw", "ner", "glue-a", "glue-b"):
        assert f"error[AC405]: `demo/{repo}@" in err
    assert "error[AC4" not in err.replace("error[AC405]", "")


def test_dry_run_shows_files_card_and_difference(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    before = dict(place.hub.branches)
    with inside(place.root):
        shutil.copytree("runs/demo/best", "mine")
        text = Path("mine/composition.yaml").read_text()
        Path("mine/composition.yaml").write_text(text.replace("Names of", "The names of"))
        arguments = ["mine", "me/out", "--revision", "next", "--license", "mit", "--dry-run"]
        assert cli.main(["push", *arguments]) == 0
        out = capsys.readouterr().out
        assert cli.main(["push", *arguments, "--format", "json"]) == 0
        plain = json.loads(capsys.readouterr().out)
        assert cli.main(["push", "mine", "me/new", "--dry-run"]) == 0
        new = capsys.readouterr().out
    assert "me/out on hf, branch next\n" in out
    assert "  ~ README.md" in out
    assert "  - scores.json" in out
    assert "unchanged" in out
    assert "-description: Names of people and places.\n" in out
    assert "+description: The names of people and places.\n" in out
    assert "\nREADME.md\n---\nlibrary_name: adaptcompose\nlicense: mit\n" in out
    assert "Push: 0 to add, 2 to change, 1 to remove;" in out
    assert "Nothing was pushed." in out
    marks = {one["path"]: one["mark"] for one in plain["files"]}
    assert (marks["composition.yaml"], marks["scores.json"]) == ("~", "-")
    assert plain["card"].startswith("---\n")
    assert "new private repository" in new
    assert place.hub.branches == before


def test_what_others_cannot_fetch_is_written(place: Place) -> None:
    place.hub.private.add("demo/en")
    try:
        pushed = ac.push(
            ac.load(place.root / "runs/demo"), "me/copied", private=False, license="mit"
        )
    finally:
        place.hub.private.discard("demo/en")
    assert {path.split("/")[0] for path in place.hub.files("me/copied") if "/" in path} == {
        "en", "fuse"
    }  # fmt: skip
    assert bits(ac.load("me/copied")) == bits(ac.load(place.root / "runs/demo"))
    assert str(pushed) == f"me/copied@{place.hub.branches['me/copied', 'main'][:7]}"


def test_public_and_without_a_licence_is_refused(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    with inside(place.root):
        assert cli.main(["push", "runs/demo", "me/bare", "--public"]) == 1
    assert "error[AC432]: `me/bare` would be published without a licence" in capsys.readouterr().err
    assert "me/bare" not in place.hub.repos


def test_a_folder_has_no_pull_requests(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    with inside(place.root):
        assert cli.main(["push", "runs/demo", "me/out", "--pr", "--hub", "hub"]) == 3
    assert "error[AC433]" in capsys.readouterr().err


def test_pushing_a_composition_again_from_what_was_pulled(place: Place) -> None:
    with inside(place.root):
        assert cli.main(["pull", "me/out@next", "again"]) == 0
        ac.push("again", "me/twin")
    for name in (
        "composition.yaml",
        "composition.lock",
        "scores.json",
        "fuse/adapter_fusion_config.json",
    ):
        assert place.hub.files("me/twin")[name] == place.hub.files("me/out", "next")[name]
    card = place.hub.files("me/twin")["README.md"].decode()
    assert (
        card.replace("me/twin", "me/out") == place.hub.files("me/out", "next")["README.md"].decode()
    )


def test_the_metadata_have_the_fields_that_the_client_knows(place: Place) -> None:
    front = load_yaml(place.hub.files("me/out", "next")["README.md"].decode().split("---\n")[1])
    assert front.pop("base_model_relation") == "adapter"
    data = ModelCardData(**front)
    assert data.to_dict() == front
    (result,) = data.eval_results or []
    assert (result.task_type, result.dataset_type, result.metric_type) == (
        "token-classification", "d", "f1"
    )  # fmt: skip
    report = json.loads((place.root / "runs/demo/report.json").read_text())
    own = [s for s in report["scores"] if s["name"] == "right" and s["seed"] == report["best_seed"]]
    assert result.metric_value == pytest.approx(own[0]["value"])
    tags = {entry.id: entry for entry in _listed(place)}["me/out"].tags
    assert {"adaptcompose", "adapter-transformers", f"base_model:adapter:{BASE}"} <= set(tags)


def _listed(place: Place) -> Any:
    from huggingface_hub import HfApi

    return HfApi(endpoint=constants.ENDPOINT).list_models(filter=["adaptcompose"])


def peer(name: str) -> Path:
    python = ROOT / f".venv-{name}/bin/python"
    if not python.is_file():
        pytest.skip(f"without .venv-{name}; make parity makes it")
    return python


def theirs(script: str, python: Path, root: Path, *arguments: Path) -> torch.Tensor:
    """What another library computes from folders, in its own environment."""
    ids = torch.tensor([[0, 5, 9, 7, 10, 2], [0, 6, 11, 2, 1, 1]])
    save_file({"input_ids": ids, "attention_mask": (ids != 1).long()}, root / "inputs")
    program = Path(__file__).parent / script
    done = subprocess.run(
        [python, program, *arguments, root / "inputs", root / "output"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return load_file(root / "output")["output"]


def test_the_parts_in_adapters(place: Place) -> None:
    python, root = peer("peer"), place.root
    with inside(root):
        assert cli.main(["push", "runs/demo", "me/all", "--weights", "all"]) == 0
        assert cli.main(["pull", "me/all"]) == 0
    # the peer wants a pooler, which a checkpoint for masked words has not
    AutoModel.from_pretrained(root / "base").save_pretrained(root / "pooled")
    found = theirs("in_adapters.py", python, root, root / "pooled", root / "all")
    assert distance(logits(ac.load("me/all")), found) <= TOLERANCE


def test_the_parts_in_peft(place: Place) -> None:
    python, root = peer("peft"), place.root
    model = ac.compose("lora(rank=4)", root / "base", head=None)
    randomise(model)
    ac.push(model, "me/lora")
    with inside(root):
        assert cli.main(["pull", "me/lora"]) == 0
    found = theirs("in_peft.py", python, root, root / "base", root / "lora/lora/peft")
    assert distance(logits(ac.load("me/lora", root / "base")), found) <= TOLERANCE
    bare = logits(ac.compose("none", root / "base", head=None))
    assert float((found - bare).abs().max()) > 1e-3
