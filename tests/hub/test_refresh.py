"""Cards brought up to date with a Hub."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from adaptcompose.catalogue.cards import Card, Catalogue, Variant

sys.path.insert(0, str(Path(__file__).parent))
from connection import connected
from hub_server import Hub

SCRIPT = Path(__file__).parents[2] / "hub_cards" / "refresh.py"
BERT = "google-bert/bert-base-uncased"
CARD = Card(
    "task",
    "ner",
    "Named entities",
    (
        Variant("default", BERT, "AdapterHub/ner", licence="mit"),
        Variant("other", BERT, "AdapterHub/ner-2", revision="a" * 40),
        Variant("old", BERT, "AdapterHub/gone"),
    ),
    ("en",),
    "Text.",
)
PAGE = b"---\nlicense: apache-2.0\ndatasets: [conll2003]\npipeline_tag: token-classification\n---\n"


@pytest.mark.parametrize("options", [[], ["--pin"], ["--dry-run"], ["lang"]])
def test_what_the_hub_knows_besides(
    options: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    main: Any = runpy.run_path(str(SCRIPT))["main"]
    for space in ("task", "lang"):
        (tmp_path / "cards" / space).mkdir(parents=True)
    page = tmp_path / "cards/task/ner.md"
    page.write_text(str(CARD))
    with connected(Hub(), tmp_path, monkeypatch) as hub:
        newest = hub.add("AdapterHub/ner", {"README.md": PAGE})
        hub.add("AdapterHub/ner-2", {"README.md": PAGE})
        hub.add("AdapterHub/new", {})
        assert main(options, root=tmp_path / "cards", pause=0) == 0
    out = capsys.readouterr().out
    assert "not in the catalogue: AdapterHub/new" in out
    if options in (["--dry-run"], ["lang"]):
        assert page.read_text() == str(CARD)
        return
    assert "task/ner: the Hub has no AdapterHub/gone" in out
    card = Catalogue.open(tmp_path / "cards").card("task", "ner")
    assert (card.task, card.datasets, card.text) == (
        "token-classification",
        ("conll2003",),
        "Text.",
    )
    first, second, gone = card.variants
    assert (first.licence, second.licence, gone.licence) == ("mit", "apache-2.0", None)
    assert first.revision == (newest if options == ["--pin"] else None)
    assert (second.revision, gone.revision) == ("a" * 40, None)
