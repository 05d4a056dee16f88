"""The scores of a run, pooled over seeds and replicates, and report.json."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adaptcompose.storage.atomic import write_atomically
from adaptcompose.tasks.metrics import METRICS
from adaptcompose.version import __version__

REPORT_FILE = "report.json"


@dataclass(frozen=True)
class Score:
    """One measurement: a row of the spec, on a split, for one seed."""

    name: str
    data: str
    metric: str
    value: float
    seed: int | None = None
    variables: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in ("name", "data", "metric", "value", "seed")}
        return plain | ({"variables": dict(self.variables)} if self.variables else {})


@dataclass(frozen=True)
class PooledScore:
    """Mean and sample standard deviation over `n` seeds and replicates."""

    mean: float
    sd: float
    n: int

    def format_mean(self, metric: str) -> str:
        """The score as text: shares in per cent, other metrics unchanged.

        >>> PooledScore(0.6712, 0.0149, 3).format_mean("span-f1")
        '67.1 ± 1.5'
        >>> PooledScore(5.25, 0.0, 1).format_mean("perplexity")
        '5.2'
        """
        times = display_factor(metric)
        sd = f" ± {times * self.sd:.1f}" if self.n > 1 else ""
        return f"{times * self.mean:.1f}{sd}"


def display_factor(metric: str) -> int:
    """The factor of a metric for display: 100 for shares, shown in per cent, else 1."""
    known = METRICS.get(metric)
    return 100 if known is None or known.is_share else 1


def pool_scores(scores: Iterable[Score]) -> dict[tuple[str, str, str], PooledScore]:
    """Pooled scores by (row, data, metric), in the order of the first measurements.

    >>> scores = [Score("a", "d", "f1", 0.5, seed=0), Score("a", "d", "f1", 0.7, seed=1)]
    >>> pool_scores(scores)["a", "d", "f1"].n
    2
    """
    values_by_key: dict[tuple[str, str, str], list[float]] = {}
    for score in scores:
        key = (score.name, score.data, score.metric)
        values_by_key.setdefault(key, []).append(score.value)
    return {key: _pool(values) for key, values in values_by_key.items()}


def report_cells(scores: Iterable[Score], baseline: str | None = None) -> list[dict[str, Any]]:
    """The pooled scores for report.json, with their differences from the baseline."""
    pooled = pool_scores(scores)
    return [
        {"name": name, "data": data, "metric": metric}
        | vars(cell)
        | _difference(cell, pooled.get((baseline or "", data, metric)))
        for (name, data, metric), cell in pooled.items()
    ]


def _difference(cell: PooledScore, base: PooledScore | None) -> dict[str, float]:
    return {} if base is None else {"difference": cell.mean - base.mean}


def _pool(values: list[float]) -> PooledScore:
    sd = statistics.stdev(values) if len(values) > 1 else 0.0
    return PooledScore(statistics.fmean(values), sd, len(values))


def score_table(
    scores: Iterable[Score], baseline: str | None = None
) -> tuple[list[str], list[list[str]]]:
    """Header and rows: one row per name, one column per split (and per metric if there are more).

    With a baseline, the other rows also show their differences from it.
    """
    pooled = pool_scores(scores)
    rows = list(dict.fromkeys(name for name, _, _ in pooled))
    columns = list(dict.fromkeys((data, metric) for _, data, metric in pooled))
    several = len({metric for _, metric in columns}) > 1
    header = ["", *(f"{data} {metric}" if several else data for data, metric in columns)]

    def cell(row: str, column: tuple[str, str]) -> str:
        score, base = pooled.get((row, *column)), pooled.get((baseline or "", *column))
        if score is None:
            return ""
        text = score.format_mean(column[1])
        if base is None or row == baseline:
            return text
        return f"{text} ({display_factor(column[1]) * (score.mean - base.mean):+.1f})"

    return header, [[row, *(cell(row, column) for column in columns)] for row in rows]


def format_markdown(scores: Iterable[Score]) -> str:
    """The table of scores in Markdown, for a card."""
    header, body = score_table(scores)
    lines = [header, ["---"] * len(header), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def describe_environment() -> dict[str, Any]:
    """Versions and machine, to trace a score back to them."""
    import torch
    import transformers

    return {
        "adaptcompose": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }


def write_report(folder: Path, report: Mapping[str, Any]) -> Path:
    """Write report.json, atomically; return its path."""
    path = folder / REPORT_FILE
    write_atomically(path, json.dumps(report, indent=2, ensure_ascii=False, default=str) + "\n")
    return path
