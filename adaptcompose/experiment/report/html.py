"""Render `report.html`: a run on one page, which needs no other file, script or network."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from adaptcompose.experiment.report import plots
from adaptcompose.experiment.report.plots import Bar, Point
from adaptcompose.experiment.report.report import PooledScore, Score, display_factor, score_table
from adaptcompose.experiment.share.model_card import shorten_commits
from adaptcompose.storage.atomic import write_atomically

PAGE_FILE = "report.html"
Report = Mapping[str, Any]


def write_page(folder: Path, report: Report, drawing: str = "", *, with_plots: bool = True) -> Path:
    """Write the page of a report (the content of report.json); return its path.

    `drawing` is the SVG of the composition.
    """
    path = folder / PAGE_FILE
    write_atomically(path, render_page(report, drawing, with_plots=with_plots))
    return path


def render_page(report: Report, drawing: str = "", *, with_plots: bool = True) -> str:
    """The HTML of the page. Texts of the report are escaped; only our own SVG is markup."""
    import jinja2
    from markupsafe import Markup

    template = Path(__file__).with_name(f"{PAGE_FILE}.jinja").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"runs": format_layers, "place": format_pin}
    header, body = score_table([Score(**one) for one in report["scores"]], report.get("baseline"))
    pictures = with_plots and {
        "bars": [Markup(one) for one in _bars(report)],
        "curves": [Markup(one) for one in _curves(report)],
        "maps": {name: Markup(one) for name, one in _attention_maps(report)},
    }
    return environment.from_string(template).render(
        report=_KEYS | dict(report) | {"seeds": list(_seeds(report))},
        header=header,
        body=body,
        caption=_score_caption(report),
        backbone=_backbone(report),
        drawing=Markup(drawing),
        combinations=list(report.get("combinations", ())),
        **(pictures or {"bars": [], "curves": [], "maps": {}}),
    )


_KEYS = dict.fromkeys(
    ("expression", "published", "variables", "set", "plan", "environment", "best", "best_seed")
)
"""Keys that not all reports have."""


def _score_caption(report: Report) -> str:
    """The caption of the table of scores: units, meaning of ±, and the baseline."""
    metrics = dict.fromkeys(cell["metric"] for cell in report["table"])
    units = [f"{name}{' in %' * (display_factor(name) == 100)}" for name in metrics]
    text = f"{', '.join(units)}; mean"
    if any(cell["n"] > 1 for cell in report["table"]):
        text += " ± standard deviation over seeds and replicates"
    baseline = report.get("baseline")
    if baseline is None:
        return f"{text}."
    return f"{text}. In brackets: the difference from {baseline}, which has bars of another colour."


def _backbone(report: Report) -> str:
    """The name and the pin of the backbone; a pinned repository shows both."""
    known = (report.get("plan") or {}).get("backbone", {})
    where, name = format_pin(known.get("pin")), known.get("name") or known.get("type", "")
    return where if "@" in where else f"{name} {where}".strip()


def _seeds(report: Report) -> Iterator[dict[str, Any]]:
    for one in report.get("seeds", ()):
        score, times = one["score"], display_factor(report["metric"])
        yield {**one, "written": "" if score is None else f"{times * score:.2f}"}


def _bars(report: Report) -> Iterator[str]:
    """Yield a plot per metric, with a group per split and a bar per composition."""
    groups_by_metric: dict[str, dict[str, list[Bar]]] = {}
    for one in report["table"]:
        metric, times = one["metric"], display_factor(one["metric"])
        if not math.isfinite(one["mean"] + one["sd"]):
            continue
        text = PooledScore(one["mean"], one["sd"], one["n"]).format_mean(metric)
        is_baseline = one["name"] == report.get("baseline")
        bar = Bar(one["name"], times * one["mean"], times * one["sd"], text, is_baseline)
        groups_by_metric.setdefault(metric, {}).setdefault(one["data"], []).append(bar)
    for metric, groups in groups_by_metric.items():
        yield plots.render_bars(f"{metric} per set and composition", _unit(metric), groups)


def _unit(metric: str) -> str:
    return f"{metric} (%)" if display_factor(metric) == 100 else metric


def _curves(report: Report) -> Iterator[str]:
    """Yield the plots of loss and validation score by step, with a band over seeds."""
    logs = [one["curve"] for one in report.get("seeds", ())]
    lines = {
        "training": _curve_points(logs, "loss"),
        "validation": _curve_points(logs, "eval_loss"),
    }
    if lines := {name: line for name, line in lines.items() if line}:
        yield plots.render_curves("loss by step", "optimiser steps", "loss (nats)", lines)
    metric = report.get("metric", "")
    if line := _curve_points(logs, f"eval_{metric}", display_factor(metric)):
        title = f"{metric} on validation by step"
        yield plots.render_curves(title, "optimiser steps", _unit(metric), {"validation": line})


def _curve_points(logs: Sequence[Sequence[Report]], name: str, times: float = 1.0) -> list[Point]:
    """The values of a log entry by step, over all seeds. Infinite and NaN values are left out."""
    values_by_step: dict[int, list[float]] = {}
    for entry in (entry for log in logs for entry in log):
        if name in entry and math.isfinite(entry[name]):
            values_by_step.setdefault(entry["step"], []).append(times * entry[name])
    return [Point(step, tuple(values)) for step, values in sorted(values_by_step.items())]


def _attention_maps(report: Report) -> Iterator[tuple[str, str]]:
    """Yield a heat map per fusion, of attention by site and member."""
    for name, one in report.get("attention", {}).items():
        sites, members = one["sites"], [shorten_commits(member) for member in one["members"]]
        kinds = {re.sub(r"\b\d+\.", "", site) for site in sites}
        # if all sites are the same but for the layer, its number is enough
        rows = {site.split(".")[0] if len(kinds) == 1 else site: sites[site] for site in sites}
        corner = f"layer ({kinds.pop()})" if len(kinds) == 1 else "site"
        yield (
            name,
            plots.render_heatmap(f"attention of {name} by layer and member", corner, rows, members),
        )


def format_layers(layers: Sequence[int]) -> str:
    """A list of layers as text, with ranges.

    >>> format_layers([0, 1, 2, 5, 7, 8])
    '0–2, 5, 7–8'
    """
    ranges: list[list[int]] = []
    for layer in layers:
        if ranges and layer == ranges[-1][-1] + 1:
            ranges[-1].append(layer)
        else:
            ranges.append([layer])
    return ", ".join(f"{run[0]}–{run[-1]}" if run[1:] else f"{run[0]}" for run in ranges)


def format_pin(pin: Report | None) -> str:
    """A pin as text: repository, revision and subfolder, or path; empty without a pin.

    >>> format_pin({"repo": "me/ner", "revision": "0123456789abcdef", "subfolder": "task"})
    'me/ner@0123456/task'
    """
    if not pin:
        return ""
    where = f"{pin['repo']}@{pin['revision'][:7]}" if "repo" in pin else str(pin.get("path", ""))
    return "/".join(filter(None, (where, pin.get("subfolder", ""))))
