"""Publishing: the parts, their names, the card, and the files that stay in the repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import adaptcompose as ac
from adaptcompose.storage.yaml_source import load_yaml
from tests.workshop import Workshop, logits

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def spec(shop: Workshop, compose: str = "stack(lang=en, task=new)", **publish: Any) -> Path:
    return shop.spec(
        adapters={"new": "pfeiffer(reduction=4)", "other": "pfeiffer(reduction=2)"},
        description="A test of publishing.",
        compose=compose,
        task={"kind": "text-classification"},
        data=shop.data("jsonl"),
        train={"data": "d", "steps": 2, "batch": 4, "lr": 0.02},
        evaluate=[{"name": "as trained", "data": "d"}],
        publish={"repo": "me/out", "license": "apache-2.0"} | publish,
    )


def folders(shop: Workshop, revision: str | None = None) -> set[str]:
    return {path.split("/")[0] for path in shop.hub.list_files("me/out", revision) if "/" in path}


def test_new_parts_or_all(shop: Workshop) -> None:
    first = shop.run(spec(shop))["published"]["revision"]
    assert folders(shop) == {"new"}, "the head goes with the topmost adapter"
    small = ac.load("me/out", shop.root / "base", str(shop.root / "hub"))
    shop.run(spec(shop, weights="all"))
    assert folders(shop) == {"new", "en"}
    whole = ac.load("me/out", shop.root / "base", str(shop.root / "hub"))
    assert torch.equal(logits(whole), logits(small))
    assert folders(shop, first) == {"new"}, "every revision is kept"


def test_what_was_trained_is_new_also_if_it_was_loaded(shop: Workshop) -> None:
    path = spec(shop)
    text = path.read_text().replace("steps: 2", "steps: 2\n  update: [lang, task, head]")
    path.write_text(text)
    shop.run(path)
    assert folders(shop) == {"new", "en"}
    run = ac.load(shop.root / "runs/demo")
    assert torch.equal(
        logits(ac.load("me/out", shop.root / "base", str(shop.root / "hub"))), logits(run)
    )


def test_parts_that_are_gone_go_and_what_others_put_there_stays(shop: Workshop) -> None:
    shop.hub.commit("me/out", {".gitattributes": b"x", "notes/a.md": b"mine"}, message="by hand")
    shop.run(spec(shop))
    assert "new/adapter_config.json" in shop.hub.list_files("me/out")
    (shop.root / "demo.lock").unlink()
    shop.run(spec(shop, "stack(lang=en, task=other)"))
    files = shop.hub.list_files("me/out")
    assert {path.split("/")[0] for path in files if "adapter" in path} == {"other"}
    assert {"notes/a.md", ".gitattributes"} <= files.keys()


def test_a_branch_of_its_own(shop: Workshop) -> None:
    shop.run(spec(shop))
    main = shop.hub.resolve("me/out")
    found = shop.run(spec(shop, branch="next", weights="all", message="more"))["published"]
    assert shop.hub.resolve("me/out") == main
    assert shop.hub.resolve("me/out", "next") == found["revision"]


def test_nothing_new_is_no_new_revision(shop: Workshop) -> None:
    path = spec(shop)
    first, second = shop.run(path)["published"], shop.run(path)["published"]
    assert first == second


def test_the_card_says_what_it_is(shop: Workshop) -> None:
    report = shop.run(spec(shop, tags=["x"], languages=["sw"]))
    card = (shop.hub.fetch("me/out") / "README.md").read_text("utf-8")
    front = load_yaml(card.split("---\n")[1])
    assert (front["license"], front["language"], front["base_model"]) == (
        "apache-2.0",
        ["sw"],
        "demo/base",
    )
    assert {"adapter-transformers", "adaptcompose", "x"} <= set(front["tags"])
    (result,) = front["model-index"][0]["results"]
    value = report["scores"][0]["value"]
    assert result["metrics"] == [{"type": "accuracy", "value": pytest.approx(value)}]
    assert "A test of publishing." in card
    assert "stack(lang=en, task=new)" in card
    assert f"stack(lang=demo/en@{shop.hub.resolve('demo/en')}, task=./new)" in card
    assert "```mermaid" in card
    assert f"| as trained | {100 * value:.1f} |" in card
    assert 'ac.load("me/out")' in card
    assert str(shop.root) not in card


def test_another_composition_of_the_run(shop: Workshop) -> None:
    shop.run(spec(shop, pipe="swap(lang=none)"))
    published = ac.load("me/out", shop.root / "base", str(shop.root / "hub"))
    expression = load_yaml((shop.hub.fetch("me/out") / "composition.yaml").read_text("utf-8"))[
        "expression"
    ]
    assert expression == "stack(lang=none, task=./new)"
    here = ac.compose(
        "stack(task=./new)", shop.root / "base", root=shop.hub.fetch("me/out"), head="auto"
    )
    assert torch.equal(logits(published), logits(here))


def test_the_metadata_hold_the_scores_of_what_is_published_only(shop: Workshop) -> None:
    path = spec(shop, pipe="swap(lang=none)", datasets=["demo/places"])
    path.write_text(
        path.read_text().replace(
            "- name: as trained\n  data: d\n",
            "- name: as trained\n  data: d\n- name: without\n  data: d\n  pipe: swap(lang=none)\n",
        )
    )
    report = shop.run(path)
    folder = shop.hub.fetch("me/out")
    front = load_yaml((folder / "README.md").read_text("utf-8").split("---\n")[1])
    (result,) = front["model-index"][0]["results"]
    (score,) = [one["value"] for one in report["scores"] if one["name"] == "without"]
    assert result["metrics"][0]["value"] == pytest.approx(score)
    assert front["datasets"] == ["demo/places"]
    found = json.loads((folder / "scores.json").read_text("utf-8"))
    assert found["own"] == ["without"]
    assert found["scores"] == report["scores"]
    assert found["expression"] == "stack(lang=en, task=new) | swap(lang=none)"
