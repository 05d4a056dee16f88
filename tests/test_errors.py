"""What a user who made a mistake meets: one message with its place and remedy, and no change.

`errors.yaml` beside this file holds the cases: what is changed in a spec that is fine, and the
whole output.
"""

from __future__ import annotations

import itertools
import json
import os
import pickle
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adaptcompose.backbones.layout import registered_layouts
from adaptcompose.cli import main as cli
from adaptcompose.methods import registered_methods
from adaptcompose.storage.yaml_source import load_yaml
from tests.sampling import daily
from tests.workshop import Workshop, inside, make_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

CASES: dict[str, dict[str, Any]] = load_yaml(
    (Path(__file__).parent / "errors.yaml").read_text("utf-8")
)

SPEC = """\
spec: 1
name: demo
hub: ./hub
backbone: {model: ./base, as: demo/base}
adapters:
  new: pfeiffer(reduction=4)
compose: stack(lang=en, task=new) | fuse(glue/*) | drop(bottom=1)
task: {kind: text-classification}
data:
  d: {files: {train: data/train.jsonl, validation: data/validation.jsonl, test: data/test.jsonl}}
train: {data: d, steps: 1, batch: 4}
evaluate:
  - {name: as trained, data: d}
publish: {repo: me/out, license: apache-2.0}
"""


def _cut(shop: Workshop) -> None:
    file = next((shop.root / "hub/demo/en/revisions").glob("*/adapter.safetensors"))
    file.write_bytes(file.read_bytes()[:-100])


def _tamper(shop: Workshop) -> None:
    file = next((shop.root / "hub/demo/en/revisions").glob("*/adapter.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


class Greeting:
    def __reduce__(self) -> Any:
        return (os.system, ("touch /tmp/adaptcompose-was-here",))


def _pickled(shop: Workshop, content: Any) -> None:
    """lang/en comes as a pickle only."""
    place = next((shop.root / "hub/demo/en/revisions").glob("*/adapter_config.json")).parent
    folder = shop.root / "pickled"
    shutil.copytree(place, folder)
    (folder / "adapter.safetensors").unlink()
    if content is not None:
        (folder / "pytorch_adapter.bin").write_bytes(content)
    else:
        (folder / "pytorch_adapter.bin").unlink()
    shutil.rmtree(shop.root / "hub/demo/en")
    shop.commit("demo/en", folder)
    shutil.rmtree(folder)


def _evil(shop: Workshop) -> None:
    _pickled(shop, pickle.dumps({"x": Greeting()}, protocol=2))


def _evil_torch(shop: Workshop) -> None:
    path = shop.root / "x.bin"
    torch.save({"x": torch.ones(2), "y": Greeting()}, path)
    _pickled(shop, path.read_bytes())
    path.unlink()


def _weightless(shop: Workshop) -> None:
    _pickled(shop, None)


def _configured(**changes: Any) -> Callable[[Workshop], None]:
    """lang/en with another adapter_config.json."""

    def change(shop: Workshop) -> None:
        place = next((shop.root / "hub/demo/en/revisions").glob("*/adapter_config.json")).parent
        folder = shop.root / "changed"
        shutil.copytree(place, folder)
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        shutil.rmtree(shop.root / "hub/demo/en")
        shop.commit("demo/en", folder)
        shutil.rmtree(folder)

    return change


def _without(name: str) -> Callable[[Workshop], None]:
    def change(shop: Workshop) -> None:
        place = shop.root / name
        shutil.rmtree(place) if place.is_dir() else place.unlink()

    return change


def _bare(shop: Workshop) -> None:
    for path in (shop.root / "base").glob("tokenizer*"):
        path.unlink()


def _line(name: str, text: str) -> Callable[[Workshop], None]:
    def change(shop: Workshop) -> None:
        with (shop.root / "data" / name).open("a") as file:
            file.write(text)

    return change


def _gpt(shop: Workshop) -> None:
    path = shop.root / "base/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "foo"}))


PREPARE: dict[str, Callable[[Workshop], object]] = {
    "cut": _cut,
    "tamper": _tamper,
    "evil": _evil,
    "evil torch": _evil_torch,
    "weightless": _weightless,
    "other type": _configured(model_type="bert", model_name="google-bert/bert-base-uncased"),
    "other name": _configured(model_name="demo/other"),
    "other width": _configured(hidden_size=32),
    "other method": _configured(config={"architecture": "oft"}),
    "no data": _without("data/test.jsonl"),
    "no backbone": _without("base"),
    "no weights": _without("base/model.safetensors"),
    "no config": _without("base/config.json"),
    "no hub": _without("hub"),
    "no tokenizer": _bare,
    "bad line": _line("test.jsonl", '{"text": \n'),
    "odd label": _line("test.jsonl", '{"text": "amina", "labels": "kisumu"}\n'),
    "bad lines": lambda shop: (
        _line("train.jsonl", '{"text": 5}\n')(shop),
        _line("test.jsonl", '{"text": 5}\n')(shop),
    ),
    "other layout": _gpt,
}


def arrange(case: dict[str, Any], shop: Workshop) -> list[str]:
    """Write the spec of a case and what it needs; the arguments of its command."""
    text = SPEC
    for old, new in (case.get("change") or {}).items():
        assert old in text, old
        text = text.replace(old, new)
    (shop.root / "demo.yaml").write_text(text)
    if "prepare" in case:
        PREPARE[case["prepare"]](shop)
    return list(case.get("command") or ["run", "demo.yaml"])


def told(arguments: list[str], shop: Workshop, capsys: pytest.CaptureFixture[str]) -> Any:
    with inside(shop.root):
        code = cli.main(arguments)
    output = capsys.readouterr()
    return code, masked(output.out, shop), masked(output.err, shop)


def masked(text: str, shop: Workshop) -> str:
    """What differs from place to place and from version to version is named instead."""
    text = re.sub(
        r"demo/en@[0-9a-f]{7}", "demo/en@<revision>", text.replace(str(shop.root), "<shop>")
    )
    known = {"<methods>": registered_methods(), "<families>": registered_layouts()}
    for name, words in known.items():
        text = text.replace(", ".join(sorted(words)), name)
    return text


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_told_and_nothing_is_written(
    name: str, shop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    case = CASES[name]
    arguments = arrange(case, shop)
    before = shop.files()
    code, out, err = told(arguments, shop, capsys)
    assert (out + err if arguments[0] == "check" else err).strip() == case["told"].strip()
    assert code == case.get("code", 1), "2 is for usage, 1 for what the user wrote"
    assert "Traceback" not in err
    assert shop.files() == before
    assert not Path("/tmp/adaptcompose-was-here").exists()


RUNS = [n for n, case in CASES.items() if "command" not in case and case.get("static", True)]


@pytest.mark.parametrize("name", RUNS)
def test_check_tells_the_same_as_run(
    name: str, shop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    case = CASES[name]
    arrange(case, shop)
    before = shop.files()
    code, out, err = told(["check", "demo.yaml"], shop, capsys)
    assert (out + err).strip() == case["told"].strip()
    assert code == case.get("code", 1)
    assert shop.files() == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "stack(lang=sw, task=ner) | fuse(glue/*) | drop(bottom=5)"],
        ["check", "demo.yaml"],
        ["plan", "demo.yaml"],
        ["graph", "demo.yaml"],
        ["graph", "stack(lang=en, task=pfeiffer())", "--mermaid"],
        ["plan", "stack(demo/en, pfeiffer())", "--backbone", "./base", "--hub", "./hub"],
        ["--help"],
        ["run", "--help"],
        ["--version"],
    ],
)
def test_what_needs_no_weights_imports_no_torch(shop: Workshop, arguments: list[str]) -> None:
    (shop.root / "demo.yaml").write_text(SPEC)
    code = (
        "import sys; from adaptcompose.cli.main import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'transformers', 'huggingface_hub', 'datasets', 'sklearn', 'rich'};"
        "print(sorted(heavy & sys.modules.keys()), file=sys.stderr); sys.exit(code)"
    )
    import subprocess

    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=shop.root,
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ) | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"


FULL = OSError(28, "No space left on device")


@daily(
    ("at", "error"),
    [*itertools.product(["write", "sync", "replace"], [FULL, KeyboardInterrupt()])],
    days=2,
)
def test_a_publication_that_is_stopped_leaves_the_hub_as_it_was(
    shop: Workshop,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    at: str,
    error: BaseException,
) -> None:
    from adaptcompose.hub import folder

    (shop.root / "demo.yaml").write_text(SPEC)
    shop.commit("me/out", shop.root / "data")
    old = shop.hub.resolve("me/out")

    def fail(*given: Any, **rest: Any) -> Any:
        raise error

    with monkeypatch.context() as patch:
        target = {"write": "_write", "sync": "_sync"}.get(at)
        if target:
            patch.setattr(folder, target, fail)
        else:
            patch.setattr(folder, "write_atomically", fail)
        code, _, err = told(["run", "demo.yaml", "--quiet"], shop, capsys)
    interrupted = isinstance(error, KeyboardInterrupt)
    assert code == (130 if interrupted else 1), err
    if interrupted:
        assert err == "interrupted; run the same command again to continue\n"
    else:
        assert "error[AC415]: publishing to `me/out` failed: No space left on device" in err
        assert "try again; the hub has not been changed" in err
    assert shop.hub.resolve("me/out") == old
    assert set(shop.hub.list_files("me/out")) == {p.name for p in (shop.root / "data").iterdir()}
    shop.hub.fetch("me/out")  # and every file of it is whole
    # the report of the run is there, and the same command publishes without training again
    assert "published" not in json.loads((shop.root / "runs/demo/report.json").read_text())
    code, out, err = told(["run", "demo.yaml", "--quiet"], shop, capsys)
    assert code == 0, err
    assert f"published me/out@{shop.hub.resolve('me/out')[:7]}" in out


def test_a_full_disk_in_a_run_is_told(
    shop: Workshop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from adaptcompose.experiment.report import report

    (shop.root / "demo.yaml").write_text(SPEC)

    def fail(*given: Any) -> None:
        raise OSError(28, "No space left on device", "runs/demo/report.json")

    monkeypatch.setattr(report, "write_atomically", fail)
    code, _, err = told(["run", "demo.yaml", "--quiet"], shop, capsys)
    assert code == 4
    assert "error[AC425]: cannot write `runs/demo/report.json`: No space left on device" in err


def test_an_error_of_ours_is_one_sentence(
    shop: Workshop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adaptcompose.experiment.spec.spec.parse_yaml", lambda source: 1 / 0)
    (shop.root / "demo.yaml").write_text(SPEC)
    code, _, err = told(["plan", "demo.yaml"], shop, capsys)
    assert (code, len(err.strip().splitlines())) == (2, 2)
    assert "error[AC999]: internal error: ZeroDivisionError" in err
    assert "ADAPTCOMPOSE_DEBUG=1" in err
    monkeypatch.setenv("ADAPTCOMPOSE_DEBUG", "1")
    with pytest.raises(ZeroDivisionError), inside(shop.root):
        cli.main(["plan", "demo.yaml"])


def test_an_older_backbone_of_another_width_is_told_by_its_weights(
    shop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files that do not record their width are measured before anything is written."""
    _configured(hidden_size=None, model_type=None)(shop)
    shutil.rmtree(shop.root / "base")
    make_checkpoint(shop.root / "base", hidden_size=24)
    (shop.root / "demo.yaml").write_text(SPEC.replace(" | fuse(glue/*)", ""))
    before = shop.files()
    code, _, err = told(["run", "demo.yaml"], shop, capsys)
    assert (code, "error[AC408]: `lang/en`" in err) == (1, True), err
    assert shop.files() == before
