"""`adaptcompose show`, and what other commands share with it: specs, cards, runs and slips."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from adaptcompose.cli import main as cli
from adaptcompose.experiment.spec.spec import parse_specs, read_specs
from adaptcompose.storage.yaml_source import Source

EXAMPLES = Path(__file__).parents[1] / "examples"
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("slip", ["nope", "README.md", "./README.md", "two words", "glue/nope"])
def test_a_slip_is_told(slip: str, here: Path, capsys: Captured) -> None:
    (here / "README.md").touch()
    assert cli.main(["show", slip]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error[AC1")
    assert ("it is a file" in told) == slip.endswith(".md")


@pytest.mark.parametrize("name", ["quickstart", "glue-fusion"])
@pytest.mark.parametrize("full", [False, True])
def test_a_spec_is_shown_as_one_that_says_the_same(name: str, full: bool, capsys: Captured) -> None:
    path = EXAMPLES / f"{name}.yaml"
    assert cli.main(["show", str(path), *(["--full"] if full else [])]) == 0
    text = capsys.readouterr().out
    again = [spec.as_plain(full=True) for spec in parse_specs(Source(text), path.parent)]
    assert again == [spec.as_plain(full=True) for spec in read_specs(path)]
    assert ("weight_decay: 0.0" in text) == full
    assert cli.main(["show", str(path), "--format", "json", "--set", "train.lr=0.5"]) == 0
    assert json.loads(capsys.readouterr().out)["train"]["lr"] == 0.5


def test_only_a_spec_has_defaults(here: Path, capsys: Captured) -> None:
    assert cli.main(["show", "glue/mnli", "--full"]) == 2
    assert "use it with a spec only" in capsys.readouterr().err


def test_a_card_tells_licence_place_and_use(here: Path, capsys: Captured) -> None:
    shutil.copy(EXAMPLES / "quickstart.lock", here)
    (here / "uv.lock").write_text("version = 1\n")
    (here / "hub_cards").symlink_to(EXAMPLES / "hub_cards")
    assert cli.main(["show", "glue/mnli"]) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert len({row.index("AdapterHub/") for row in rows}) == 1
    assert any("apache-2.0" in row for row in rows)
    assert cli.main(["show", "lang/sw"]) == 0
    assert "  used        quickstart.lock: demo/lang-sw@" in capsys.readouterr().out
    assert cli.main(["show", "lang/sw", "--format", "json"]) == 0
    (used,) = json.loads(capsys.readouterr().out)["used"]
    assert used.startswith("quickstart.lock: ") and used.endswith("kB")
    hub = str(EXAMPLES / "demo" / "hub")
    assert cli.main(["show", "glue/names", "--hub", hub]) == 0
    text = capsys.readouterr().out
    assert "  licence     apache-2.0\n  pinned      demo/names@" in text


def test_a_backbone_in_a_folder_is_given_its_name(here: Path, capsys: Captured) -> None:
    config = {"model_type": "xlm-roberta", "hidden_size": 768, "num_hidden_layers": 12}
    config |= {"num_attention_heads": 12, "intermediate_size": 3072, "vocab_size": 250002}
    config |= {"max_position_embeddings": 514, "type_vocab_size": 1}
    (here / "base").mkdir()
    (here / "base" / "config.json").write_text(json.dumps(config))
    given = ["stack(lang=sw)", "--backbone", "./base"]
    assert cli.main(["check", *given]) == 1
    assert "or `--as FacebookAI/xlm-roberta-base" in capsys.readouterr().out
    assert cli.main(["check", *given, "--as", "xlm-roberta-base"]) == 0
    assert cli.main(["graph", *given, "--as", "FacebookAI/xlm-roberta-base"]) == 0
    assert cli.main(["check", "stack(lang=sw)", "--as", "xlm-roberta-base"]) == 2
    assert cli.main(["check", "spec.yaml", "--as", "xlm-roberta-base"]) == 2


def test_a_run_is_a_target(here: Path, capsys: Captured) -> None:
    best = here / "runs" / "demo" / "best"
    best.mkdir(parents=True)
    manifest = "composition: 1\nexpression: stack(lang=me/lang@main, ./task)\nbackbone: {}\n"
    (best / "composition.yaml").write_text(manifest)
    assert cli.main(["graph", "runs/demo"]) == 0
    assert "./task" in capsys.readouterr().out
    assert cli.main(["check", "runs/demo"]) == 1
    told = capsys.readouterr().out
    assert "AC412" in told and f"which is relative to {best}" in told


UNKNOWN = """\
spec: 1
name: demo
backbone: demo/xlmr-tiny
compose: stack(lang=${m}, lang/${k}) | drop(botom=5) | drop(bottom=${n})
train: {data: nope, lr: "${lr}", steps: 5}
"""


def test_a_variable_that_is_unknown_is_told_once_and_hides_nothing(
    here: Path, capsys: Captured
) -> None:
    (here / "demo.yaml").write_text(UNKNOWN)
    assert cli.main(["check", "demo.yaml", "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    codes = sorted(one["code"] for one in found)
    assert codes == ["AC201", "AC603", "AC603", "AC603", "AC603", "AC606", "AC610"]
