"""Every code has a page, and its examples do what the page says: the bad one causes the code.

This is also what holds every code to an input that produces it.
"""

from __future__ import annotations

import json
import pickle
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import adaptcompose as ac
from adaptcompose.cli import main as cli
from adaptcompose.cli.commands import app
from adaptcompose.composition.explanations import Example, find_explanation, load_explanations
from adaptcompose.composition.graph import Head
from adaptcompose.diagnostics.codes import CODES
from adaptcompose.experiment.report import report
from adaptcompose.hub import folder as hub_folder
from adaptcompose.hub.huggingface import HuggingFaceStore
from adaptcompose.runtime.saving.writer import save_composition
from adaptcompose.syntax import parser
from tests.hub.hub_server import Fault, Hub, serve
from tests.test_errors import SPEC, Greeting
from tests.workshop import Workshop, inside

pytestmark = pytest.mark.filterwarnings("ignore")

Prepare = Callable[[Workshop, pytest.MonkeyPatch], None]
HUB: dict[str, Prepare] = {}


def test_every_code_has_a_page_and_every_page_a_code() -> None:
    assert set(load_explanations()) == set(CODES)


@pytest.mark.parametrize("code", CODES)
def test_a_page_is_short_plain_text(code: str) -> None:
    text = str(find_explanation(code))
    assert text.startswith(code)
    assert max(map(len, text.splitlines())) <= 120
    assert find_explanation(code).bad != find_explanation(code).good
    assert json.loads(json.dumps(find_explanation(code).as_dict()))["code"] == code


def _config(shop: Workshop, repo: str, file: str, **changes: Any) -> None:
    """Commit a repository again with another configuration."""
    folder = shop.root / "changed"
    shutil.copytree(shop.hub.fetch(f"demo/{repo}"), folder)
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    shop.commit(f"demo/{repo}", folder)
    shutil.rmtree(folder)


def _only(shop: Workshop, *names: str, **more: bytes) -> None:
    """demo/en with these of its files and others, and nothing else."""
    place = shop.hub.fetch("demo/en")
    files: dict[str, Path | bytes] = {name: place / name for name in names}
    kept = {path: content.read_bytes() for path, content in files.items()}  # type: ignore[union-attr]
    shutil.rmtree(shop.root / "hub/demo/en")
    shop.hub.commit("demo/en", {**kept, **{k.replace("_bin", ".bin"): v for k, v in more.items()}},
                    message="test")  # fmt: skip


def _weights(shop: Workshop, change: Callable[[bytes], bytes]) -> None:
    file = next((shop.root / "hub/demo/en/revisions").glob("*/adapter.safetensors"))
    file.write_bytes(change(file.read_bytes()))


def _served(shop: Workshop, patch: pytest.MonkeyPatch, hub: Hub) -> None:
    from huggingface_hub import constants

    patch.setattr(constants, "HF_HOME", str(shop.root / "home"))
    patch.setattr(constants, "HF_HUB_CACHE", str(shop.root / "home/hub"))
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    place = shop.hub.fetch("demo/en")
    hub.add("demo/en", {path.name: path.read_bytes() for path in place.iterdir()})
    server = serve(hub)
    path = shop.root / "demo.yaml"
    path.write_text(path.read_text().replace("./hub", f"http://127.0.0.1:{server.server_port}"))


def _offline(shop: Workshop, patch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    _served(shop, patch, Hub())
    patch.setattr(constants, "HF_HUB_OFFLINE", True)


def _full(*given: Any, **rest: Any) -> None:
    raise OSError(28, "No space left on device", "runs/demo/report.json")


def _fusion(expression: str) -> Prepare:
    def prepare(shop: Workshop, patch: pytest.MonkeyPatch) -> None:
        with inside(shop.root):
            files = (shop.root / "base").iterdir()
            shop.hub.commit("demo/base", {path.name: path for path in files}, message="test")
            model = ac.compose(expression, "demo/base", hub=str(shop.root / "hub"), head=None)
            save_composition(model, shop.root / "saved")
        shutil.move(shop.root / "saved/fuse", shop.root / "fusion")

    return prepare


def _published(shop: Workshop, patch: pytest.MonkeyPatch) -> None:
    head = {"task": "text-classification", "labels": ["mombasa", "nairobi"]}
    model = ac.compose("stack(pfeiffer())", shop.root / "base", head=head)
    ac.push(model, "demo/out", hub=str(shop.root / "hub"))


def _owned(by: str) -> Prepare:
    def prepare(shop: Workshop, patch: pytest.MonkeyPatch) -> None:
        from adaptcompose.experiment.run.run_dirs import OWNER_FILE

        (shop.root / "other.yaml").write_text("")
        (shop.root / "runs/demo").mkdir(parents=True)
        (shop.root / "runs/demo" / OWNER_FILE).write_text(str(shop.root / by))

    return prepare


def _locked(shop: Workshop, patch: pytest.MonkeyPatch) -> None:
    from adaptcompose.experiment.prepare.preparer import lock_path, prepare_runs
    from adaptcompose.experiment.spec.spec import read_specs

    text = (shop.root / "demo.yaml").read_text()
    path = shop.root / "demo.yaml"
    path.write_text(text.replace("lang=en", "lang=sw"))
    prepare_runs(read_specs(path), path)[0].lock.write(lock_path(path))
    path.write_text(text)


def _write(name: str, text: str) -> Prepare:
    return lambda shop, patch: (shop.root / name).write_text(text) and None  # type: ignore[func-returns-value]


def _without_pyarrow(shop: Workshop, patch: pytest.MonkeyPatch) -> None:
    (shop.root / "data/train.parquet").write_bytes(b"PAR1")
    patch.setitem(sys.modules, "pyarrow", None)


def _append(name: str, text: str) -> Prepare:
    def prepare(shop: Workshop, patch: pytest.MonkeyPatch) -> None:
        with (shop.root / name).open("a") as file:
            file.write(text)

    return prepare


def _saved_pickle(content: Any, shop: Workshop) -> bytes:
    path = shop.root / "x.bin"
    torch.save(content, path)
    return path.read_bytes()


def _foo(shop: Workshop, patch: pytest.MonkeyPatch) -> None:
    path = shop.root / "base/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "foo"}))


def _pickled(shop: Workshop, patch: pytest.MonkeyPatch) -> None:
    _only(shop, "adapter_config.json", "pytorch_adapter.bin")


def _refusing(shop: Workshop, patch: pytest.MonkeyPatch) -> None:
    hub = Hub(faults=[Fault("GET", 401, headers={"X-Error-Message": "Invalid credentials"})])
    _served(shop, patch, hub)


def _saved(shop: Workshop, patch: pytest.MonkeyPatch) -> None:
    model = ac.compose("stack(pfeiffer())", shop.root / "base", head=None)
    save_composition(model, shop.root / "saved")


def _halving(shop: Workshop, patch: pytest.MonkeyPatch) -> None:
    """Layers of another release of transformers."""
    from transformers.models.xlm_roberta.modeling_xlm_roberta import XLMRobertaOutput

    def forward(self: Any, states: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.LayerNorm(0.5 * self.dropout(self.dense(states)) + residual)
        return out

    patch.setattr(XLMRobertaOutput, "forward", forward)


def _choosing(shop: Workshop, patch: pytest.MonkeyPatch) -> None:
    config = {"head_type": "multiple_choice", "layers": 1, "num_choices": 2}
    model = ac.compose("stack(pfeiffer())", shop.root / "base", head=Head("head", config))
    save_composition(model, shop.root / "saved")


def _pushed(*faults: Fault) -> Prepare:
    """The hub of a push is another machine."""

    def prepare(shop: Workshop, patch: pytest.MonkeyPatch) -> None:
        _saved(shop, patch)
        hub = Hub(faults=list(faults))
        _served(shop, patch, hub)
        place = re.search(r"http://\S+", (shop.root / "demo.yaml").read_text())
        assert place is not None
        opened = HuggingFaceStore(place[0])
        patch.setattr("adaptcompose.hub.opening.open_store", lambda hub, root: opened)

    return prepare


def _breaking(shop: Workshop, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(parser, "parse_tree", lambda source: 1 / 0)


def _tagger(**head: Any) -> Prepare:
    def prepare(shop: Workshop, patch: pytest.MonkeyPatch) -> None:
        config = json.loads((shop.hub.fetch("demo/ner") / "head_config.json").read_text())
        _config(shop, "ner", "head_config.json", config=config["config"] | head)
        path = shop.root / "demo.yaml"
        text = path.read_text().replace(
            "stack(lang=en, task=new) | fuse(glue/*)", "stack(task=ner)"
        )
        path.write_text(re.sub(r"(?m)^(adapters:\n.*|data:\n.*|task:.*|train:.*|publish:.*|evaluate:\n.*)\n",
                               "", text))  # fmt: skip

    return prepare


def _extended(shop: Workshop, patch: pytest.MonkeyPatch) -> None:
    """Somebody else's `hf compose`."""
    patch.setenv("HOME", str(shop.root))
    cli.main(["hf-extension", "install"])
    (manifest,) = shop.root.rglob("hf-compose/manifest.json")
    manifest.write_text(manifest.read_text().replace("adaptcompose.local", "somebody"))


BAD: dict[str, Prepare] = {
    "AC017": lambda shop, patch: (
        (shop.root / "old.compose").write_bytes(b"stack(lang=sw) # \xe9") and None  # type: ignore[func-returns-value]
    ),
    "AC404": lambda shop, patch: _served(shop, patch, Hub(gated={"demo/en"})),
    "AC405": _offline,
    "AC406": lambda shop, patch: (
        shop.hub.commit("demo/model", {"config.json": b"{}"}, message="test") and None  # type: ignore[func-returns-value]
    ),
    "AC407": lambda shop, patch: _config(
        shop, "en", "adapter_config.json", config={"architecture": "oft"}
    ),
    "AC408": lambda shop, patch: _config(shop, "en", "adapter_config.json", hidden_size=32),
    "AC409": _pickled,
    "AC410": _locked,
    "AC411": lambda shop, patch: _weights(shop, lambda data: data[:-1] + bytes([data[-1] ^ 1])),
    "AC413": lambda shop, patch: _weights(shop, lambda data: data[:-100]),
    "AC414": lambda shop, patch: _only(
        shop, "adapter_config.json", pytorch_adapter_bin=pickle.dumps({"x": Greeting()}, protocol=2)
    ),
    "AC415": lambda shop, patch: patch.setattr(hub_folder, "_write", _full),
    "AC416": _tagger(head_type="dependency_parsing"),
    "AC417": _fusion("fuse(glue/a, glue/b) | drop(bottom=1)"),
    "AC418": lambda shop, patch: _only(shop, "adapter_config.json"),
    "AC421": _write("hub_cards/lang/en.md", "nothing\n"),
    "AC423": _owned("other.yaml"),
    "AC424": _published,
    "AC425": lambda shop, patch: patch.setattr(report, "write_atomically", _full),
    "AC430": _refusing,
    "AC431": _pushed(Fault("POST .*/commit/", 412)),
    "AC434": _extended,
    "AC504": _foo,
    "AC506": _fusion("fuse(glue/a, glue/b, pfeiffer())"),
    "AC519": _choosing,
    "AC520": _halving,
    "AC608": _append("data/test.jsonl", '{"text": \n'),
    "AC614": _append("data/test.conll", "\nnairobi I-LOC\n"),
    "AC615": _without_pyarrow,
    "AC901": _write("long.compose", f"stack({'lang/sw, ' * 11000}lang/sw)"),
    "AC902": _write("deep.compose", "stack(" * 2000 + "lang/sw" + ")" * 2000),
    "AC432": _saved,
    "AC433": _saved,
    "AC904": _write(
        "doubling.compose",
        "let a0 = stack(lang/sw, lang/en); "
        + "".join(f"let a{n} = stack(a{n - 1}, a{n - 1}); " for n in range(1, 60))
        + "a59",
    ),
    "AC905": _write("wrong.compose", f"stack({', '.join(f'a{n}' for n in range(500))})"),
    "AC999": _breaking,
}
GOOD: dict[str, Prepare] = {
    "AC017": _write("short.compose", "stack(lang=sw) # é"),
    "AC404": lambda shop, patch: _served(shop, patch, Hub()),
    "AC405": lambda shop, patch: _served(shop, patch, Hub()),
    "AC416": _tagger(),
    "AC417": BAD["AC417"],
    "AC422": _published,
    "AC423": _owned("demo.yaml"),
    "AC424": _published,
    "AC426": _published,
    "AC430": lambda shop, patch: _served(shop, patch, Hub()),
    "AC431": _pushed(),
    "AC434": lambda shop, patch: patch.setenv("HOME", str(shop.root)),
    "AC432": _saved,
    "AC433": _saved,
    "AC506": _fusion("fuse(glue/a, glue/b)"),
    "AC518": lambda shop, patch: patch.setenv("XDG_CACHE_HOME", str(shop.root / "cache")),
    "AC519": _choosing,
    "AC901": _write("short.compose", "stack(lang/sw)"),
    "AC902": _write("short.compose", "stack(lang/sw)"),
    "AC904": _write("short.compose", "let a = lang/sw; let b = stack(a, a); stack(b, b)"),
    "AC905": _write("short.compose", "stack(lang/sw)"),
}


def sections(text: str) -> dict[str, str]:
    """The top-level keys of a spec with their text."""
    parts = re.split(r"(?m)^(?=\w)", text)
    return {part.partition(":")[0]: part for part in parts if part}


def spec_of(example: Example) -> str:
    """The usual spec with the sections of the example instead of its own."""
    own = sections(example.text.rstrip("\n") + "\n")
    if own.get("train") == "train:\n":
        return "".join((sections(SPEC) | own | {"train": ""}).values())
    return "".join((sections(SPEC) | own).values())


def execute(example: Example, shop: Workshop, prepare: Prepare | None,
            patch: pytest.MonkeyPatch) -> Iterator[int]:  # fmt: skip
    """Exit codes of the commands that the example means; what they say is on the streams."""
    (shop.root / "demo.yaml").write_text(spec_of(example) if example.kind == "spec" else SPEC)
    if prepare is not None:
        prepare(shop, patch)
    if example.kind == "shell":
        yield cli.main(shlex.split(example.text)[1:])
    elif example.kind == "python":
        names = {"ac": ac, "ids": torch.tensor([[0, 5, 2]])}
        try:
            exec(example.text, names)
            yield 0
        except ac.Failed as failed:
            print(failed)
            yield 1
    elif example.kind == "spec":
        yield cli.main(["check", "demo.yaml"])
        yield cli.main(["plan", "demo.yaml"])
    elif example.backbone:
        place = ["--backbone", example.backbone, "--hub", "./hub"]
        yield cli.main(["plan", example.text, *place])
    else:  # the text alone: the folders that it names need not be there
        print(*ac.check(example.text), sep="\n")
        yield 0


@contextmanager
def place_of(example: Example, shop: Workshop, tmp_path: Path) -> Iterator[None]:
    """Where an example runs: a bare expression sees the catalogue of the package alone."""
    empty = tmp_path / "empty"
    empty.mkdir()
    alone = example.kind == "expression" and not example.backbone
    with inside(empty if alone else shop.root):
        yield


def said(
    example: Example,
    prepare: Prepare | None,
    shop: Workshop,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> tuple[set[str], set[str], str]:
    """All codes, those of errors, and the whole output."""
    config = (shop.root / "base/config.json").read_bytes()
    shop.hub.commit("demo/base", {"config.json": config}, message="test")
    whole = ""
    with pytest.MonkeyPatch.context() as patch, place_of(example, shop, tmp_path):
        for _ in execute(example, shop, prepare, patch):
            output = capsys.readouterr()
            whole += output.out + output.err
            if "error[" in whole:
                break
    found = re.findall(r"(error|warning|note)\[(AC\d{3})\]", whole)
    return {code for _, code in found}, {code for kind, code in found if kind == "error"}, whole


@pytest.mark.parametrize("code", CODES)
def test_the_bad_example_causes_the_code(
    code: str, shop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = find_explanation(code)
    found, _, whole = said(page.bad, BAD.get(code), shop, tmp_path, capsys)
    assert code in found, whole
    assert "Traceback" not in whole


@pytest.mark.parametrize("code", CODES)
def test_the_good_example_is_fine(
    code: str, shop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = find_explanation(code)
    found, errors, whole = said(page.good, GOOD.get(code), shop, tmp_path, capsys)
    assert code not in found, whole
    assert not errors, whole


NO_STATE = ("AC424", "AC432", "AC433", "AC518")
"""What is prepared for these stands in their examples."""


def test_states_of_the_world_are_said() -> None:
    for code, page in load_explanations().items():
        assert bool(page.bad.when) == (code in BAD) or code in ("AC419", "AC432", "AC433"), code
        assert code not in GOOD or page.good.when or code in NO_STATE, code


def test_explain() -> None:
    run = CliRunner().invoke
    page = run(app, ["explain", "ac303"]).stdout
    assert page.rstrip("\n") == str(find_explanation("AC303"))
    assert run(app, ["explain", "303"]).stdout == page
    listed = run(app, ["explain"]).stdout.splitlines()
    assert [line.split()[0] for line in listed] == sorted(CODES)
    assert json.loads(run(app, ["explain", "AC303", "--format", "json"]).stdout)["code"] == "AC303"
    assert len(json.loads(run(app, ["explain", "--format", "json"]).stdout)) == len(CODES)


def test_an_unknown_code_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", "AC31O"]) == 2
    assert "did you mean `AC" in capsys.readouterr().err
