"""The command line: what it prints where, exit codes, and commands in processes of their own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from adaptcompose.cli import main as cli
from adaptcompose.cli.terminal import Terminal
from adaptcompose.diagnostics.codes import AC419
from adaptcompose.diagnostics.diagnostic import Failed
from tests.test_errors import SPEC
from tests.workshop import PATIENCE, Workshop, command, inside
from tests.workshop import call as here

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def call(
    shop: Workshop, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    with inside(shop.root):
        code = cli.main(list(arguments))
    output = capsys.readouterr()
    return code, output.out, output.err


def test_a_whole_story(shop: Workshop) -> None:
    """check, plan, run, predict, pull, predict; run and one predict in processes of their own."""
    shop.commit("demo/base", shop.root / "base")
    (shop.root / "demo.yaml").write_text(
        SPEC.replace("{model: ./base, as: demo/base}", "demo/base")
    )
    for line in ("check demo.yaml", "plan demo.yaml", "graph demo.yaml"):
        done = here(*line.split(), cwd=shop.root)
        assert (done.returncode, done.stderr) == (0, ""), line
        assert done.stdout
    done = command("run", "demo.yaml", cwd=shop.root)
    assert done.returncode == 0, done.stderr
    assert "Plan: 3 to create, 3 to load." in done.stdout
    assert done.stdout.splitlines()[-1] == "report: runs/demo/report.html"
    assert done.stderr.splitlines() == ["train seed 0", "evaluate 1 composition", "publish me/out"]
    said = []
    text = "amina sees mombasa"
    for how, target in (
        (command, "demo.yaml"),
        (here, "runs/demo"),
        (here, "me/out --hub ./hub"),
        (here, "me/out@main --hub ./hub"),
    ):
        done = how("predict", *target.split(), "--text", text, cwd=shop.root)
        assert (done.returncode, done.stderr) == (0, ""), target
        said.append(done.stdout)
    done = here("pull", "me/out", "--hub", "./hub", cwd=shop.root)
    assert (done.returncode, done.stdout) == (0, "pulled me/out into out\n")
    done = here("predict", "out", "-t", text, "--format", "json", cwd=shop.root)
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout)
    assert set(said) == {record["shown"] + "\n"}
    assert record["shown"] == f"{record['prediction']}\t{text}"


def test_an_interrupt_ends_with_130_and_the_same_command_goes_on(shop: Workshop) -> None:
    text = SPEC.replace("steps: 1", "steps: 4000, every: 50, keep: last")
    (shop.root / "demo.yaml").write_text(text)
    process = subprocess.Popen(
        [sys.executable, "-m", "adaptcompose", "run", "demo.yaml"],
        cwd=shop.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + PATIENCE
    while not list(shop.root.glob("runs/demo/seed-0/checkpoint-*")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "interrupted; run the same command again to continue"
    assert "Traceback" not in err
    steps = [int(p.name.split("-")[1]) for p in shop.root.glob("runs/demo/seed-0/checkpoint-*")]
    assert steps, "the step that was interrupted is saved"
    assert not (shop.root / "hub/me").exists()


def test_json_is_one_document(shop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    (shop.root / "demo.yaml").write_text(SPEC)
    code, out, err = call(shop, capsys, "run", "demo.yaml", "--format", "json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report["published"]["repo"] == "me/out"
    assert report == json.loads((shop.root / "runs/demo/report.json").read_text())
    code, out, _ = call(shop, capsys, "plan", "demo.yaml", "--format", "json")
    assert json.loads(out)["parameters"] == report["plan"]["parameters"]
    code, out, _ = call(shop, capsys, "check", "stak(x)", "--format", "json")
    assert code == 1
    (found,) = json.loads(out)
    assert (found["code"], found["line"], found["column"]) == ("AC101", 1, 1)
    code, out, _ = call(shop, capsys, "check", "stak(x)", "--format", "github")
    assert out.startswith("::error ")


def test_quiet_prints_the_report_only(shop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    (shop.root / "demo.yaml").write_text(SPEC)
    code, out, err = call(shop, capsys, "run", "demo.yaml", "--quiet")
    assert (code, err) == (0, "")
    published, report = out.splitlines()
    assert published.startswith("published me/out@")
    assert report == "report: runs/demo/report.html"


def test_expressions_come_from_files_and_from_stdin(
    shop: Workshop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    (shop.root / "x.compose").write_text("stack(a |\n  drop(botom=1))")
    code, out, _ = call(shop, capsys, "check", "x.compose")
    assert (code, "x.compose:2:8" in out) == (1, True), out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"none")))
    assert call(shop, capsys, "check", "-")[:2] == (0, "fine\n")
    assert call(shop, capsys, "check", "-q")[0] == 2  # an option, and nothing to check
    code, _, err = call(shop, capsys, "graph", "y.compose")
    assert (code, "error[AC607]: the file `y.compose` does not exist" in err) == (1, True)


def test_exit_codes_are_those_of_the_help(
    shop: Workshop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = call(shop, capsys, "--help")
    assert code == 0
    for number in (
        "0 success",
        "1 problems",
        "2 wrong usage",
        "3 the hub",
        "4 a run",
        "130 interrupted",
    ):
        assert number in " ".join(out.split())
    assert call(shop, capsys, "--version")[0] == 0
    assert call(shop, capsys, "chek", "x")[0] == 2
    assert call(shop, capsys, "check")[0] == 2

    def offline(*given: Any, **rest: Any) -> Any:
        raise Failed(AC419.at(hub="hf", why="no route"))

    monkeypatch.setattr("adaptcompose.resolution.sources.open_store", offline)
    code, _, err = call(shop, capsys, "plan", "stack(a/b)", "--backbone", "c/d")
    assert (code, "AC419" in err) == (3, True)


class Tty:
    """A stream that says it is a terminal, or is none."""

    def __init__(self, tty: bool) -> None:
        self.tty, self.text = tty, ""

    def isatty(self) -> bool:
        return self.tty

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


@pytest.mark.parametrize("tty", [True, False])
def test_progress_is_one_line_on_a_terminal_and_none_elsewhere(
    tty: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Tty(tty)
    monkeypatch.setattr(sys, "stderr", stream)
    terminal = Terminal()
    terminal.stage("train", "seed 0")
    for step in (1, 2):
        terminal.event({"event": "loss", "loss": 0.5, "step": step})
        terminal.event({"event": "step", "step": step, "steps": 2})
    terminal.event({"event": "score", "metric": "f1", "score": None})
    terminal.close()
    if tty:
        assert stream.text == (
            "train seed 0\n\r\x1b[2K  step 1/2  loss 0.500\r\x1b[2K  step 2/2  loss 0.500\n"
        )
    else:
        assert stream.text == "train seed 0\n"


def test_a_terminal_may_close_its_error_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    terminal = Terminal()
    terminal.stage("train")
    terminal.event({"event": "step", "step": 1, "steps": 2})
    terminal.close()


def test_what_is_cut_off_by_a_reader_ends_as_sigpipe_does() -> None:
    command = f"set -o pipefail; {sys.executable} -m adaptcompose schema | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("{", "", 141)


def test_an_option_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    command = [sys.executable, "-m", "adaptcompose", "--color", "always", "check", "stack("]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "\x1b[" in done.stdout + done.stderr
