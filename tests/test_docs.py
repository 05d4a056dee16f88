"""The pages are true: tables are those of the code, examples run, outputs are real, links lead."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import adaptcompose as ac
from adaptcompose.cli.commands import app
from adaptcompose.composition.word_docs import WordDoc, describe_all_words
from adaptcompose.diagnostics.diagnostic import Source
from adaptcompose.experiment.spec.schema import SCHEMA_FILE, build_schema
from adaptcompose.experiment.spec.spec import parse_specs
from adaptcompose.storage.yaml_source import load_yaml

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
PAGES += sorted((ROOT / "docs").glob("*.md"))


def blocks(kind: str) -> list[tuple[str, str]]:
    """The fenced blocks of a kind: page and content."""
    fence = re.compile(rf"^```{kind}\n(.*?)^```", re.M | re.S)
    return [(page.name, text) for page in PAGES for text in fence.findall(page.read_text("utf-8"))]


def expressions() -> list[tuple[str, str]]:
    """One a line, or one in several lines that starts with `let`."""
    found = []
    for page, text in blocks("compose"):
        lines = [text] if text.startswith("let ") else text.strip().splitlines()
        found += [(page, line) for line in lines]
    return found


def specs() -> list[tuple[str, str]]:
    """Other YAML, such as cards, has tests of its own."""
    return [(page, text) for page, text in blocks("yaml") if text.startswith("spec:")]


def scripts() -> list[tuple[str, str]]:
    """Whole scripts; a piece of one shows a call."""
    return [(page, text) for page, text in blocks("python") if text.startswith("import")]


def commands() -> list[tuple[str, str, str]]:
    """Page, command line and what it prints, where the page shows that."""
    found = []
    for page, text in blocks("console"):
        for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
            command, _, output = part.partition("\n")
            found += [(page, command, output)] if output.strip() else []
    return found


def test_the_tables_are_those_of_the_code() -> None:
    build = runpy.run_path(str(ROOT / "docs" / "build.py"))
    stale = [page.name for page in PAGES if build["renew"](page.read_text()) != page.read_text()]
    assert not stale, "run: python docs/build.py"


def test_the_schema_beside_the_examples_is_that_of_the_code() -> None:
    text = (ROOT / "examples" / SCHEMA_FILE).read_text("utf-8")
    assert json.loads(text) == build_schema(), "run: python docs/build.py"


@pytest.mark.parametrize("page", describe_all_words(), ids=lambda page: page.word)
def test_every_word_of_the_language_is_explained(page: WordDoc) -> None:
    text = (ROOT / "docs" / "language.md").read_text("utf-8")
    assert page.summary.endswith(".")
    if page.kind == "setting":
        assert f"| `{page.word}()` | `{page.means}` |" in text
        return
    _, _, section = text.partition(f"### `{page.word}`\n")
    section = section.partition("\n### ")[0]
    assert page.examples, "its docstring has no Example:"
    assert any(f"{page.word}(" in example or page.word in example for example in page.examples)
    for line in (*page.laws, *page.examples):
        assert line in section.replace("\\", ""), line
    for argument in page.arguments:
        assert f"| `{argument.name}` |" in section
        assert argument.doc, argument.name


@pytest.mark.parametrize(("page", "text"), expressions())
def test_an_expression_is_fine(page: str, text: str) -> None:
    # `data` of prune is refused outside of a spec only
    found = [one for one in ac.check(text) if (one.code, one.subject) != ("AC204", "data")]
    assert found == []


@pytest.mark.parametrize(("page", "command", "output"), commands())
def test_a_command_prints_what_the_page_shows(
    page: str, command: str, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    program, word, argument = re.fullmatch(r"(\w+) (\w+) '(.*)'", command).groups()  # type: ignore[union-attr]
    assert program == "adaptcompose"
    printed = CliRunner().invoke(app, [word, argument]).stdout
    assert _plain(printed) == _plain(output)


def _plain(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]


@pytest.mark.parametrize(("page", "text"), specs())
def test_a_spec_is_read(page: str, text: str, tmp_path: Path) -> None:
    for section in load_yaml(text)["data"].values():
        for name in section["files"].values():
            (tmp_path / name).write_text("a O\n")
    spec = parse_specs(Source(text, page), tmp_path)[0]
    assert spec.evaluate


@pytest.mark.parametrize(("page", "text"), scripts())
def test_a_script_runs(page: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    exec(text, names)
    logits = names["logits"]
    assert list(logits.shape) == [1, 4, 7]  # type: ignore[attr-defined]


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/tour.md"])
def test_the_session_of_a_page_prints_what_the_page_shows(page: str) -> None:
    """In a process of its own: the examples register words of the language."""
    command = [sys.executable, "-m", "tests.page_session", page]
    run = subprocess.run(
        command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text("utf-8")):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_are_there(page: Path) -> None:
    folders = "adaptcompose|tests|docs|grammar|hub_cards|examples"
    for name in re.findall(rf"`((?:{folders})/[\w./-]*)`", page.read_text("utf-8")):
        assert (ROOT / name).exists(), name


def test_every_target_that_is_named_is_made() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    for page in PAGES:
        named = set(re.findall(r"(?:^|`)make (\w+)", page.read_text("utf-8"), re.M))
        assert named <= targets, page.name
