"""The parts that a spec trains: new ones, those of the expression, those of train.update."""

from __future__ import annotations

import pytest

from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.experiment.prepare.preparer import prepare_runs
from adaptcompose.experiment.spec.spec import read_specs
from tests.workshop import Workshop

SPEC = """\
spec: 1
name: demo
hub: ./hub
backbone: {model: ./base, as: demo/base}
adapters: {new: pfeiffer(reduction=4)}
compose: stack(lang=demo/en, task=new)
task: {kind: text-classification}
data:
  d: {files: {train: data/train.jsonl, validation: data/validation.jsonl, test: data/test.jsonl}}
train: {data: d, steps: 1}
"""


def trained(shop: Workshop, pipe: str, update: str = "") -> frozenset[str]:
    path = shop.root / "demo.yaml"
    text = SPEC.replace("task=new)", f"task=new){pipe}")
    path.write_text(text.replace("steps: 1", f"steps: 1{update}"))
    return prepare_runs(read_specs(path), path)[0].trained_parts


@pytest.mark.parametrize(
    ("pipe", "expected"),
    [
        ("", {"new", "head"}),
        (" | train(lang)", {"new", "head", "demo/en"}),
        (" | train()", {"new", "head", "demo/en"}),
        (" | train() | freeze(lang)", {"new", "head"}),
        (" | freeze(lang) | train(demo/en)", {"new", "head", "demo/en"}),
        (" | fuse(demo/glue-a, demo/glue-b) | train(lang)", {"new", "head", "demo/en", "fuse"}),
    ],
)
def test_the_expression_says_what_is_trained(shop: Workshop, pipe: str, expected: set[str]) -> None:
    assert trained(shop, pipe) == expected


def test_train_update_replaces_what_the_expression_says(shop: Workshop) -> None:
    update = ", update: [new, head]"
    assert trained(shop, " | train(lang)", update) == {"new", "head"}
    assert trained(shop, "", ", update: [lang, new, head]") == {"new", "head", "demo/en"}


@pytest.mark.parametrize(
    ("pipe", "update", "code"),
    [
        (" | freeze(lang)", ", update: [lang, new, head]", "AC507"),
        (" | freeze(new)", ", update: [task, head]", "AC507"),
        (" | freeze(task)", "", "AC501"),
        (" | freeze(lng)", "", "AC310"),
    ],
)
def test_contradictions_are_told(shop: Workshop, pipe: str, update: str, code: str) -> None:
    with pytest.raises(Failed) as failed:
        trained(shop, pipe, update)
    assert {found.code for found in failed.value.diagnostics} == {code}
