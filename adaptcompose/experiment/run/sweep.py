"""A sweep: one run for each combination of the values in `each`, and one table of all.

The folder of a combination is `runs/<name>/<combination>`, a run like any other. What is best on
validation is kept in `runs/<name>/best`, and published if the spec says so.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adaptcompose.experiment.prepare.prepared_run import PreparedRun
from adaptcompose.experiment.prepare.spec_lock import lock_path
from adaptcompose.experiment.report import html as page
from adaptcompose.experiment.report import report
from adaptcompose.experiment.report.report import Score
from adaptcompose.experiment.run.run import ProgressSink, Run, RunResult
from adaptcompose.experiment.run.run_dirs import (
    BEST_DIR,
    OWNER_FILE,
    check_owner,
    combination_dirs,
    replace_folder,
)
from adaptcompose.hub.lock import Lock
from adaptcompose.storage.atomic import write_atomically


@dataclass(frozen=True)
class CombinationResult:
    """One combination that has run."""

    dir_name: str
    run: Run
    result: RunResult


def run_experiment(
    prepared: Sequence[PreparedRun], folder: Path, sink: ProgressSink, *, fresh: bool = False
) -> dict[str, Any]:
    """Every run of a spec; returns what `report.json` in the folder holds.

    The lock is written once everything that the first run reads was opened.
    """
    if not prepared[0].spec.each:
        made = Run(prepared[0], prepared[0].make_plan(), folder, sink, fresh=fresh)
        _write_lock(prepared[0])
        return made.run()
    check_owner(folder, prepared[0].path)
    done: list[tuple[str, list[Score]]] = []
    best: CombinationResult | None = None
    found: list[dict[str, Any]] = []
    for label, one in zip(combination_dirs([one.spec for one in prepared]), prepared, strict=True):
        sink.stage("combination", label)
        run = Run(one, one.make_plan(), folder / label, _CombinationSink(sink), fresh=fresh)
        _write_lock(one)
        write_atomically(folder / OWNER_FILE, f"{one.path.resolve()}\n")
        last = CombinationResult(label, run, run.execute())
        found.append(last.result.report)
        best = _choose_better(best, last)
        done.append((label, last.result.scores))  # a run holds a model: only the best one stays
    assert best is not None
    return _finish_sweep(done, best, found, folder, sink)


def _write_lock(one: PreparedRun) -> None:
    """Beside the spec; what a command line set is no part of it.

    Another combination may have recorded there what `prune` keeps.
    """
    held = Lock.load(path := lock_path(one.path))
    same = held is not None and replace(held, members={}) == replace(one.lock, members={})
    if not one.spec.overrides and not same:
        one.lock.write(path)


def _choose_better(best: CombinationResult | None, last: CombinationResult) -> CombinationResult:
    """The one with the higher score on validation; the first where there is none."""
    if best is None:
        return last
    old, new = (one.result.best.result.score for one in (best, last))
    if old is None or new is None:
        return best
    task = last.run.prepared.task
    higher = task is None or task.metric.higher_is_better
    return last if (new > old if higher else new < old) else best


def _finish_sweep(
    done: Sequence[tuple[str, list[Score]]],
    best: CombinationResult,
    found: list[dict[str, Any]],
    folder: Path,
    sink: ProgressSink,
) -> dict[str, Any]:
    scores = [
        replace(
            score,
            name=f"{label}: {score.name}",
            variables={**one["variables"], **score.variables},
        )
        for (label, own), one in zip(done, found, strict=True)
        for score in own
    ]
    if scores:
        sink.table(*report.score_table(scores))
    with replace_folder(folder / BEST_DIR) as draft:
        shutil.copytree(folder / best.dir_name / BEST_DIR, draft)
    spec = best.run.prepared.spec
    whole: dict[str, Any] = {
        "name": spec.name,
        "description": spec.description,
        "best": best.dir_name,
        "scores": [score.as_dict() for score in scores],
        "table": report.report_cells(scores),
        "combinations": dict(zip((label for label, _ in done), found, strict=True)),
    }
    _write_report(folder, whole, plotted=spec.has_plots)
    published = best.run.publish(best.result)
    if "published" in published:
        whole["published"] = published["published"]
        _write_report(folder, whole, plotted=spec.has_plots)
    return whole


def _write_report(folder: Path, whole: dict[str, Any], *, plotted: bool) -> None:
    """The scores of all combinations, for programs and for people."""
    report.write_report(folder, whole)
    page.write_page(folder, whole, with_plots=plotted)


@dataclass(frozen=True)
class _CombinationSink:
    """The stages of one combination; its scores are in the table of all."""

    sink: ProgressSink

    def stage(self, name: str, detail: str = "") -> None:
        self.sink.stage(f"  {name}", detail)

    def event(self, entry: dict[str, Any]) -> None:
        self.sink.event(entry)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        pass
