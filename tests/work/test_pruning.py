"""prune in a spec: measured on its data, on what was trained, and kept for later."""

from __future__ import annotations

import json

import pytest

from adaptcompose.documents import load
from adaptcompose.language.diagnostics import Failed
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
    from adaptcompose.work.prepare import prepare
    from adaptcompose.work.spec import read_spec

    path = shop.root / "demo.yaml"
    path.write_text(SPEC.replace(old, new))
    with pytest.raises(Failed) as failed:
        prepare(read_spec(path), path)
    assert {found.code for found in failed.value.diagnostics} == {code}
