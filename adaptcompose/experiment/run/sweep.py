"""Run a spec: once, or for a sweep once per combination of the values in `each`.

Every combination is a run of its own in `runs/<name>/<combination>`. The one with the best
validation score is copied to `runs/<name>/best`, and published if the spec has `publish`.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adaptcompose.experiment.prepare.prepared_run import PreparedRun
from adaptcompose.experiment.prepare.spec_lock import lock_path
from adaptcompose.experiment.report import html, report
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
    """A combination of a sweep that has run, and the name of its folder."""

    dir_name: str
    run: Run
    result: RunResult


def run_experiment(
    prepared: Sequence[PreparedRun], folder: Path, sink: ProgressSink, *, fresh: bool = False
) -> dict[str, Any]:
    """Run the prepared specs of a file; return the content of report.json in `folder`.

    The lock is written as soon as the first run has opened all files that it reads.
    """
    if prepared[0].spec.each:
        return _run_sweep(prepared, folder, sink, fresh=fresh)
    run = Run(prepared[0], prepared[0].make_plan(), folder, sink, fresh=fresh)
    _write_lock(prepared[0])
    return run.run()


def _run_sweep(
    prepared: Sequence[PreparedRun], folder: Path, sink: ProgressSink, *, fresh: bool
) -> dict[str, Any]:
    check_owner(folder, prepared[0].path)
    done: list[tuple[str, list[Score]]] = []
    best: CombinationResult | None = None
    reports: list[dict[str, Any]] = []
    names = combination_dirs([one.spec for one in prepared])
    for name, one in zip(names, prepared, strict=True):
        sink.stage("combination", name)
        run = Run(one, one.make_plan(), folder / name, _CombinationSink(sink), fresh=fresh)
        _write_lock(one)
        write_atomically(folder / OWNER_FILE, f"{one.path.resolve()}\n")
        last = CombinationResult(name, run, run.execute())
        reports.append(last.result.report)
        best = _choose_better(best, last)
        # a result keeps its model in memory, so only the best one is kept
        done.append((name, last.result.scores))
    assert best is not None
    return _finish_sweep(done, best, reports, folder, sink)


def _write_lock(prepared: PreparedRun) -> None:
    """Write the lock next to the spec, unless overrides of the command line changed the spec.

    A lock that differs only in the members of `prune` stays: an earlier combination has recorded
    them there.
    """
    stored = Lock.load(path := lock_path(prepared.path))
    is_same = stored and replace(stored, members={}) == replace(prepared.lock, members={})
    if not prepared.spec.overrides and not is_same:
        prepared.lock.write(path)


def _choose_better(best: CombinationResult | None, last: CombinationResult) -> CombinationResult:
    """The result with the better validation score; the first one without validation."""
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
    reports: list[dict[str, Any]],
    folder: Path,
    sink: ProgressSink,
) -> dict[str, Any]:
    scores = [
        replace(
            score,
            name=f"{name}: {score.name}",
            variables={**own_report["variables"], **score.variables},
        )
        for (name, own_scores), own_report in zip(done, reports, strict=True)
        for score in own_scores
    ]
    if scores:
        sink.table(*report.score_table(scores))
    with replace_folder(folder / BEST_DIR) as draft:
        shutil.copytree(folder / best.dir_name / BEST_DIR, draft)
    spec = best.run.prepared.spec
    content: dict[str, Any] = {
        "name": spec.name,
        "description": spec.description,
        "best": best.dir_name,
        "scores": [score.as_dict() for score in scores],
        "table": report.report_cells(scores),
        "combinations": dict(zip((name for name, _ in done), reports, strict=True)),
    }
    _write_report(folder, content, plotted=spec.has_plots)
    published = best.run.publish(best.result)
    if "published" in published:
        content["published"] = published["published"]
        _write_report(folder, content, plotted=spec.has_plots)
    return content


def _write_report(folder: Path, content: dict[str, Any], *, plotted: bool) -> None:
    """Write report.json and report.html of the whole sweep."""
    report.write_report(folder, content)
    html.write_page(folder, content, with_plots=plotted)


@dataclass(frozen=True)
class _CombinationSink:
    """Shows the stages of one combination, indented. The table of the sweep has its scores."""

    sink: ProgressSink

    def stage(self, name: str, detail: str = "") -> None:
        self.sink.stage(f"  {name}", detail)

    def event(self, entry: dict[str, Any]) -> None:
        self.sink.event(entry)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        pass
