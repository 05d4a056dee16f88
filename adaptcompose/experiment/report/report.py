"""What a run found: scores pooled over seeds and replicates, and report.json."""

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
    """One measurement: a row of the spec, on some data, for one seed."""

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
        """Shares in per cent, as the field prints them; everything else unchanged.

        >>> PooledScore(0.6712, 0.0149, 3).format_mean("span-f1"), PooledScore(5.25, 0.0, 1).format_mean("perplexity")
        ('67.1 ± 1.5', '5.2')
        """
        times = display_factor(metric)
        sd = f" ± {times * self.sd:.1f}" if self.n > 1 else ""
        return f"{times * self.mean:.1f}{sd}"


def display_factor(metric: str) -> int:
    """What a score is multiplied by where people read it."""
    known = METRICS.get(metric)
    return 100 if known is None or known.is_share else 1


def pool_scores(scores: Iterable[Score]) -> dict[tuple[str, str, str], PooledScore]:
    """Cells by (row, data, metric), in the order in which they were measured.

    >>> pool_scores([Score("a", "d", "f1", 0.5, 0), Score("a", "d", "f1", 0.7, 1)])["a", "d", "f1"].n
    2
    """
    found: dict[tuple[str, str, str], list[float]] = {}
    for score in scores:
        found.setdefault((score.name, score.data, score.metric), []).append(score.value)
    return {key: _cell(values) for key, values in found.items()}


def report_cells(scores: Iterable[Score], baseline: str | None = None) -> list[dict[str, Any]]:
    """The pooled scores as report.json holds them, with their distance from the baseline's."""
    found = pool_scores(scores)
    return [
        {"name": name, "data": data, "metric": metric}
        | vars(cell)
        | _difference(cell, found.get((baseline or "", data, metric)))
        for (name, data, metric), cell in found.items()
    ]


def _difference(cell: PooledScore, base: PooledScore | None) -> dict[str, float]:
    return {} if base is None else {"difference": cell.mean - base.mean}


def _cell(values: list[float]) -> PooledScore:
    sd = statistics.stdev(values) if len(values) > 1 else 0.0
    return PooledScore(statistics.fmean(values), sd, len(values))


def score_table(
    scores: Iterable[Score], baseline: str | None = None
) -> tuple[list[str], list[list[str]]]:
    """Header and rows: a row a name, a column a data set (and metric, if there are several).

    Beside the scores of the rows other than the baseline stands how far they are from its own.
    """
    found = pool_scores(scores)
    rows = list(dict.fromkeys(name for name, _, _ in found))
    columns = list(dict.fromkeys((data, metric) for _, data, metric in found))
    several = len({metric for _, metric in columns}) > 1
    header = ["", *(f"{data} {metric}" if several else data for data, metric in columns)]

    def cell(row: str, column: tuple[str, str]) -> str:
        here, base = found.get((row, *column)), found.get((baseline or "", *column))
        if here is None:
            return ""
        written = here.format_mean(column[1])
        if base is None or row == baseline:
            return written
        return f"{written} ({display_factor(column[1]) * (here.mean - base.mean):+.1f})"

    return header, [[row, *(cell(row, column) for column in columns)] for row in rows]


def format_markdown(scores: Iterable[Score]) -> str:
    """The table for a card."""
    header, body = score_table(scores)
    lines = [header, ["---"] * len(header), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def describe_environment() -> dict[str, Any]:
    """Versions and machine, so that a number can be traced."""
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
    """Write report.json whole or not at all."""
    path = folder / REPORT_FILE
    write_atomically(path, json.dumps(report, indent=2, ensure_ascii=False, default=str) + "\n")
    return path
