"""What folders, and a hub that is one, tell is expected before anything is loaded or fetched."""

from __future__ import annotations

from pathlib import Path

import pytest

import adaptcompose as ac
from adaptcompose.cli import main as cli
from adaptcompose.composition.checker import CheckContext, check_source
from adaptcompose.resolution.expression_check import context

EXAMPLES = Path(__file__).parents[2] / "examples"
HUB = EXAMPLES / "demo" / "hub"
TINY = "demo/xlmr-tiny"


def codes(text: str, root: Path, backbone: str | None = None) -> list[str]:
    return [one.code for one in ac.check(text, backbone, root, str(HUB))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("demo/names", []),
        ("glue/names", []),
        ("demo/nams", ["AC401"]),
        ("demo/names@nope", ["AC402"]),
        ("demo/xlmr-tiny", ["AC406"]),
        ("fuse(glue/names, lang/en)", ["AC315"]),
        ("stack(./a, demo/nams, lang=lang/en)", ["AC412", "AC401"]),
        ("./nothere | drop(bottom=99)", ["AC412", "AC311"]),
        ("stack(lang=swh, user/-repo, glue/x*, ./a)", ["AC103", "AC420", "AC105", "AC412"]),
        ("./empty", ["AC406"]),
        ("fuse(demo/names, demo/place, load=lang/en)", ["AC406"]),
        ("fuse(demo/names, demo/place, load=names)", ["AC406"]),
        ("fuse(demo/names, demo/place, load=./nothere)", ["AC412"]),
        ("fuse(demo/names, demo/place) | prune(by=./nothere)", ["AC607"]),
        ("fuse(demo/names, demo/place) | prune(data=x)", ["AC204"]),
        ("hf://demo/nams", []),
    ],
)
def test_what_is_missing_is_reported(text: str, expected: list[str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "hub_cards").symlink_to(EXAMPLES / "hub_cards")
    assert sorted(codes(text, tmp_path, TINY)) == sorted(expected)
    alone = [one for one in expected if one not in ("AC311", "AC315")]  # need a backbone
    assert sorted(codes(text, tmp_path)) == sorted(alone)


def test_text_alone_asks_for_no_folder(tmp_path: Path) -> None:
    text = "fuse(./a, demo/nams) | prune(by=./nothere)"
    assert ac.check(text) == []
    assert check_source(text, context(None, tmp_path)).diagnostics == ()


def test_a_command_looks_beside_the_file_with_the_expression(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "one.compose"
    file.write_text("./nothere\n")
    assert cli.main(["check", str(file)]) == 1
    assert f"which is relative to {tmp_path}" in capsys.readouterr().out


def test_a_hub_elsewhere_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def store(*given: object) -> None:
        raise AssertionError(given)

    monkeypatch.setattr("adaptcompose.resolution.sources.open_store", store)
    assert ac.check("stack(user/repo, lang/sw)", root=tmp_path) == []
    assert isinstance(context(None, tmp_path), CheckContext)
