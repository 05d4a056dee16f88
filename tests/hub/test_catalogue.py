"""The cards that come with adaptcompose."""

from __future__ import annotations

import csv
import runpy
from collections import Counter
from pathlib import Path

import pytest
from transformers import AutoConfig

from adaptcompose.backbones.layout import Facts, read_facts
from adaptcompose.catalogue.cards import Card, Catalogue
from adaptcompose.composition.checker import CheckContext, check_source
from adaptcompose.diagnostics.diagnostic import select_errors
from adaptcompose.resources import resource_folder
from adaptcompose.syntax.parser import parse_tree
from adaptcompose.syntax.references import canonical_id

ROOT = Path(__file__).parents[2]
TABLES = sorted((ROOT.parent / "shared" / "design" / "catalogue").glob("adapterhub_*.csv"))
needs_tables = pytest.mark.skipif(len(TABLES) != 2, reason="the tables are not here")

TYPES = {
    "FacebookAI/roberta-": "roberta",
    "FacebookAI/xlm-roberta-": "xlm-roberta",
    "aubmindlab/bert-": "bert",
    "distilbert/distilbert-": "distilbert",
    "facebook/bart-": "bart",
    "facebook/mbart-": "mbart",
    "google-bert/bert-": "bert",
    "openai-community/gpt2": "gpt2",
}
"""The model types of the catalogue's backbones, by how their names begin."""
GLUE = ["cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb"]
XLMR, BERT = "FacebookAI/xlm-roberta-base", "google-bert/bert-base-uncased"


def rows() -> list[dict[str, str]]:
    lines = (path.read_text("utf-8").splitlines() for path in TABLES)
    return [row for table in lines for row in csv.DictReader(table)]


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue.open(resource_folder("hub_cards"))


@pytest.fixture(scope="module")
def cards(catalogue: Catalogue) -> list[Card]:
    places = [(space, name) for space in catalogue.spaces() for name in catalogue.names(space)]
    return [catalogue.card(space, name) for space, name in places]


def test_every_file_is_a_card_and_prints_as_it_is(cards: list[Card]) -> None:
    pages = set(resource_folder("hub_cards").rglob("*.md"))
    assert len(pages) == len(cards) > 100
    for card in cards:
        page = resource_folder("hub_cards") / card.space / f"{card.name}.md"
        assert page.read_text("utf-8") == str(card)


def test_names_differ_by_more_than_case() -> None:
    for folder in resource_folder("hub_cards").iterdir():
        names = [page.name for page in folder.glob("*")] if folder.is_dir() else [folder.name]
        assert all(name == name.lower() for name in names)


def test_glue_is_glue(catalogue: Catalogue) -> None:
    assert catalogue.names("glue") == GLUE
    for backbone in (BERT, "FacebookAI/roberta-base"):
        found = catalogue.match("glue/*", backbone)
        assert [name for name, _ in found] == GLUE
        assert all(f"-pf-{name}" in variant.repo for name, variant in found)
        assert all(len(variant.revision or "") == 40 for _, variant in found)


def test_the_flagship_line_finds_its_names(catalogue: Catalogue) -> None:
    assert {"lang", "glue", "task"} <= set(catalogue.spaces())
    assert "ner" in catalogue.names("task")
    swahili = catalogue.resolve_variant("lang", "sw", XLMR)
    assert swahili.repo == "AdapterHub/xlm-roberta-base-sw-wiki_pfeiffer"
    assert swahili.method == "language(reduction=2)"
    assert len(catalogue.match("lang/*", XLMR)) == 29


def test_every_backbone_has_a_default(cards: list[Card]) -> None:
    for card in cards:
        for backbone in card.backbones:
            assert card.variant_keys(backbone)[0] == "default"
            assert canonical_id(backbone) == backbone


def test_methods_are_calls_of_the_language(cards: list[Card]) -> None:
    texts = {one.method for card in cards for one in card.variants if one.method is not None}
    assert {text.partition("(")[0] for text in texts} == {"language", "pfeiffer", "houlsby"}
    for text in texts:
        assert str(parse_tree(text)) == text


def facts_of(backbone: str) -> Facts:
    """Those of a model of its type."""
    (model_type,) = (kind for start, kind in TYPES.items() if backbone.startswith(start))
    return read_facts(AutoConfig.for_model(model_type).to_dict(), backbone)


def test_every_name_is_a_composition_on_its_backbone(
    catalogue: Catalogue, cards: list[Card]
) -> None:
    known = {one.backbone: facts_of(one.backbone) for card in cards for one in card.variants}
    for card in cards:
        for one in card.variants:
            text = f"{card.space}/{card.name}@{one.key}"
            found = check_source(text, CheckContext(catalogue, known[one.backbone])).diagnostics
            assert not select_errors(found), f"{text} on {one.backbone}: {found}"


def test_no_adapter_has_two_names(cards: list[Card]) -> None:
    repos = Counter(variant.repo for card in cards for variant in card.variants)
    assert set(repos.values()) == {1}


@needs_tables
def test_every_known_adapter_has_a_name(cards: list[Card]) -> None:
    variants = {variant.repo: variant for card in cards for variant in card.variants}
    listed = rows()
    assert sorted(variants) == sorted(row["repo_id"] for row in listed)
    for row in listed:
        found = variants[row["repo_id"]]
        assert found.backbone == canonical_id(row.get("model") or row["model_name"])
        assert found.revision == row.get("sha")
    languages = [row for row in listed if row.get("type") == "text_lang"]
    assert len(languages) == 134
    names = {one.repo: card.name for card in cards if card.space == "lang" for one in card.variants}
    assert {row["repo_id"]: row["task"] for row in languages} == names


@needs_tables
def test_the_cards_are_what_the_script_writes(cards: list[Card]) -> None:
    script = runpy.run_path(str(ROOT / "hub_cards" / "build.py"))
    assert {(card.space, card.name): card for card in script["build"](rows())} == {
        (card.space, card.name): card for card in cards
    }
