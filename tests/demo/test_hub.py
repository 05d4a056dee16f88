"""The committed demo hub is what the recipe makes, whole, and what the quickstart needs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from adaptcompose.cli.main import main
from adaptcompose.hub.folder import FolderStore

EXAMPLES = Path(__file__).parents[2] / "examples"
DEMO = EXAMPLES / "demo"
sys.path.insert(0, str(DEMO))

import build  # noqa: E402

STORE = FolderStore(DEMO / "hub")
REPOSITORIES = STORE.list_repositories("demo/*")


def test_there_is_everything() -> None:
    entities = [f"{n}-{s}" if s else n for n in build.ENTITIES for s in build.SEEDS]
    names = ["xlmr-tiny", *build.LANGUAGES, *entities, *build.SENTENCES]
    assert sorted(f"demo/{name}" for name in names) == REPOSITORIES


@pytest.mark.parametrize("repo", REPOSITORIES)
def test_it_was_made_by_this_recipe(repo: str) -> None:
    """Whoever changes the recipe runs `make demo`."""
    revision = STORE.resolve(repo)
    manifest = json.loads((DEMO / "hub" / repo / "revisions" / f"{revision}.json").read_bytes())
    recipe = build.recipe()
    assert manifest["message"] in (recipe, build.MADE_BEFORE.get(recipe))


@pytest.mark.parametrize("repo", REPOSITORIES)
def test_every_file_has_its_hash(repo: str) -> None:
    folder = STORE.fetch(repo)
    assert all((folder / name).is_file() for name in STORE.list_files(repo))


def test_it_is_small() -> None:
    files = [path for path in (DEMO / "hub" / "demo").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 20_000_000
    weights = {path.suffix for path in files if path.stat().st_size > 100_000}
    assert weights <= {".safetensors", ".bin"}


def test_the_quickstart_is_fine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(EXAMPLES / "quickstart.yaml")]) == 0
    assert "fine" in capsys.readouterr().out
