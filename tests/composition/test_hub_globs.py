"""Globs over the repositories of one author: one listing, then the expansion in the lock."""

from __future__ import annotations

import pytest

from adaptcompose.catalogue.cards import Catalogue
from adaptcompose.composition.checker import CheckContext, CheckResult, check_source
from adaptcompose.composition.graph import adapters_of
from adaptcompose.diagnostics.codes import AC419
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.resources import resource_folder
from adaptcompose.syntax.references import matches_glob

REPOSITORIES = ["A/bert-cola", "A/bert-mnli", "A/roberta-mnli"]


def listing(glob: str) -> list[str]:
    return [name for name in REPOSITORIES if matches_glob(glob, name)]


def checked(text: str, **context: object) -> CheckResult:
    cards = Catalogue.open(resource_folder("hub_cards"))
    return check_source(text, CheckContext(cards, **context))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("fuse(hf://A/bert-*)", ["hf://A/bert-cola", "hf://A/bert-mnli"]),
        ("fuse(hf://A/*-mnli)", ["hf://A/bert-mnli", "hf://A/roberta-mnli"]),
        ("fuse(hf://A/{bert,roberta}-mnli)", ["hf://A/bert-mnli", "hf://A/roberta-mnli"]),
        ("fuse(hf://A/*, !hf://A/bert-cola)", ["hf://A/bert-mnli", "hf://A/roberta-mnli"]),
        ("average(hf://A/bert-*@refs/pr/3)", ["hf://A/bert-cola@refs/pr/3", "hf://A/bert-mnli@refs/pr/3"]),
        ("average(hf://A/bert-*:0.5)", ["hf://A/bert-cola", "hf://A/bert-mnli"]),
    ],
)  # fmt: skip
def test_a_glob_is_every_repository_that_fits(text: str, names: list[str]) -> None:
    graph = checked(text, list_repositories=listing).raise_errors()
    assert list(adapters_of(graph)) == names


def test_a_lock_fixes_the_expansion_of_a_glob() -> None:
    found = checked("fuse(hf://A/bert-*)", list_repositories=listing)
    assert found.globs == {"hf://A/bert-*": ("hf://A/bert-cola", "hf://A/bert-mnli")}
    locked = {"hf://A/bert-*": ("hf://A/bert-old", "hf://A/bert-mnli")}

    def never(glob: str) -> list[str]:
        raise AssertionError(glob)

    graph = checked(
        "fuse(hf://A/bert-*)", list_repositories=never, locked_globs=locked
    ).raise_errors()
    assert list(adapters_of(graph)) == list(locked["hf://A/bert-*"])


@pytest.mark.parametrize(
    ("text", "code"),
    [("fuse(hf://A/gpt-*)", "AC105"), ("fuse(hf://A/bert-c*)", "AC304"), ("fuse(A/*)", "AC106")],
)
def test_a_glob_with_too_few_matches_is_reported(text: str, code: str) -> None:
    assert [found.code for found in checked(text, list_repositories=listing).diagnostics] == [code]


def test_without_a_hub_to_ask_the_rest_is_checked() -> None:
    assert not checked("fuse(hf://A/bert-*)").diagnostics
    assert [d.code for d in checked("fuse(hf://A/bert-*) | drop(botom=1)").diagnostics] == ["AC201"]


def test_a_hub_that_does_not_answer_is_reported_at_the_glob() -> None:
    def dead(glob: str) -> list[str]:
        raise Failed(AC419.at(hub="https://huggingface.co", why="timed out"))

    (found,) = checked("fuse(hf://A/bert-*)", list_repositories=dead).diagnostics
    assert (found.code, found.position()[1]) == ("AC419", 5)
