"""The tab key in real shells, and what they ask for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from adaptcompose.cli.completion import complete_key, join_words
from tests.shells import START, Shell


@pytest.fixture(scope="module", params=START)
def shell(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shell]:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "one.yaml").write_text("")
    found = Shell(request.param, folder)
    yield found
    found.close()


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("check on", "check one.yaml "),
        ("check one.yaml --set train.l", "check one.yaml --set train.lr="),
        ("check one.yaml --set train.bud", "check one.yaml --set train.budget="),
        ("check one.yaml --set train.schedule=", "check one.yaml --set train.schedule="),
        ("check one.yaml --set train.schedule=li", "check one.yaml --set train.schedule=linear "),
        ("graph 'lora(rank=8) | scale(", "graph 'lora(rank=8) | scale(by="),
        ("graph 'lora(rank=8) | bitf", "graph 'lora(rank=8) | bitfit("),
        ("new x --task text", "new x --task text-classification "),
    ],
)
def test_the_tab_key(shell: Shell, typed: str, expected: str) -> None:
    shown = shell.completed(f"adaptcompose {typed}").replace(" \b", "")
    assert shown == f"adaptcompose {expected}"


@pytest.mark.parametrize(
    ("words", "whole", "done"),
    [
        (["run", "--set", "a.b"], ["run", "--set", "a.b"], ""),
        (["run", "--set", "a.b", "="], ["run", "--set", "a.b="], "a.b="),
        (["run", "--set", "a.b", "=", "c"], ["run", "--set", "a.b=c"], "a.b="),
        (["run", "--set", "=", "a.b"], ["run", "--set=a.b"], "--set="),
        (["run", "--set", "a", "=", "b", ""], ["run", "--set", "a=b", ""], ""),
        (["check", "hf", ":", "//a/b"], ["check", "hf://a/b"], "hf:"),
    ],
)
def test_words_that_bash_cut(words: list[str], whole: list[str], done: str) -> None:
    assert join_words(words) == (whole, done)


def test_no_key_stands_alone() -> None:
    """A shell with one answer would close the word."""
    assert complete_key("train.lr") == ["train.lr=", "train.lr=0.0001"]
    assert complete_key("train.lr=") == ["train.lr=0.0001"]
    assert complete_key("train.bucket=") == ["train.bucket=true", "train.bucket=false"]
    assert complete_key("train.budget=") == complete_key("train.nothing") == []
