"""`adaptcompose run`: train, evaluate, predict, report and publish what was prepared."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from transformers import set_seed

from adaptcompose.compiler.plan import Plan
from adaptcompose.composition.canonical_text import format_canonical
from adaptcompose.composition.drawing.svg import render_svg
from adaptcompose.composition.fusion_activations import ACTIVATIONS_FILE, format_activations
from adaptcompose.composition.operators import fusions_of
from adaptcompose.diagnostics.diagnostic import counted
from adaptcompose.experiment.prepare.prepared_run import PreparedRun
from adaptcompose.experiment.prepare.pruning import activation_batches
from adaptcompose.experiment.prepare.spec_lock import lock_path
from adaptcompose.experiment.prepare.trainable import ExperimentRow
from adaptcompose.experiment.report import html as page
from adaptcompose.experiment.report import report
from adaptcompose.experiment.report.report import Score
from adaptcompose.experiment.run import prediction as predict
from adaptcompose.experiment.run.context import RunContext
from adaptcompose.experiment.run.run_dirs import BEST_DIR, OWNER_FILE, check_owner, replace_folder
from adaptcompose.experiment.run.seed_dirs import STATE_FILE, SeedDir, SeedResult, seed_digest
from adaptcompose.experiment.run.seed_training import (
    TrainedSeed,
    TrainingOutput,
    load_state,
    save_state,
    train_seed,
)
from adaptcompose.experiment.share import publish
from adaptcompose.experiment.spec.sections import EvaluateSection, PredictSection
from adaptcompose.hub.lock import Lock
from adaptcompose.runtime.fusion_attention import measure_attention
from adaptcompose.runtime.model import ComposedModel
from adaptcompose.runtime.saving.writer import save_composition
from adaptcompose.storage.atomic import write_atomically


class ProgressSink(Protocol):
    """Where a run tells what it does: a terminal, or nothing."""

    def stage(self, name: str, detail: str = "") -> None:
        """A stage begins."""

    def event(self, entry: dict[str, Any]) -> None:
        """Progress inside a stage."""

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Scores."""


@dataclass(frozen=True)
class RunResult:
    """What a run found before it is published."""

    best: TrainedSeed
    scores: list[Score]
    report: dict[str, Any]


@dataclass
class Run:
    """One run of a prepared spec; results go to `folder`.

    Making one opens everything that the run reads, so that nothing is written where a file is
    missing or damaged.
    """

    prepared: PreparedRun
    plan: Plan
    folder: Path
    sink: ProgressSink
    fresh: bool = False
    seconds_by_stage: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_owner(self.folder, self.prepared.path)
        self.context = RunContext(self.prepared)

    def run(self) -> dict[str, Any]:
        """Every stage that the spec has; returns what report.json holds."""
        return self.publish(self.execute())

    def execute(self) -> RunResult:
        """Everything but publishing."""
        write_atomically(self.folder / OWNER_FILE, f"{self.prepared.path.resolve()}\n")
        seeds = [self._train_seed(number) for number in self._seed_numbers()]
        best = self._choose_best(seeds)
        self._save_best(best)
        attention = self._measure_attention(best)
        scores = self._evaluate(seeds)
        self._predict(best)
        self._record_members()
        found = self._build_report(seeds, scores, best) | attention
        self._write_report(found)
        return RunResult(best, scores, found)

    def publish(self, measured: RunResult) -> dict[str, Any]:
        """The report of a run, and its best composition on the hub if the spec says so."""
        found = measured.report
        if self.prepared.spec.publish is not None:
            found["published"] = self._push_best(measured.best, measured.scores)
            self._write_report(found)
        return found

    def _write_report(self, found: dict[str, Any]) -> None:
        """What was found, for programs and for people."""
        prepared = self.prepared
        report.write_report(self.folder, found)
        drawing = render_svg(prepared.graph, prepared.facts)
        page.write_page(self.folder, found, drawing, with_plots=prepared.spec.has_plots)

    def _seed_numbers(self) -> tuple[int | None, ...]:
        train = self.prepared.spec.train
        return train.seeds if train is not None else (None,)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds_by_stage[name] = (
            self.seconds_by_stage.get(name, 0.0) + time.monotonic() - started
        )

    def _record_members(self) -> None:
        """What was kept goes into the lock, if that is the one of this run."""
        path, own = lock_path(self.prepared.path), self.prepared.lock
        held = Lock.load(path)
        if held is not None and replace(held, members={}) == replace(own, members={}):
            replace(held, members={**held.members, **self.context.pruned_members}).write(path)

    def _measure_attention(self, best: TrainedSeed) -> dict[str, Any]:
        """How much attention each member of the fusions gets: `prune(by=<this run>)`."""
        train, known = self.prepared.spec.train, fusions_of(self.prepared.graph)
        if train is None or not known:
            return {}
        data = self.context.encode_split(train.data, train=True)
        found = measure_attention(best.model, activation_batches(data, self.context.tokenizer))
        write_atomically(self.folder / ACTIVATIONS_FILE, format_activations(found))
        members = {name: [str(slot.block) for slot in known[name].members] for name in found}
        return {
            "attention": {name: {"members": members[name], "sites": found[name]} for name in found}
        }

    def _train_seed(self, seed: int | None) -> TrainedSeed:
        """One trained seed: finished before, gone on with, or from the start."""
        prepared = self.prepared
        set_seed(seed or 0)
        model = self.context.build_model(prepared.graph, prepared.head)
        if seed is None:
            return TrainedSeed(None, model, SeedResult(None, 0, 0.0, []))
        model.update(prepared.trained_parts)
        place = SeedDir(self.folder / f"seed-{seed}", seed_digest(prepared))
        finished = None if self.fresh else place.read_result()
        if finished is not None:
            load_state(model, place.path / STATE_FILE)
            self.sink.stage("train", f"seed {seed} (already finished)")
            return TrainedSeed(seed, model, finished)
        place.start(fresh=self.fresh)
        self.sink.stage("train", f"seed {seed}")
        with self._timed("train"):
            where = TrainingOutput(place.path, self.sink.event)
            found = train_seed(prepared, model, self.context.training_data(), seed, where)
        save_state(model, place.path / STATE_FILE)
        place.write_result(found)
        return TrainedSeed(seed, model, found)

    def _choose_best(self, seeds: list[TrainedSeed]) -> TrainedSeed:
        """The best on validation; the first where nothing was validated."""
        task = self.prepared.task
        if task is None or any(one.result.score is None for one in seeds):
            return seeds[0]
        sign = 1 if task.metric.higher_is_better else -1
        return max(seeds, key=lambda one: sign * (one.result.score or 0.0))

    def _save_best(self, best: TrainedSeed) -> None:
        """The best composition, where `predict` of this run finds it; the old one until then."""
        with replace_folder(self.folder / BEST_DIR) as draft:
            save_composition(best.model, draft, manifest=publish.manifest_fields(self.prepared))

    def _evaluate(self, seeds: list[TrainedSeed]) -> list[Score]:
        items = [i for i in self.prepared.rows if isinstance(i.section, EvaluateSection)]
        if not items:
            return []
        self.sink.stage("evaluate", counted(len(items), "composition"))
        with self._timed("evaluate"):
            scores = [score for item in items for score in self._score_row(item, seeds)]
        self.sink.table(*report.score_table(scores, self._baseline))
        return scores

    @property
    def _baseline(self) -> str | None:
        section = self.prepared.spec.report
        return section.baseline if section else None

    def _score_row(self, item: ExperimentRow, seeds: list[TrainedSeed]) -> Iterator[Score]:
        """One score a seed, or one in all where nothing that was trained takes part."""
        section = item.section
        assert isinstance(section, EvaluateSection)
        data = self.context.encode_split(section.data)
        for trained in seeds:
            model = self.context.build_model(item.graph, item.head, trained.model)
            alone = not _uses_trained_weights(model, trained.model, self.prepared.trained_parts)
            found = predict.score_model(model, data, self.context.tokenizer, section.metrics)
            seed = None if alone else trained.seed
            for metric, value in found.items():
                yield Score(
                    section.name, str(section.data), metric, float(value), seed, section.variables
                )
            if alone:
                break

    def _predict(self, best: TrainedSeed) -> None:
        for item in self.prepared.rows:
            section = item.section
            if not isinstance(section, PredictSection):
                continue
            self.sink.stage("predict", section.name)
            model = self.context.build_model(item.graph, item.head, best.model)
            records = predict.prediction_records(
                model, self.context.encode_inputs(section), self.context.tokenizer
            )
            path = self.folder / (section.out or f"predictions/{section.name}.jsonl")
            lines = (json.dumps(record, ensure_ascii=False) for record in records)
            write_atomically(path, "".join(f"{line}\n" for line in lines))

    def _build_report(
        self, seeds: list[TrainedSeed], scores: list[Score], best: TrainedSeed
    ) -> dict[str, Any]:
        prepared = self.prepared
        return {
            "name": prepared.spec.name,
            "description": prepared.spec.description,
            "expression": str(prepared.tree),
            "graph": format_canonical(prepared.graph),
            "lock": prepared.lock.as_plain(),
            "scores": [score.as_dict() for score in scores],
            "own": list(publish.rows_with_graph(prepared, prepared.graph)),
            "table": report.report_cells(scores, self._baseline),
            "seeds": [one.as_dict() for one in seeds if one.seed is not None],
            "best_seed": best.seed,
            "baseline": self._baseline,
            "metric": prepared.task.metric.name if prepared.task else None,
            "plan": self.plan.as_dict(),
            "times": {name: round(seconds, 2) for name, seconds in self.seconds_by_stage.items()},
            "environment": report.describe_environment(),
            **({"set": list(prepared.spec.overrides)} if prepared.spec.overrides else {}),
            **({"variables": prepared.spec.variables} if prepared.spec.variables else {}),
        }

    def _push_best(self, best: TrainedSeed, scores: list[Score]) -> dict[str, str]:
        section = self.prepared.spec.publish
        assert section is not None
        self.sink.stage("publish", section.repo)
        row = next(row for row in self.prepared.rows if row.section is section)
        model = self.context.build_model(row.graph, row.head, best.model)
        counts = self.plan.as_dict()["parameters"]
        results = publish.published_eval_results(self.prepared, scores, counts, best.seed)
        revision = publish.publish_run(self.prepared, model, results)
        return {"repo": section.repo, "revision": revision}


def _uses_trained_weights(
    model: ComposedModel, source: ComposedModel, trained: frozenset[str]
) -> bool:
    """Whether a model uses anything that was trained."""
    head = model.head is not None and source.head is not None and "head" in trained
    if head and model.head.slots is source.head.slots:  # type: ignore[union-attr]
        return True
    return any(name in trained for name, _ in model.parts.items())
