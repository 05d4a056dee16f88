"""Whatever is typed, piped in or lies in a file: a short printable answer, and no traceback."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adaptcompose.cli import main as cli
from tests.workshop import inside

EXPRESSIONS = ["", " ", "\0", "a\0b", "\ud800", "stack(a\udcff)", "\u202estack(a)", "e\u0301"]
EXPRESSIONS += [
    "\ufeffstack(lang=sw)",
    "stack(\u200flang=sw)",
    "stack(lang=sw)\x1b[2J",
    "lang/sw\r\n",
]
EXPRESSIONS += ["ﬁ/x", "語/中", "-", "--", "..", "./.", "/", "~", "~nobody/x", "'~nobody/x'", "''"]
EXPRESSIONS += [
    "' '",
    "'\\u0000'",
    "'\\n'",
    f"'{'x' * 5000}'",
    f"./{'x' * 5000}",
    f"u/{'r' * 5000}",
]
EXPRESSIONS += [
    f"u/r@{'a' * 5000}",
    "a" * 70_000,
    "(" * 3000,
    "*",
    "?",
    "{a}",
    "fuse(*)",
    "fuse(*/*)",
]
EXPRESSIONS += [
    "fuse(**)",
    "hf://",
    "hf:///",
    f"a/b@refs/pr/{'9' * 40}",
    "none | none",
    "lang/sw@..",
]
EXPRESSIONS += ["average(lang/sw:1e308, lang/en:1e308)", "average(lang/sw:1e-320, lang/en:1)"]
EXPRESSIONS += ["lang/sw | scale(by=1e308)", "lang/sw | drop(bottom=999999999999999999)"]
EXPRESSIONS += ["lang/sw | drop(layers=0..999999999999999999)", "pfeiffer(reduction=1e300)"]
EXPRESSIONS += [
    "split(lang/sw, lang/en, at=[5, 3])",
    "split(none, none, at=-5)",
    "lang/sw | train()",
]
EXPRESSIONS += [
    "let let = lang/sw; stack(let)",
    "none | swap(lang=none)",
    "parallel(a=none, b=none)",
]
EXPRESSIONS += ["route(a=none)", "merge(lang/sw:-1e308)", f"pfeiffer(reduction=[{'1, ' * 999}1])"]


FILES: dict[str, bytes] = {
    "mark.compose": b"\xef\xbb\xbfstack(lang=sw)",
    "latin.compose": b"stack(lang=\xe9)",
    "wide.compose": "stack(lang=sw)".encode("utf-16"),
    "zero.compose": b"stack(\0)",
    "empty.compose": b"",
    "large.compose": b"a" * 3_000_000,
    "empty.yaml": b"",
    "null.yaml": b"null",
    "list.yaml": b"- a",
    "zero.yaml": b"spec: 1\0",
    "latin.yaml": b"spec: \xe9",
    "wide.yaml": "spec: 1".encode("utf-16"),
    "deep.yaml": b"a: " + b"[" * 100_000,
    "maps.yaml": b"{a: " * 5_000,
    "bomb.yaml": b"a: &a [x, x]\nb: &b [*a, *a]",
    "large.yaml": b"a: " + b"x" * 2_000_000,
    "digits.yaml": b"spec: " + b"9" * 5_000,
    "tag.yaml": b"spec: !!python/object/apply:os.system [id]",
    "moved.yaml": b'spec: 1\nname: "\\u202e\\e[2J"\nbackbone: x\ncompose: none\n',
    "up.yaml": b"spec: 1\nname: ../../x\nbackbone: x/y\nhub: ./hub\ncompose: none\n",
    "long.yaml": b"spec: 1\nname: x\nbackbone: x/y\nhub: " + b"h" * 5_000 + b"\ncompose: none\n",
    "device.yaml": b"spec: 1\nname: x\nbackbone: /dev/null\nhub: ./hub\ncompose: none\n",
    "path.yaml": b"spec: 1\nname: x\nbackbone: ./b\ncompose: \"stack('a\\\\u0000b')\"\n",
    "data.yaml": b"spec: 1\nname: x\nbackbone: ./b\nhub: ./hub\ncompose: none\n"
    b"data: {d: {files: {train: " + b"f" * 5_000 + b".jsonl}}}\n",
    "sweep.yaml": b"spec: 1\nname: x\nbackbone: ./b\nhub: ./hub\ncompose: none\nevaluate:\n"
    b"- {each: {a: ["
    + b"1, " * 999
    + b"1], b: ["
    + b"1, " * 999
    + b"1]}, name: '${a}${b}', data: d}\n",
    "labels.yaml": b"spec: 1\nname: x\nbackbone: ./b\nhub: ./hub\ncompose: none\n"
    b"task: {kind: text-classification, labels: ["
    + b", ".join(b"l%d" % n for n in range(20_000))
    + b"]}\n",
}


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


ODD: dict[str, Callable[[Path], object]] = {
    "folder.compose": Path.mkdir,
    "folder.yaml": Path.mkdir,
    "loop.compose": _loop,
    "loop.yaml": _loop,
    "dangling.yaml": lambda path: path.symlink_to("/nowhere/x"),
    "pipe.yaml": os.mkfifo,
    "pipe.compose": os.mkfifo,
    "missing.yaml": lambda path: None,
    f"{'x' * 300}.yaml": lambda path: None,
    "zero\0.yaml": lambda path: None,
}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    with inside(tmp_path):
        yield tmp_path


def answer(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code and all output, which is short, printable and no confession."""
    code = cli.main(arguments)
    output = capsys.readouterr()
    text = output.out + output.err
    assert code in (0, 1, 2, 3), text
    assert "AC999" not in text
    assert "Traceback" not in text
    assert len(text) < 120_000
    assert all(char.isprintable() or char in "\n\t" for char in text), ascii(text)
    return code, text


@pytest.mark.parametrize("text", EXPRESSIONS, ids=lambda text: ascii(text)[:40])
@pytest.mark.parametrize("command", ["check", "graph"])
def test_an_expression(
    text: str, command: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer([command, text], capsys)


@pytest.mark.parametrize("name", FILES)
def test_a_file(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / name).write_bytes(FILES[name])
    code, text = answer(["check", name], capsys)
    assert (code, "error[AC" in text) == ((0, False) if name == "mark.compose" else (1, True))
    for command in ("plan", "lock", "fmt") if name.endswith(".yaml") else ("graph", "fmt"):
        answer([command, name], capsys)


def test_an_address(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = "spec: 1\nname: x\nbackbone: x/y\nhub: 'http://[::1'\ncompose: none\n"
    (place / "demo.yaml").write_text(spec)
    for command in ("check", "plan", "lock"):  # check asks no hub on another machine
        code, text = answer([command, "demo.yaml"], capsys)
        assert (code, "AC419" in text) == ((0, False) if command == "check" else (3, True))


@pytest.mark.parametrize("name", ODD, ids=lambda name: ascii(name)[:30])
def test_what_is_no_file(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ODD[name](place / name)
    code, text = answer(["check", name], capsys)
    assert code == 1
    assert "error[AC" in text


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"stack(\0)", b"\xef\xbb\xbflang/sw"])
def test_what_is_piped_in(
    content: bytes, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    code, _ = answer(["check", "-"], capsys)
    assert code == (0 if content.endswith(b"sw") else 1)


CONFIG = {"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 2, "vocab_size": 9}
CONFIG |= {"intermediate_size": 8, "max_position_embeddings": 9, "type_vocab_size": 1}

CARDS = {
    "nothing": b"",
    "zero": b"\0",
    "latin": b"---\n\xe9\n---\n",
    "deep": b"---\na: " + b"[" * 9999 + b"\n---\n",
    "list": b"---\n- a\n---\n",
    "variants": b"---\ntitle: x\nvariants: 5\n---\n",
    "repo": b"---\ntitle: x\nvariants: {a/b: {default: {repo: '../../etc'}}}\n---\n",
    "none": b"---\ntitle: x\nvariants: {a/b: {default: {}}}\n---\n",
}


@pytest.mark.parametrize("name", CARDS)
def test_a_card(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "hub_cards/odd").mkdir(parents=True)
    (place / "hub_cards/odd/card.md").write_bytes(CARDS[name])
    (place / "hub/a/b").mkdir(parents=True)
    (place / "demo.yaml").write_text(
        "spec: 1\nname: x\nbackbone: {model: ./base, as: a/b}\nhub: ./hub\ncompose: odd/card\n"
    )
    (place / "base").mkdir()
    (place / "base/config.json").write_text(json.dumps(CONFIG))
    code, text = answer(["check", "demo.yaml"], capsys)
    assert code == 1
    assert "error[AC" in text


@pytest.mark.parametrize("word", ["folder", "loop"])
def test_a_card_that_is_no_file(word: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cards = place / "hub_cards/odd"
    cards.mkdir(parents=True)
    (cards / "card.md").symlink_to("card.md") if word == "loop" else (cards / "card.md").mkdir()
    from adaptcompose.cli.inputs import check_target

    code, text = answer(["check", "odd/card"], capsys)
    assert code == 1
    assert "AC103" in text
    assert check_target("odd/card")


CONFIGS = [b"", b"\0", b"[]", b"{", b"[" * 100_000, b'{"model_type": 5}', b'{"model_type": "bert"}']
ODD_SIZES = [{"hidden_size": size} for size in ("x", -1, 0, None, 1.5, True, [8], 10**30)]
ODD_SIZES += [{"num_hidden_layers": 10**12}, {"vocab_size": "x"}, {"vocab_size": -(10**9)}]
CONFIGS += [json.dumps(CONFIG | sizes).encode() for sizes in ODD_SIZES]
CONFIGS += [json.dumps({k: v for k, v in CONFIG.items() if k != name}).encode() for name in CONFIG]


@pytest.mark.parametrize("content", CONFIGS, ids=lambda content: ascii(content)[:30])
def test_a_config_of_a_backbone(
    content: bytes, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "base").mkdir()
    (place / "base/config.json").write_bytes(content)
    code, text = answer(["plan", "none", "--backbone", "./base", "--hub", "./hub"], capsys)
    assert code == 1
    assert "error[AC" in text
