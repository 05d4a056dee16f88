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

from adaptcompose.experiment.prepare.prepared_run import Prepared
from adaptcompose.experiment.prepare.spec_lock import lock_path
from adaptcompose.experiment.report import html as page
from adaptcompose.experiment.report import report
from adaptcompose.experiment.report.report import Score
from adaptcompose.experiment.run.labels import labels
from adaptcompose.experiment.run.run import BEST, OWNER, Measured, Run, Sink, check_owner, replaced
from adaptcompose.hub.lock import Lock
from adaptcompose.storage.atomic import write_atomically


@dataclass(frozen=True)
class Done:
    """One combination that has run."""

    label: str
    run: Run
    measured: Measured


def run_all(
    prepared: Sequence[Prepared], folder: Path, sink: Sink, *, fresh: bool = False
) -> dict[str, Any]:
    """Every run of a spec; returns what `report.json` in the folder holds.

    The lock is written once everything that the first run reads was opened.
    """
    if not prepared[0].spec.each:
        made = Run(prepared[0], prepared[0].plan(), folder, sink, fresh=fresh)
        _write_lock(prepared[0])
        return made.run()
    check_owner(folder, prepared[0].path)
    done: list[tuple[str, list[Score]]] = []
    best: Done | None = None
    found: list[dict[str, Any]] = []
    for label, one in zip(labels([one.spec for one in prepared]), prepared, strict=True):
        sink.stage("combination", label)
        run = Run(one, one.plan(), folder / label, _Inner(sink), fresh=fresh)
        _write_lock(one)
        write_atomically(folder / OWNER, f"{one.path.resolve()}\n")
        last = Done(label, run, run.measured())
        found.append(last.measured.report)
        best = _better(best, last)
        done.append((label, last.measured.scores))  # a run holds a model: only the best one stays
    assert best is not None
    return _concluded(done, best, found, folder, sink)


def _write_lock(one: Prepared) -> None:
    """Beside the spec; what a command line set is no part of it.

    Another combination may have recorded there what `prune` keeps.
    """
    held = Lock.open(path := lock_path(one.path))
    same = held is not None and replace(held, members={}) == replace(one.lock, members={})
    if not one.spec.overrides and not same:
        one.lock.write(path)


def _better(best: Done | None, last: Done) -> Done:
    """The one with the higher score on validation; the first where there is none."""
    if best is None:
        return last
    old, new = (one.measured.best.result.score for one in (best, last))
    if old is None or new is None:
        return best
    task = last.run.prepared.task
    higher = task is None or task.metric.higher
    return last if (new > old if higher else new < old) else best


def _concluded(
    done: Sequence[tuple[str, list[Score]]],
    best: Done,
    found: list[dict[str, Any]],
    folder: Path,
    sink: Sink,
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
        sink.table(*report.table(scores))
    with replaced(folder / BEST) as draft:
        shutil.copytree(folder / best.label / BEST, draft)
    spec = best.run.prepared.spec
    whole: dict[str, Any] = {
        "name": spec.name,
        "description": spec.description,
        "best": best.label,
        "scores": [score.as_dict() for score in scores],
        "table": report.cells(scores),
        "combinations": dict(zip((label for label, _ in done), found, strict=True)),
    }
    _write(folder, whole, plotted=spec.plotted)
    published = best.run.published(best.measured)
    if "published" in published:
        whole["published"] = published["published"]
        _write(folder, whole, plotted=spec.plotted)
    return whole


def _write(folder: Path, whole: dict[str, Any], *, plotted: bool) -> None:
    """The scores of all combinations, for programs and for people."""
    report.write(folder, whole)
    page.write(folder, whole, plotted=plotted)


@dataclass(frozen=True)
class _Inner:
    """The stages of one combination; its scores are in the table of all."""

    sink: Sink

    def stage(self, name: str, detail: str = "") -> None:
        self.sink.stage(f"  {name}", detail)

    def event(self, entry: dict[str, Any]) -> None:
        self.sink.event(entry)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        pass
