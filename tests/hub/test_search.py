"""Finding adapters: in the cards, in a folder, and on the Hub."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from adaptcompose.catalogue.cards import Catalogue
from adaptcompose.catalogue.search import SearchQuery, search_cards
from adaptcompose.cli import main as cli
from adaptcompose.hub.folder import FolderStore
from adaptcompose.hub.readme import SIZE_LIMIT, front_matter, hit_from_metadata
from adaptcompose.hub.store import RepositoryHit
from adaptcompose.resources import resource_folder

sys.path.insert(0, str(Path(__file__).parent))
from connection import connected
from hub_server import Hub

XLMR, BERT = "FacebookAI/xlm-roberta-base", "google-bert/bert-base-uncased"
PAGE = """\
---
library_name: adaptcompose
base_model: xlm-roberta-base
base_model_relation: adapter
language: [sw]
license: apache-2.0
pipeline_tag: token-classification
tags: [adapter-transformers, adaptcompose]
---
# Names
"""


@pytest.fixture(scope="module")
def cards() -> Catalogue:
    return Catalogue.open(resource_folder("hub_cards"))


@pytest.mark.parametrize(
    ("query", "names"),
    [
        (SearchQuery(("swahili",)), ["lang/sw"]),
        (SearchQuery(("SWAHILI", "xlm-roberta-large")), ["lang/sw"]),
        (SearchQuery(("swahili", "bert-base-uncased")), []),
        (SearchQuery(("conll2003", "ner"), backbone="bert-base-uncased"), ["task/ner"]),
        (SearchQuery(language="yue"), ["lang/zh_yue"]),
        (SearchQuery(("glue/",), backbone=BERT, method="houlsby"),
         ["glue/cola", "glue/mnli", "glue/mrpc", "glue/qnli", "glue/qqp", "glue/rte", "glue/sst2",
          "glue/stsb"]),
        (SearchQuery(task="translation"), ["translation/wmt16_ro_en"]),
        (SearchQuery(backbone="nobody/has-this"), []),
    ],
)  # fmt: skip
def test_cards_that_fit(cards: Catalogue, query: SearchQuery, names: list[str]) -> None:
    assert [hit.name for hit in search_cards(cards, query)] == names


def test_a_hit_holds_the_adapters_that_fit(cards: Catalogue) -> None:
    (hit,) = search_cards(cards, SearchQuery(("lang/sw",), backbone="xlm-roberta-base"))
    assert [(one.backbone, one.repo) for one in hit.variants] == [
        (XLMR, "AdapterHub/xlm-roberta-base-sw-wiki_pfeiffer")
    ]
    (entry,) = hit.as_plain()["adapters"]
    assert entry["licence"] == "apache-2.0"


def test_names_with_a_word_come_first(cards: Catalogue) -> None:
    names = [hit.name for hit in search_cards(cards, SearchQuery(("ner",)))]
    assert names[:3] == ["ner/mit_movie_trivia", "ner/wnut_17", "task/ner"]
    assert any("ner" not in name for name in names)


def test_metadata_of_a_hub_are_not_trusted() -> None:
    assert front_matter("---\n[1, 2]\n---\n") == {}
    assert front_matter("---\n{a: [\n---\n") == {}
    assert front_matter("---\na: &x [*x]\n---\n") == {}
    assert front_matter("no front matter") == {}
    assert front_matter("---\na: b\n---\n" + "x" * SIZE_LIMIT) == {}
    odd = {"language": [1, None, "sw"], "base_model": {"a": 1}, "license": ["mit"], "tags": "x"}
    assert hit_from_metadata("u/r", odd) == RepositoryHit(
        "u/r", languages=("sw",), licence="mit", tags=("x",)
    )


def test_tags_of_the_hub_name_the_backbone() -> None:
    tags = (
        "base_model:bert-base-uncased",
        "base_model:adapter:bert-base-uncased",
        "base_model:x:y",
    )
    assert hit_from_metadata("u/r", {}, tags).backbones == (BERT,)


def test_a_folder_is_searched_by_its_cards(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.commit("me/names", {"README.md": PAGE.encode()}, message="x")
    store.commit("me/other", {"a": b""}, message="x")
    (found,) = store.search(["names", "token-classification"], language="sw")
    assert (found.repo, found.backbones) == ("me/names", (XLMR,))
    assert store.search(["names"], language="de") == []
    assert [one.repo for one in store.search([])] == ["me/names", "me/other"]


def test_cards_first_then_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with connected(Hub(), tmp_path, monkeypatch) as hub:
        hub.add("me/swahili-names", {"README.md": PAGE.encode()})
        hub.add("me/swahili-text", {"README.md": b"# no adapter"})
        assert cli.main(["search", "swahili"]) == 0
        out = capsys.readouterr().out
        assert out.index("lang/sw") < out.index("on hf:") < out.index("me/swahili-names")
        assert "swahili-text" not in out
        assert cli.main(["search", "swahili", "--backbone", BERT, "--format", "json"]) == 0
        plain = json.loads(capsys.readouterr().out)
        assert plain == {"cards": [], "hub": []}
        assert cli.main(["search", "swahili", "--task", "token-classification"]) == 0
        assert "me/swahili-names" in capsys.readouterr().out
        asked = len(hub.requests)
        assert cli.main(["search", "swahili", "--cards"]) == 0
        assert len(hub.requests) == asked


def test_offline_the_cards_still_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with connected(Hub(), tmp_path, monkeypatch):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert cli.main(["search", "swahili"]) == 0
    told = capsys.readouterr()
    assert "lang/sw" in told.out
    assert (
        told.err == "hf was not searched: `swahili` is not in the cache, and offline mode is on\n"
    )


def test_a_hub_that_cannot_be_reached_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The client would ask six times, wait in between, and say so each time."""

    def sleep(seconds: float) -> None:
        raise AssertionError(f"it waits {seconds} s")

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("time.sleep", sleep)
    assert cli.main(["search", "glue/mnli"]) == 0
    output = capsys.readouterr()
    assert output.out.startswith("glue/mnli  ")
    (line,) = output.err.splitlines()
    assert line.startswith("hf was not searched: cannot reach the hub hf")


def test_nothing_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["search", "zzzz", "--cards"]) == 0
    assert capsys.readouterr() == ("", "no results\n")
