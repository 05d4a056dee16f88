"""The benchmark: all of it on a tiny shape with us alone, and what it says of its figures."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.workshop import PATIENCE

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
FAMILIES = {"base", "fuse", "drop", "parallel", "route", "attach"}

Load = Callable[[str], Any]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """A module of the benchmark; they import each other by their bare names."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for path in BENCHMARKS.glob("*.py"):  # other scripts have a `cases` too
        monkeypatch.delitem(sys.modules, path.stem, raising=False)
    return importlib.import_module


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with one round, without peers."""
    out = tmp_path_factory.mktemp("benchmarks")
    command = [sys.executable, str(BENCHMARKS / "run.py"), "--shape", "tiny", "--rounds", "1"]
    command += ["--threads", "1", "--device", "cpu", "--without", "adapters,peft"]
    command += ["--weights", str(out / "weights"), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    return out


def test_every_case_is_measured_or_says_why_not(tiny: Path) -> None:
    document = json.loads((tiny / "benchmarks.json").read_text())
    assert {one["family"] for one in document["results"]} == FAMILIES
    for one in document["results"]:
        measured = one["unable"] is None
        assert bool(one["seconds"]) == measured, one
        if not measured:
            assert one["contestant"] != "ours", one
            reasons = ("the same program as ours", "left out to keep the run short")
            assert one["unable"] in reasons, one


def test_the_literal_form_agrees(tiny: Path) -> None:
    document = json.loads((tiny / "benchmarks.json").read_text())
    differences = {
        one["step"]: one["difference"]
        for one in document["results"]
        if (one["contestant"], one["family"]) == ("literal", "fuse") and one["unable"] is None
    }
    assert set(differences) == {"inference", "training"}
    assert all(value <= 1e-5 for value in differences.values())
    scores = [one["score"] for one in document["results"] if one["score"] is not None]
    assert scores and all(5 <= score <= 30 for score in scores)


def test_the_page_has_a_row_for_every_case(tiny: Path) -> None:
    document = json.loads((tiny / "benchmarks.json").read_text())
    page = (tiny / "benchmarks.md").read_text()
    for one in document["results"]:
        tokens = "×".join(map(str, one["tokens"]))
        assert f"| {one['name']} | {one['step']} | {tokens} |" in page


def result(load: Load, contestant: str, name: str, seconds: list[float], **more: Any) -> Any:
    case = load("cases").Case(
        name, more.pop("family", "fuse"), more.pop("kind", "fuse"), "inference", "full"
    )
    return load("results").Result(case, contestant, "cpu", (8, 128), seconds, **more)


def test_a_ratio_is_to_the_plain_model_of_the_same_environment(load: Load) -> None:
    plain = result(load, "ours", "plain", [2.0, 4.0], kind="plain")
    other = result(load, "adapters", "plain", [1.0, 1.0], kind="plain")
    literal = result(load, "literal", "fuse 8", [9.0, 6.0])
    results = load("results").Results([other, plain, literal])
    assert results.ratio(literal) == 3.0  # of the minima
    assert results.median_ratio(literal) == 3.0  # of 4.5 and 1.5


@pytest.mark.parametrize(("seconds", "met"), [(1.15, True), (1.16, False)])
def test_a_promise_is_met_or_not(load: Load, seconds: float, met: bool) -> None:
    plain = result(load, "ours", "plain", [1.0], kind="plain")
    results = load("results").Results([plain, result(load, "ours", "fuse 8", [seconds])])
    first, second, *_ = load("criteria").criteria(results, "bert-base")
    assert (first.value, first.met) == (seconds, met)
    assert (second.value, second.met) == (None, None)


def test_a_page_keeps_what_stands_around_the_figures(load: Load, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- figures -->\nold\n<!-- end of figures -->\nafter\n")
    load("report").write_page(page, "new\n")
    assert page.read_text() == ("before\n<!-- figures -->\nnew\n<!-- end of figures -->\nafter\n")


def test_rows_are_spread_evenly_over_the_adapters(load: Load) -> None:
    rows = load("cases").routed_rows
    assert rows(("a", "b"), 4) == ["a", "a", "b", "b"]
    assert rows(("a", "b", "c", "d"), 2) == ["a", "c"]
