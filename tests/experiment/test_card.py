"""The card of a published composition: its text, and metadata that the Hub accepts."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModel

from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.experiment.report.report import Score
from adaptcompose.experiment.share.model_card import EvalResults, ModelCard
from adaptcompose.resolution.manifest import Manifest
from adaptcompose.runtime.compose import compose
from adaptcompose.runtime.saving.writer import save_composition
from adaptcompose.storage.yaml_source import load_yaml
from tests.workshop import Workshop

pytestmark = pytest.mark.filterwarnings("ignore")

GOLDEN = Path(__file__).parent / "fixtures" / "card.md"
SCORES = (
    Score("right language", "names[mixed]/test", "span-f1", 0.5, 0),
    Score("right language", "names[mixed]/test", "span-f1", 0.625, 1),
    Score("wrong language", "names[mixed]/test", "span-f1", 0.25, 0),
    Score("wrong language", "names[mixed]/test", "span-f1", 0.3, 1),
)
FINDINGS = EvalResults(
    "stack(lang=sw, task=ner) | fuse(glue/*) | drop(bottom=1)",
    SCORES,
    ("right language",),
    1,
    {"trained": 1234, "total": 56789, "head": 5},
)
TOLD: dict[str, Any] = {
    "name": "sw-ner",
    "description": "Named entities in Swahili.",
    "task": {"kind": "token-classification", "metric": "span-f1"},
    "card": {
        "license": "apache-2.0",
        "languages": ["sw"],
        "datasets": ["masakhaner"],
        "tags": ["cross-lingual"],
    },
}
HUB_FIELDS = {
    "library_name": str,
    "license": str,
    "base_model": str,
    "base_model_relation": str,
    "pipeline_tag": str,
    "language": list,
    "datasets": list,
    "tags": list,
    "model-index": list,
}
"""The keys of the front matter that the Hub reads, with their types."""


def subject(
    shop: Workshop, folder: Path, findings: EvalResults = FINDINGS
) -> tuple[ModelCard, str]:
    backbone = AutoModel.from_pretrained(shop.root / "base")
    backbone.config._name_or_path = "demo/base"
    model = compose(FINDINGS.expression, backbone, root=shop.root, hub=str(shop.root / "hub"))
    folders = save_composition(model, folder, manifest=TOLD)
    found = ModelCard(model, Manifest.load(folder, "me/sw-ner"), "me/sw-ner", findings)
    return found, found.render(folders)


def test_the_card_is_the_golden_one(workshop: Workshop, tmp_path: Path) -> None:
    _, page = subject(workshop, tmp_path)
    found = re.sub(r"@[0-9a-f]{40}", "@<commit>", page)
    found = re.sub(r"@[0-9a-f]{7}\b", "@<short>", found)
    if os.environ.get("ADAPTCOMPOSE_GOLDEN"):
        GOLDEN.write_text(found, "utf-8")
    assert found == GOLDEN.read_text("utf-8")


def test_the_front_matter_has_the_fields_of_the_hub(workshop: Workshop, tmp_path: Path) -> None:
    _, page = subject(workshop, tmp_path)
    front = load_yaml(page.split("---\n")[1])
    assert front.keys() == HUB_FIELDS.keys()
    for name, kind in HUB_FIELDS.items():
        assert isinstance(front[name], kind), name
    for name in ("language", "datasets", "tags"):
        assert all(isinstance(one, str) and one for one in front[name])
    (index,) = front["model-index"]
    assert index["name"] == "sw-ner"
    (result,) = index["results"]
    assert result["task"] == {"type": "token-classification"}
    assert result["dataset"] == {
        "name": "names[mixed]/test",
        "type": "names",
        "config": "mixed",
        "split": "test",
    }
    assert result["metrics"] == [{"type": "f1", "name": "span-f1", "value": 0.625}], (
        "the score of the seed that is published, not the mean, and of no other composition"
    )


def test_what_is_not_known_is_not_said(workshop: Workshop, tmp_path: Path) -> None:
    found, page = subject(workshop, tmp_path, EvalResults())
    bare = ModelCard(found.model, Manifest("x", {}), "me/bare", EvalResults()).metadata()
    assert bare.keys() == {"library_name", "base_model", "base_model_relation", "tags"}
    assert "model-index" not in found.metadata()
    assert "## Scores" not in page
    assert "were trained" not in page


def test_findings_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    path.write_text(json.dumps(FINDINGS.as_plain()))
    found = EvalResults.read(path)
    assert found.as_plain() == FINDINGS.as_plain()
    assert found.scores == SCORES
    assert EvalResults.read(tmp_path / "none.json") == EvalResults()


@pytest.mark.parametrize("text", ["[", "{}", '{"scores": [{}]}', "[" * 100_000])
def test_findings_from_a_hub_are_not_trusted(text: str, tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    path.write_text(text)
    with pytest.raises(Failed, match=r"AC413.*scores\.json"):
        EvalResults.read(path)
