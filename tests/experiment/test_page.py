"""report.html shows the content of report.json, and has no script."""

from __future__ import annotations

import copy
import itertools
import json
import math
import re
import statistics
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import strategies as st

from adaptcompose.experiment.report import plots
from adaptcompose.experiment.report.html import render_page
from adaptcompose.experiment.report.plots import Bar, Point
from adaptcompose.storage.yaml_source import load_yaml
from tests.sampling import sampled
from tests.workshop import Workshop

HOSTILE = "</title></text></svg><script>alert('x')</script>\"'&\x00\x1b"
SVG = "{http://www.w3.org/2000/svg}"


def logged(*losses: float, score: float) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = [{"loss": x, "step": n + 1} for n, x in enumerate(losses)]
    last = len(losses)
    entries.append({"eval_loss": 0.25, "eval_accuracy": score, "step": last})
    return [*entries, {"train_loss": 0.1, "step": last}]


def whole() -> dict[str, Any]:
    """A report with every key that the page can show."""
    rows = [("one", "d/test", 0.5, 0), ("one", "d/test", 0.7, 1), ("two", "d/test", 0.25, None)]
    return {
        "name": "demo",
        "description": "what it is for",
        "expression": "fuse(a, b)",
        "scores": [
            {"name": n, "data": d, "metric": "accuracy", "value": v, "seed": s}
            for n, d, v, s in rows
        ],
        "table": [
            {"name": "one", "data": "d/test", "metric": "accuracy", "mean": 0.6, "sd": 0.1, "n": 2},
            {"name": "two", "data": "d/test", "metric": "accuracy", "mean": 0.25, "sd": 0, "n": 1},
        ],
        "baseline": "two",
        "metric": "accuracy",
        "seeds": [
            {
                "seed": 0,
                "steps": 3,
                "seconds": 1,
                "score": 0.4,
                "curve": logged(3, 2, 1, score=0.4),
            },
            {"seed": 1, "steps": 2, "seconds": 2, "score": 0.5, "curve": logged(4, 3, score=0.5)},
        ],
        "best_seed": 1,
        "attention": {"mix": {"members": ["a", "b"], "sites": {"0.ffn.out": [0.25, 0.75]}}},
        "plan": {
            "items": [
                {
                    "name": "a",
                    "kind": "adapter",
                    "mark": "=",
                    "slots": ["task"],
                    "trained": False,
                    "parameters": 1234,
                    "sites": {"ffn.out": 2},
                    "layers": [0, 1],
                    "method": "lora",
                    "pin": {"repo": "me/a", "revision": "0123456789"},
                }
            ],
            "backbone": {"name": "demo/base", "type": "bert", "pin": {"path": "./base"}},
            "parameters": {"trained": 5, "total": 4321, "counted": "everything"},
        },
        "environment": {"torch": "9.8.7"},
        "times": {"train": 2.5},
    }


def pictures(text: str) -> list[ElementTree.Element]:
    found = re.findall(r'<svg xmlns="[^"]*" class="plot".*?</svg>', text, re.DOTALL)
    return [ElementTree.fromstring(one) for one in found]


def told(text: str) -> list[str]:
    """The tooltips of the points, bars and cells of the plots."""
    return [one.text or "" for found in pictures(text) for one in found.iter(f"{SVG}title")]


def words(text: str) -> list[str]:
    return [one.text or "" for found in pictures(text) for one in found.iter(f"{SVG}text")]


class Read(HTMLParser):
    """The elements of a page, their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_says_what_a_report_holds() -> None:
    text = render_page(whole(), "<svg>drawing</svg>")
    shown = Read(text)
    for part in (
        "what it is for",
        "fuse(a, b)",
        "60.0 ± 14.1 (+35.0)",
        "1,234",
        "0–1",
        "me/a@0123456",
        "5 of 4,321",
        "9.8.7",
        "2.5 s",
        "drawing",
        "demo/base ./base",
    ):
        assert part in shown.text, part
    assert re.search(r"50\.00\s*kept as best/", shown.text)
    assert not re.search(r"40\.00\s*kept", shown.text)


def test_pictures_say_what_a_report_holds() -> None:
    found = told(render_page(whole()))
    assert "one, d/test: 60.0 ± 10.0" in found
    assert "two, d/test: 25.0" in found
    assert "training, step 1: 3.5 (3 to 4, 2 seeds)" in found
    assert "training, step 3: 1" in found
    assert "validation, step 2: 0.25" in found
    assert "validation, step 2: 50" in found
    assert "validation, step 3: 40" in found
    assert {"0, a: 0.2500", "0, b: 0.7500"} <= set(found)


def test_a_page_is_one_file_and_nothing_in_it_runs() -> None:
    shown = Read(render_page(whole(), "<svg></svg>"))
    assert shown.links == ["report.json"]
    assert not {"script", "link", "img", "iframe", "object", "embed"} & shown.tags
    assert not {name for name in shown.attributes if name.startswith("on")}


def poisoned(value: Any) -> Any:
    if isinstance(value, dict):
        return {f"{key}": poisoned(one) for key, one in value.items()}
    if isinstance(value, list):
        return [poisoned(one) for one in value]
    return f"{value}{HOSTILE}" if isinstance(value, str) else value


def test_names_are_no_markup() -> None:
    report = whole()
    known = {name: report[name] for name in ("metric", "seeds")}
    bad = poisoned({name: one for name, one in report.items() if name not in known}) | known
    for row in (*bad["scores"], *bad["table"]):
        row["metric"] = "accuracy"
    bad["attention"] = {HOSTILE: bad["attention"]["mix"]}
    bad["environment"] = {HOSTILE: HOSTILE}
    bad["variables"] = {HOSTILE: HOSTILE}
    bad["set"] = [HOSTILE]
    text = render_page(bad)
    shown = Read(text)
    assert "script" not in shown.tags
    assert shown.text.count("alert('x')") > 20
    assert len(pictures(text)) == 4  # each of them is XML
    assert shown.links == ["report.json"]


def test_labels_of_a_sweep_are_no_markup() -> None:
    report = {"name": "s", "description": "", "scores": [], "table": [], "best": "x=1"}
    text = render_page(report | {"combinations": {"x=1": {}, 'y="><script>': {}}})
    shown = Read(text)
    assert "script" not in shown.tags
    assert shown.links == ["x%3D1/report.html", "y%3D%22%3E%3Cscript%3E/report.html", "report.json"]
    assert "x=1 (best on validation)" in shown.text


def test_nothing_is_plotted_without_numbers_or_where_nobody_wants_it() -> None:
    bare = whole() | {"scores": [], "table": [], "seeds": [], "attention": {}}
    text = render_page(bare, "<svg></svg>")
    assert pictures(text) == []
    assert not {"Scores", "Training", "Attention"} & set(re.findall(r"<h2>(\w+)", text))
    text = render_page(whole(), "<svg></svg>", with_plots=False)
    assert pictures(text) == []
    assert "60.0 ± 14.1" in text
    assert "<svg></svg>" in text


def test_what_diverged_is_left_out_of_the_curves() -> None:
    report = copy.deepcopy(whole())
    report["seeds"][0]["curve"] = logged(3, math.nan, math.inf, score=0.4)
    report["table"][1]["mean"] = math.inf
    found = told(render_page(report))
    assert "training, step 2: 3" in found
    assert not [one for one in found if "step 3" in one and one.startswith("training")]
    assert not [one for one in found if one.startswith("two")]
    for seed in report["seeds"]:
        seed["curve"] = logged(math.nan, score=math.nan)
        seed["curve"][1]["eval_loss"] = math.nan
    assert not [one for one in told(render_page(report)) if "step" in one]


def test_perplexity_is_not_in_hundredths() -> None:
    report = whole()
    for row in (*report["scores"], *report["table"]):
        row["metric"] = "perplexity"
    text = render_page(report | {"metric": "perplexity"})
    assert "two, d/test: 0.2" in told(text)
    assert "0.6 ± 0.1 (+0.3)" in Read(text).text
    assert "hundredths" not in text


@sampled(100, low=st.floats(-1e6, 1e6), spread=st.floats(0, 1e6))
def test_ticks_are_round_and_around_everything(low: float, spread: float) -> None:
    found = plots.round_ticks(low, low + spread)
    assert 2 <= len(found) <= 12
    room = 1e-6 * (found[-1] - found[0])
    assert found[0] <= low + room
    assert found[-1] >= low + spread - room
    step = found[1] - found[0]
    digits = f"{step:.3e}"
    assert digits[:5] in ("1.000", "2.000", "5.000"), step
    for one, two in itertools.pairwise(found):
        assert two - one == pytest.approx(step, rel=1e-5)


def test_points_stand_where_their_ticks_say() -> None:
    """Read positions back through the numbers at the axes."""
    line = [Point(10, (2.0, 4.0)), Point(40, (1.0,))]
    (root,) = pictures(plots.render_curves("t", "x", "y", {"a": line}))
    texts = [(one.text, one.attrib) for one in root.iter(f"{SVG}text")]
    across = {
        float(t or ""): float(a["x"])
        for t, a in texts
        if a["text-anchor"] == "middle" and (t or "").isdigit()
    }
    up = {float(t or ""): float(a["y"]) - 4 for t, a in texts if a["text-anchor"] == "end"}
    assert [*map(sorted, (across, up))] == [[0, 10, 20, 30, 40], [1, 2, 3, 4]]
    places = [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in root.iter(f"{SVG}circle")]
    assert places == [(across[10], up[3]), (across[40], up[1])]
    (band,) = root.iter(f"{SVG}polygon")
    corners = [tuple(map(float, one.split(","))) for one in band.attrib["points"].split()]
    assert corners[0] == (across[10], up[4])
    assert corners[-1] == (across[10], up[2])


def test_bars_are_as_long_as_they_say() -> None:
    bars = [Bar("a", 20, 0, "20.0"), Bar("b", 50, 10, "50.0 ± 10.0", is_highlighted=True)]
    (root,) = pictures(plots.render_bars("t", "unit", {"d": bars}))
    long = [float(one.attrib["width"]) for one in root.iter(f"{SVG}rect")]
    assert long[1] / long[0] == pytest.approx(2.5, rel=1e-2)
    (whisker,) = [p for p in root.iter(f"{SVG}path") if p.attrib["class"] == "whisker"]
    low, high = map(float, re.findall(r"M([\d.]+) \S+v8", whisker.attrib["d"]))
    assert high - low == pytest.approx(long[0], abs=0.3)


def test_bars_of_nothing_but_zeros_start_at_zero() -> None:
    (root,) = pictures(plots.render_bars("t", "unit", {"d": [Bar("a", 0, 0, "0.0")]}))
    (bar,) = root.iter(f"{SVG}rect")
    texts = {one.text: one.attrib for one in root.iter(f"{SVG}text")}
    assert (bar.attrib["width"], bar.attrib["x"]) == ("0.0", texts["0"]["x"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_run_writes_its_page(shop: Workshop) -> None:
    path = shop.spec(
        adapters={"new": "pfeiffer(reduction=4)"},
        compose="stack(lang=en, task=new) | fuse(glue/*) | drop(bottom=1)",
        task={"kind": "text-classification"},
        data=shop.data("jsonl"),
        train={"data": "d", "steps": 4, "every": 2, "batch": 4, "lr": 0.02, "seeds": [0, 1]},
        evaluate=[
            {"name": "all", "data": "d"},
            {"name": "none", "data": "d", "pipe": "swap(lang=none)"},
        ],
        report={"baseline": "none"},
    )
    shop.run(path)
    folder = shop.root / "runs/demo"
    report = json.loads((folder / "report.json").read_text())
    text = (folder / "report.html").read_text()
    found = told(text)
    for row in report["table"]:
        mean, sd = 100 * row["mean"], 100 * row["sd"]
        assert f"{row['name']}, {row['data']}: {mean:.1f} ± {sd:.1f}" in found
    for step in (2, 4):
        scored = [_at(one["curve"], step, "eval_accuracy") for one in report["seeds"]]
        low, high = 100 * min(scored), 100 * max(scored)
        assert (
            f"validation, step {step}: {100 * statistics.fmean(scored):.5g} "
            f"({low:.5g} to {high:.5g}, 2 seeds)"
        ) in found
    kept = load_yaml((folder / "activations.yaml").read_text())["fusions"]["fuse"]
    shown = report["attention"]["fuse"]
    assert shown["members"] == ["glue/a", "glue/b"]
    for site, means in kept.items():
        assert shown["sites"][site] == pytest.approx(means, abs=1e-6)
        for member, mean in zip(shown["members"], shown["sites"][site], strict=True):
            assert f"{site.split('.')[0]}, {member}: {mean:.4f}" in found
    assert len(pictures(text)) == 4
    assert text.count("<svg") == 5
    for kind, style in re.findall(
        r'class="(composition|plot)"[^>]*>\s*<style>(.*?)</style>', text, re.S
    ):
        # the style of one picture would hold for all others of the page
        rules = re.findall(
            r"([^{}@]+)\{[^{}]+\}", style.replace("@media (prefers-color-scheme:dark){", "")
        )
        assert rules
        assert all(rule.strip().startswith(f".{kind} ") for rule in rules)
    again = shop.run(shop.spec(**_without_plots(path)))
    assert again["scores"] == report["scores"]
    assert pictures((folder / "report.html").read_text()) == []


def _at(curve: list[dict[str, Any]], step: int, name: str) -> float:
    (value,) = [entry[name] for entry in curve if entry["step"] == step and name in entry]
    return float(value)


def _without_plots(path: Path) -> dict[str, Any]:
    return dict(load_yaml(path.read_text())) | {"report": {"plots": "none"}}
