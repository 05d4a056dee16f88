"""The commands that write, resolve and maintain: what they print, write and answer."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import adaptcompose as ac
from adaptcompose.cli import main as cli
from adaptcompose.cli.terminal import has_colour, style_for
from adaptcompose.diagnostics.style import ANSI, PLAIN
from adaptcompose.experiment.prepare.preparer import prepare_runs
from adaptcompose.experiment.spec.schema import MODELINE
from adaptcompose.experiment.spec.spec import read_specs
from adaptcompose.hub.lock import Lock
from adaptcompose.storage.yaml_source import load_yaml
from tests.test_errors import SPEC
from tests.workshop import Workshop, command, inside

ROOT = Path(__file__).parents[1]
LINE = "stack(lang=sw, task=ner) | fuse(glue/*) | drop(bottom=5)"
Captured = pytest.CaptureFixture[str]


def call(root: Path, capsys: Captured, *arguments: str) -> tuple[int, str, str]:
    with inside(root):
        code = cli.main(list(arguments))
    output = capsys.readouterr()
    return code, output.out, output.err


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A folder of which only config.json is there."""
    sizes = {"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072}
    more = {"vocab_size": 30522, "max_position_embeddings": 512, "type_vocab_size": 2}
    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"} | sizes | more))
    return folder


def test_a_plan_needs_config_json_alone(config: Path, capsys: Captured) -> None:
    text = "let new = pfeiffer(reduction=16); new"
    arguments = ("plan", text, "--backbone", str(config), "--format", "json")
    code, out, err = call(config, capsys, *arguments)
    assert (code, err) == (0, "")
    found = json.loads(out)["parameters"]
    trained = 12 * (2 * 768 * 48 + 48 + 768)
    assert (found["trained"], found["total"]) == (trained, 109_482_240 + trained)


@pytest.mark.parametrize(
    "line",
    [
        ("fmt", LINE),
        ("graph", LINE, "--svg"),
        ("plan", "examples/quickstart.yaml"),
        ("graph", "examples/quickstart.yaml", "--mermaid"),
        ("lock", "--check", "examples/quickstart.yaml"),
        ("explain", "fuse"),
        ("schema",),
    ],
    ids=lambda line: line[0],
)
def test_what_only_reads_texts_and_headers_needs_no_torch(line: tuple[str, ...]) -> None:
    script = (
        "import sys; from adaptcompose.cli import main as cli; code = cli.main(sys.argv[1:]);"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *line], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    heavy = {"torch", "transformers", "huggingface_hub", "rich", "numpy", "safetensors", "jinja2"}
    assert not heavy & set(done.stderr.split())


def test_fmt_prints_expressions_and_rewrites_files(tmp_path: Path, capsys: Captured) -> None:
    raw = "stack( lang=sw,task=ner )|drop( bottom=5 )"
    assert call(tmp_path, capsys, "fmt", raw)[1] == "stack(lang=sw, task=ner) | drop(bottom=5)\n"
    assert call(tmp_path, capsys, "fmt", "--yaml", '"./a b"')[1] == "'\"./a b\"'\n"
    path = tmp_path / "x.compose"
    path.write_text(f"# a line\n{raw}")
    code, out, _ = call(tmp_path, capsys, "fmt", "--check", "x.compose")
    assert (code, out) == (1, "x.compose would change\n")
    code, out, err = call(tmp_path, capsys, "fmt", "x.compose")
    assert (code, out, err) == (0, "", "x.compose rewritten\n")
    assert path.read_text() == "# a line\nstack(lang=sw, task=ner) | drop(bottom=5)\n"
    assert call(tmp_path, capsys, "fmt", "--check", "x.compose") == (0, "", "")
    code, _, err = call(tmp_path, capsys, "fmt", "stack(a")
    assert (code, "AC004" in err) == (1, True)


def test_fmt_goes_on_behind_a_bad_file(tmp_path: Path, capsys: Captured) -> None:
    for name, text in (("a", "stack(a"), ("b", "x/y|z/w"), ("d", "stack(,)")):
        (tmp_path / f"{name}.compose").write_text(text)
    names = [f"{name}.compose" for name in "abcd"]
    code, out, err = call(tmp_path, capsys, "fmt", "--check", *names)
    assert (code, out) == (1, "b.compose would change\n")
    code, out, err = call(tmp_path, capsys, "fmt", *names)
    assert (code, out) == (1, "")
    assert (tmp_path / "b.compose").read_text() == "x/y | z/w\n"
    assert re.findall(r"error\[\w+\]", err) == ["error[AC004]", "error[AC013]", "error[AC607]"]


def test_fmt_keeps_the_line_ends_of_a_file(tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "x.compose"
    path.write_bytes(b"stack( a )# one\r\n| drop( top=1 )\r\n")
    assert call(tmp_path, capsys, "fmt", "x.compose")[0] == 0
    assert path.read_bytes() == b"stack(a)  # one\r\n  | drop(top=1)\r\n"


def test_fmt_touches_only_the_expressions_of_a_spec(tmp_path: Path, capsys: Captured) -> None:
    text = (
        "spec: 1   # one\nname: x\nadapters: {new: pfeiffer( reduction=4 )}\n"
        "compose: |\n  stack(a,b)   # low\n    |drop( bottom=1 )\n"
        "evaluate:\n- {each: {n: [1]}, pipe: 'drop( bottom=${n} )', name: '  as  is'}\n"
        'publish: {pipe: "swap(lang = none)"}\n'
    )
    (tmp_path / "x.yaml").write_text(text)
    assert call(tmp_path, capsys, "fmt", "x.yaml")[0] == 0
    assert (tmp_path / "x.yaml").read_text() == (
        "spec: 1   # one\nname: x\nadapters: {new: pfeiffer(reduction=4)}\n"
        "compose: |\n  stack(a, b)  # low\n    | drop(bottom=1)\n"
        "evaluate:\n- {each: {n: [1]}, pipe: 'drop( bottom=${n} )', name: '  as  is'}\n"
        'publish: {pipe: "swap(lang=none)"}\n'
    )


def test_the_examples_are_formatted(capsys: Captured) -> None:
    specs = [str(path) for path in (ROOT / "examples").rglob("*.yaml")]
    assert specs
    assert call(ROOT, capsys, "fmt", "--check", *specs) == (0, "", "")


def test_graph_draws_in_four_forms(capsys: Captured, tmp_path: Path) -> None:
    code, out, _ = call(ROOT, capsys, "graph", LINE)
    assert (code, "─▶│ + fuse │─▶ h" in out) == (0, True)
    assert call(ROOT, capsys, "graph", LINE, "--mermaid")[1].startswith("flowchart LR\n")
    out = call(ROOT, capsys, "graph", LINE, "--dot")[1]
    nodes = dict(re.findall(r'^ *(\w+) \[label="([^"]*)"', out, re.M))
    edges = re.findall(r"(\w+) -> (\w+);", out)
    assert {one for edge in edges for one in edge} <= nodes.keys()
    fuse = next(name for name, text in nodes.items() if text == "+ fuse")
    assert sum(end == fuse for _, end in edges) == 8
    picture = tmp_path / "x.svg"
    assert call(ROOT, capsys, "graph", LINE, "--svg", "-o", str(picture)) == (0, "", "")
    root = ElementTree.parse(picture).getroot()
    assert root.get("aria-label", "").startswith("stack(lang=lang/sw, task=task/ner")
    words = ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"= lang/sw", "lang", "= glue/stsb", "+ fuse", "drop(bottom=5)"} <= set(words)
    assert call(ROOT, capsys, "graph", LINE, "--dot", "--svg")[0] == 2


def test_svg_takes_any_name(capsys: Captured) -> None:
    text = """stack("./a <b> & 'c'", "./\x01")"""
    out = call(ROOT, capsys, "graph", text, "--svg")[1]
    assert any("a <b> & 'c'" in "".join(one.itertext()) for one in ElementTree.fromstring(out))


def test_graph_shows_one_layer(config: Path, capsys: Captured) -> None:
    text = "let a = pfeiffer(); let b = pfeiffer(); stack(a | drop(bottom=5), b | keep(bottom=5))"
    base = ("--backbone", str(config))
    low = call(ROOT, capsys, "graph", text, *base, "--layer", "2")[1]
    high = call(ROOT, capsys, "graph", text, *base, "--layer", "7")[1]
    assert ("+ b" in low, "+ a" in low) == (True, False)
    assert ("+ b" in high, "+ a" in high) == (False, True)
    code, _, err = call(ROOT, capsys, "graph", text, *base, "--layer", "12")
    assert (code, "layers are 0..11" in err) == (2, True)


def test_schema_goes_to_a_file_that_can_be_checked(tmp_path: Path, capsys: Captured) -> None:
    code, out, _ = call(tmp_path, capsys, "schema")
    assert code == 0
    assert json.loads(out)["required"] == ["spec", "name", "backbone", "compose"]
    assert call(tmp_path, capsys, "schema", "-o", "s.json")[0] == 0
    assert (tmp_path / "s.json").read_text() == out
    assert call(tmp_path, capsys, "schema", "-o", "s.json", "--check") == (0, "", "")
    (tmp_path / "s.json").write_text("{}")
    assert call(tmp_path, capsys, "schema", "-o", "s.json", "--check")[0] == 1


def test_examples_name_their_schema() -> None:
    for path in (ROOT / "examples").glob("*.yaml"):
        assert path.read_text("utf-8").splitlines()[0] == MODELINE, path.name
    assert (ROOT / "examples" / "spec.schema.json").is_file()


def test_new_writes_a_spec_that_is_read(workshop: Workshop, capsys: Captured) -> None:
    root = workshop.root
    arguments = ("new", "first-try", "--backbone", "./base", "--hub", "./hub")
    data = ("--train", "data/train.jsonl", "--test", "data/test.jsonl")
    compose = ("--compose", "stack(./x, task=pfeiffer( reduction=4 ))")
    code, out, err = call(
        root, capsys, *arguments, *data, *compose, "--task", "text-classification"
    )
    assert (code, out, err) == (0, "first-try.yaml written\n", "")
    path = root / "first-try.yaml"
    spec = read_specs(path)[0]
    assert spec.compose.text == "stack(./x, task=pfeiffer(reduction=4))"
    assert spec.train is not None
    assert spec.evaluate
    assert path.read_text().splitlines()[0] == MODELINE
    assert (root / "spec.schema.json").is_file()
    code, _, err = call(root, capsys, *arguments)
    assert (code, "AC422" in err) == (1, True)
    assert call(root, capsys, "new", "Not A Name")[0] == 2
    assert call(root, capsys, "new", "x", "--task", "guessing")[0] == 2
    for name in ("first-try.yaml", "spec.schema.json"):
        (root / name).unlink()


def test_new_goes_on_with_what_was_published(shop: Workshop, capsys: Captured) -> None:
    root = shop.root
    with inside(root):
        model = ac.compose(
            "stack(lang=demo/sw, task=demo/ner)",
            "./base",
            hub="./hub",
        )
        ac.push(model, "me/ner", hub=str(root / "hub"))
    arguments = ("new", "next", "--from", "me/ner", "--hub", "./hub", "--backbone", "./base")
    data = ("--test", "data/test.conll", "--task", "token-classification")
    assert call(root, capsys, *arguments, *data)[0] == 0
    spec = read_specs(root / "next.yaml")[0]
    assert spec.compose.text == "me/ner"
    assert re.search(
        r"^# published as stack\(lang=demo/sw@", (root / "next.yaml").read_text(), re.M
    )
    assert spec.backbone.model == "./base"
    assert call(root, capsys, "check", "next.yaml")[0] == 0
    (row,) = prepare_runs((spec,), root / "next.yaml")[0].rows
    assert row.section.name == "as trained"
    code, _, err = call(root, capsys, "new", "x", "--from", "demo/ner", "--hub", "./hub")
    assert (code, "AC426" in err) == (1, True)


@pytest.mark.parametrize("words", [("--offline", "plan"), ("plan", "--offline")])
def test_offline_asks_for_nothing(tmp_path: Path, words: tuple[str, ...]) -> None:
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    done = command(*words, "me/x", "--backbone", "me/base", cwd=tmp_path, environment=nowhere)
    assert (done.returncode, done.stdout) == (3, "")
    assert "AC405" in done.stderr


def test_behind_two_dashes_offline_is_a_word_like_any(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert call(tmp_path, capsys, "fmt", "--", "--offline") == (0, "--offline\n", "")
    assert "HF_HUB_OFFLINE" not in os.environ


def test_new_alone_is_a_start(tmp_path: Path, capsys: Captured) -> None:
    assert call(tmp_path, capsys, "new", "x", "--quiet") == (0, "", "")
    spec = read_specs(tmp_path / "x.yaml")[0]
    assert (spec.name, spec.train, spec.evaluate) == ("x", None, ())
    # what stands in comments is YAML once they are gone
    text = re.sub(r"^# (?!yaml-)", "", (tmp_path / "x.yaml").read_text(), flags=re.M)
    assert load_yaml(text)["evaluate"] == [{"name": "as trained", "data": "examples"}]


@pytest.mark.slow
def test_doctor_says_what_works(workshop: Workshop, capsys: Captured) -> None:
    code, out, err = call(workshop.root, capsys, "doctor", "--hub", "./hub", "--format", "json")
    assert (code, err) == (0, "")
    found = {one["name"]: one for one in json.loads(out)}
    assert found["torch"]["section"] == "versions"
    assert re.fullmatch(r"\d+ repositories", found["./hub"]["told"])
    assert "agree" in found["a small composition"]["told"]
    code, out, _ = call(workshop.root, capsys, "doctor", "--hub", "./nowhere")
    assert (code, "./nowhere  the folder does not exist" in out) == (3, True)


def test_lock_pins_keeps_and_upgrades(shop: Workshop, capsys: Captured) -> None:
    spec, path = shop.root / "demo.yaml", shop.root / "demo.lock"
    spec.write_text(SPEC)
    code, _, err = call(shop.root, capsys, "lock", "--check", "demo.yaml")
    assert (code, "AC607" in err, "adaptcompose lock demo.yaml" in err) == (1, True, True)
    assert call(shop.root, capsys, "run", "--locked", "demo.yaml")[0] == 1
    assert call(shop.root, capsys, "lock", "demo.yaml") == (0, "demo.lock written\n", "")
    assert call(shop.root, capsys, "lock", "--check", "demo.yaml")[0] == 0
    first = Lock.load(path)
    assert call(shop.root, capsys, "lock", "demo.yaml")[1] == "demo.lock is unchanged\n"

    for name in ("en", "glue-a"):  # newer revisions of two adapters
        shop.publish(f"demo/{name}", "pfeiffer(reduction=2)", 77, head=None)
    assert call(shop.root, capsys, "lock", "--check", "demo.yaml")[0] == 0
    spec.write_text(SPEC.replace(" | drop(bottom=1)", ""))
    code, _, err = call(shop.root, capsys, "lock", "--check", "demo.yaml")
    assert (code, "AC410" in err, "adaptcompose lock demo.yaml" in err) == (1, True, True)
    code, out, _ = call(shop.root, capsys, "lock", "demo.yaml")
    assert out.splitlines()[-1] == "demo.lock written"
    kept = Lock.load(path)
    assert first is not None
    assert kept is not None
    assert kept.adapters == first.adapters

    code, out, _ = call(shop.root, capsys, "lock", "demo.yaml", "--upgrade", "lang/en")
    assert out.startswith("~ `lang/en` (revision")
    one = Lock.load(path)
    assert one is not None
    changed = [name for name in one.adapters if one.adapters[name] != first.adapters[name]]
    assert changed == ["lang/en"]
    call(shop.root, capsys, "lock", "demo.yaml", "--upgrade")
    both = Lock.load(path)
    assert both is not None
    assert both.adapters["glue/a"] != first.adapters["glue/a"]
    assert call(shop.root, capsys, "lock", "demo.yaml", "lang/en")[0] == 2
    assert call(shop.root, capsys, "lock", "demo.yaml", "--upgrade", "lang/xx")[0] == 2


def test_set_changes_keys_with_the_errors_of_the_file(shop: Workshop, capsys: Captured) -> None:
    (shop.root / "demo.yaml").write_text(SPEC)
    fine = ("--set", "train.lr=5e-5", "--set", "evaluate[0].name=other", "--set", "train.seeds=[3]")
    assert call(shop.root, capsys, "check", "demo.yaml", *fine)[:2] == (0, "fine\n")
    code, out, _ = call(
        shop.root, capsys, "check", "demo.yaml", "--set", "train.lr=fast", "--set", "train.epoch=1"
    )
    assert code == 1
    assert out == (
        "error[AC601]: `train` has no key `epoch`\n"
        "  --> --set:1:7\n  |\n1 | train.epoch=1\n  |       ^^^^^\n"
        "  = help: did you mean `epochs`?\n\n"
        "error[AC605]: `train.lr` must be a number above 0, but is `fast`\n"
        "  --> --set:1:10\n  |\n1 | train.lr=fast\n  |          ^^^^\n"
    )
    smaller = (
        "--set",
        "compose=stack(lang=en, task=new)",
        "--set",
        "evaluate[0].pipe=swap(lang=b)",
    )
    code, out, _ = call(shop.root, capsys, "check", "demo.yaml", *smaller)
    assert (code, "--set:1:28" in out) == (1, True), out
    assert call(shop.root, capsys, "check", "stack(./a)", "--set", "train.lr=1")[0] == 2
    assert "AC605" in call(shop.root, capsys, "plan", "demo.yaml", "--set", "lr")[2]


def test_a_backbone_without_a_name_is_a_mistake(tmp_path: Path, capsys: Captured) -> None:
    code, _, err = call(tmp_path, capsys, "plan", "none", "--backbone", "")
    assert code == 1 and "AC109" in err


def test_what_is_set_is_not_locked(shop: Workshop, capsys: Captured) -> None:
    (shop.root / "demo.yaml").write_text(SPEC)
    call(shop.root, capsys, "lock", "demo.yaml")
    before = (shop.root / "demo.lock").read_bytes()
    arguments = ("plan", "demo.yaml", "--format", "json")
    code, out, _ = call(shop.root, capsys, *arguments, "--set", "compose=stack(lang=sw, task=new)")
    assert code == 0
    assert [one["name"] for one in json.loads(out)["items"][:2]] == ["lang/sw", "new"]
    assert (shop.root / "demo.lock").read_bytes() == before


@pytest.mark.slow
def test_a_plan_says_what_changed_since_the_last_run(shop: Workshop, capsys: Captured) -> None:
    (shop.root / "demo.yaml").write_text(SPEC)
    exact = ("plan", "demo.yaml", "--detailed-exitcode")
    assert call(shop.root, capsys, *exact)[0] == 5
    assert call(shop.root, capsys, "run", "demo.yaml", "--quiet")[0] == 0
    code, out, _ = call(shop.root, capsys, *exact)
    assert (code, out.splitlines()[-1]) == (0, "  no changes")
    wider = ("--set", "adapters.new=pfeiffer(reduction=2)", "--set", "publish=")
    code, out, _ = call(shop.root, capsys, *exact, *wider)
    assert code == 5
    assert "~ new  method bottleneck(reduction=4) to bottleneck(reduction=2)" in out
    code, out, _ = call(shop.root, capsys, *exact, "--set", "compose=fuse(glue/*)")
    assert {"  - lang/en", "  - new"} <= set(out.splitlines())
    assert (
        call(shop.root, capsys, "plan", "none", "--detailed-exitcode", "--backbone", "base")[0] == 2
    )


class Stream:
    def __init__(self, tty: bool) -> None:
        self.tty = tty

    def isatty(self) -> bool:
        return self.tty


def test_colours_follow_terminal_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert style_for(Stream(True)) is ANSI
    assert style_for(Stream(False)) is PLAIN
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert has_colour(Stream(False))
    monkeypatch.setenv("NO_COLOR", "1")
    assert style_for(Stream(True)) is PLAIN


def test_help_has_the_commands_in_groups(capsys: Captured) -> None:
    out = call(ROOT, capsys, "--help")[1]
    places = [
        out.index(f"\n{name}:\n") for name in ("write", "resolve", "run", "share", "maintain")
    ]
    assert places == sorted(places)
    assert "\nmore:\n" not in out
    for name in ("new", "check", "fmt", "graph", "explain", "schema", "lock", "plan", "doctor"):
        assert re.search(rf"^  {name} +\w", out, re.M), name


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("stack(lang=sw) | dr", ["stack(lang=sw) | drop(bottom=", "stack(lang=sw) | drop(layers="]),
        ("fuse(glue/m", ["fuse(glue/mnli", "fuse(glue/mrpc"]),
        ("fuse(glue/*, query=", ["fuse(glue/*, query=after", "fuse(glue/*, query=before"]),
        ("stack(lang=swx", []),
        ("nothing(", []),
    ],
)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_inside_a_quoted_expression(
    shell: str, typed: str, expected: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    line = f"adaptcompose check '{typed}"
    monkeypatch.setenv("_ADAPTCOMPOSE_COMPLETE", f"complete_{shell}")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", "2")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    out = call(ROOT, capsys)[1]
    for text in expected:
        assert text in out, (shell, out)
    assert bool(expected) or "stack(" not in out


def test_keys_and_files_are_completed(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured, tmp_path: Path
) -> None:
    (tmp_path / "one.yaml").write_text("")
    monkeypatch.setenv("_ADAPTCOMPOSE_COMPLETE", "complete_bash")

    def offered(*words: str) -> list[str]:
        monkeypatch.setenv("COMP_WORDS", "\n".join(("adaptcompose", *words)))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        return call(tmp_path, capsys)[1].split()

    assert offered("run", "o") == ["one.yaml"]
    assert offered("plan", "one.yaml", "--set", "train.w") == [
        "train.warmup=",
        "train.weight_decay=",
    ]
    assert "train.keep=best" in offered("plan", "one.yaml", "--set", "train.keep=")
    assert offered("explain", "AC30")[:2] == ["AC301", "AC302"]
    assert offered("fm") == ["fmt"]
