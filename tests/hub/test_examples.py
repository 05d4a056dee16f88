"""The examples of the public Hub: checked from the cards alone, run against the same names."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import adaptcompose as ac
from adaptcompose.cli import main as cli
from tests.workshop import inside, logits

sys.path.insert(0, str(Path(__file__).parent))
from connection import connected
from hub_server import Hub
from public_hub import fill, fill_glue

EXAMPLES = Path(__file__).parents[2] / "examples"
FILLED: dict[str, Callable[[Hub, Path], None]] = {"madx-ner": fill, "glue-fusion": fill_glue}

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("name", FILLED)
def test_check_passes_from_the_cards_alone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with connected(Hub(), tmp_path, monkeypatch) as hub:
        assert cli.main(["check", str(EXAMPLES / f"{name}.yaml")]) == 0
    assert capsys.readouterr().out == "fine\n"
    assert hub.requests == []


@pytest.mark.parametrize("name", FILLED)
def test_run_push_search_pull_and_load(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "work"
    shutil.copytree(EXAMPLES / name, work / name)
    spec = (EXAMPLES / f"{name}.yaml").read_text()
    (work / f"{name}.yaml").write_text(spec)
    with connected(Hub(), tmp_path, monkeypatch) as hub, inside(work):
        FILLED[name](hub, tmp_path)
        assert cli.main(["run", f"{name}.yaml", "--quiet"]) == 0
        report = json.loads(Path(f"runs/{name}/report.json").read_text())
        assert len(report["scores"]) == spec.count("{name: ")
        arguments = ["push", f"runs/{name}", f"me/{name}", "--public", "--license", "apache-2.0"]
        assert cli.main(arguments) == 0
        capsys.readouterr()
        assert cli.main(["search", name]) == 0
        assert f"me/{name}" in capsys.readouterr().out
        assert cli.main(["pull", f"me/{name}", "there"]) == 0
        outputs = [logits(ac.load(one)) for one in (f"runs/{name}", f"me/{name}", "there")]
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])
    weights = {path.split("/")[0] for path in hub.files(f"me/{name}") if "safetensors" in path}
    assert weights in ({"ner"}, {"fuse", "head"}), "what is on the Hub is not copied"
