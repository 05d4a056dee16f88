"""A reference to a published composition means its expression, with its own lock."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import adaptcompose as ac
from adaptcompose.composition.graph import Published, walk
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.runtime.saving.writer import save_composition
from adaptcompose.storage.yaml_source import load_yaml
from tests.experiment.test_saved import NEW, make
from tests.workshop import Workshop, call, inside, logits

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def composed(shop: Workshop, expression: str, **options: Any) -> Any:
    torch.manual_seed(5)
    with inside(shop.root):
        model = ac.compose(expression, "./base", hub="./hub", **options)
        for name, part in model.parts.items():
            torch.manual_seed(len(name))
            if part.is_trained:
                for parameter in part.parameters():
                    torch.nn.init.normal_(parameter, std=0.3)
    return model


def push(shop: Workshop, model: Any, name: str) -> str:
    revision: str = ac.push(model, name, hub=str(shop.root / "hub")).revision
    return revision


@pytest.mark.parametrize("case", ["new", "fusion under drop", "fusion of new", "brought head"])
def test_a_reference_to_a_composition_is_the_composition(shop: Workshop, case: str) -> None:
    model = make(shop, case)
    push(shop, model, "me/out")
    save_composition(model, shop.root / "saved")
    for reference in ("me/out", "./saved", '"saved"'):
        again = composed(shop, reference)
        assert torch.equal(logits(again), logits(model)), reference
        assert not list(again.trained())
        assert str(again.composition.graph) == reference


def test_it_composes_like_any_other_block(shop: Workshop) -> None:
    push(shop, make(shop, "fusion of new"), "me/out")
    once = composed(shop, f"stack(x=me/out, y={NEW}) | drop(bottom=1)", head=None)
    twice = composed(shop, f"average(stack(me/out, y={NEW}):1, none:0) | drop(bottom=1)", head=None)
    assert torch.equal(logits(once), logits(twice))
    assert any(isinstance(block, Published) for block in walk(once.composition.graph))


def test_a_composition_of_compositions_is_pinned_through_and_through(shop: Workshop) -> None:
    push(shop, make(shop, "new"), "me/first")
    model = composed(shop, f"stack(me/first, top={NEW})", head=None)
    push(shop, model, "me/second")
    outer = composed(shop, "me/second", head=None)
    assert torch.equal(logits(outer), logits(model))
    # a newer revision of the first changes nothing: the second pins the older one
    push(shop, make(shop, "new", seed=9), "me/first")
    assert torch.equal(logits(composed(shop, "me/second", head=None)), logits(model))
    # the saved composition is complete
    save_composition(outer, shop.root / "again", everything=True)
    assert torch.equal(logits(ac.load(shop.root / "again")), logits(model))


SPEC = """\
spec: 1
name: demo
hub: ./hub
backbone: {model: ./base, as: demo/base}
compose: stack(me/out, task=pfeiffer(reduction=4))
task: {kind: text-classification}
data:
  d: {files: {train: data/train.jsonl, validation: data/validation.jsonl, test: data/test.jsonl}}
train: {data: d, steps: 1, batch: 4}
evaluate:
  - {name: as trained, data: d}
"""


def test_a_lock_pins_it_and_what_it_stands_for(shop: Workshop) -> None:
    first = push(shop, make(shop, "new"), "me/out")
    (shop.root / "demo.yaml").write_text(SPEC)
    done = call("run", "demo.yaml", "--quiet", cwd=shop.root)
    assert done.returncode == 0, done.stderr
    lock = load_yaml((shop.root / "demo.lock").read_text())
    assert lock["adapters"]["me/out"]["revision"] == first
    assert any(name.startswith(f"me/out@{first}/") for name in lock["adapters"])
    assert any(name.startswith("demo/en@") for name in lock["adapters"])
    push(shop, make(shop, "new", seed=9), "me/out")
    done = call("plan", "demo.yaml", cwd=shop.root)
    assert done.returncode == 0, done.stderr
    assert load_yaml((shop.root / "demo.lock").read_text()) == lock


def test_what_it_refers_to_stays_in_its_folder(shop: Workshop) -> None:
    save_composition(make(shop, "new"), shop.root / "saved")
    path = shop.root / "saved/composition.yaml"
    good = path.read_text()
    own = next(p.name for p in (shop.root / "saved").iterdir() if p.is_dir())
    for bad in ("../saved", "/etc", "~/x", f"{own}/../../saved"):
        text = good.replace(f"./{own}", f'"{bad}"' if "~" not in bad else bad)
        path.write_text(text)
        with pytest.raises(Failed) as failed:
            composed(shop, "./saved")
        assert {found.code for found in failed.value.diagnostics} <= {"AC413", "AC611"}
    path.write_text(good.replace(f"task=./{own}", "task=pfeiffer()"))
    with pytest.raises(Failed, match="it has no weights for"):
        composed(shop, "./saved")


def test_a_circle_ends(shop: Workshop) -> None:
    save_composition(make(shop, "new"), shop.root / "saved")
    path = Path(shop.root / "saved/composition.yaml")
    own = next(p for p in (shop.root / "saved").iterdir() if p.is_dir())
    shutil.rmtree(own)
    own.symlink_to(shop.root / "saved")
    with pytest.raises(Failed, match="AC108"):
        composed(shop, "./saved")
    assert path.is_file()
