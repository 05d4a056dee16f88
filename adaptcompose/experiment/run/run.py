"""One run of a prepared spec: train, evaluate, predict, report and publish."""

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
from adaptcompose.experiment.report import html, report
from adaptcompose.experiment.report.report import Score
from adaptcompose.experiment.run import prediction
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
    """Shows the progress of a run, for instance on a terminal."""

    def stage(self, name: str, detail: str = "") -> None:
        """A stage such as `train` starts."""

    def event(self, entry: dict[str, Any]) -> None:
        """Progress inside a stage: a step, a loss or a score, under the key `event`."""

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """The table of scores, with metrics as text."""


@dataclass(frozen=True)
class RunResult:
    """The results of a run that is not published yet; `report` is the content of report.json."""

    best: TrainedSeed
    scores: list[Score]
    report: dict[str, Any]


@dataclass
class Run:
    """One run of a prepared spec, which writes its results to `folder`.

    Creating a Run opens every file that the run reads. If a file is missing or damaged, that
    raises Failed before anything is written.
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
        """Run all stages of the spec; return the content of report.json."""
        return self.publish(self.execute())

    def execute(self) -> RunResult:
        """Run all stages except publishing."""
        write_atomically(self.folder / OWNER_FILE, f"{self.prepared.path.resolve()}\n")
        seeds = [self._train_seed(number) for number in self._seed_numbers()]
        best = self._choose_best(seeds)
        self._save_best(best)
        attention = self._measure_attention(best)
        scores = self._evaluate(seeds)
        self._predict(best)
        self._record_members()
        content = self._build_report(seeds, scores, best) | attention
        self._write_report(content)
        return RunResult(best, scores, content)

    def publish(self, result: RunResult) -> dict[str, Any]:
        """Publish the best composition if the spec has `publish`; return the report."""
        content = result.report
        if self.prepared.spec.publish is not None:
            content["published"] = self._push_best(result.best, result.scores)
            self._write_report(content)
        return content

    def _write_report(self, content: dict[str, Any]) -> None:
        """Write report.json and report.html."""
        prepared = self.prepared
        report.write_report(self.folder, content)
        drawing = render_svg(prepared.graph, prepared.facts)
        html.write_page(self.folder, content, drawing, with_plots=prepared.spec.has_plots)

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
        """Record the members that `prune` kept in the lock file, if it is the lock of this run."""
        path, own = lock_path(self.prepared.path), self.prepared.lock
        stored = Lock.load(path)
        if stored is not None and replace(stored, members={}) == replace(own, members={}):
            members = {**stored.members, **self.context.pruned_members}
            replace(stored, members=members).write(path)

    def _measure_attention(self, best: TrainedSeed) -> dict[str, Any]:
        """Measure the attention of the fusions on the training data, for `prune(by=<this run>)`."""
        train, fusions = self.prepared.spec.train, fusions_of(self.prepared.graph)
        if train is None or not fusions:
            return {}
        data = self.context.encode_split(train.data, train=True)
        means = measure_attention(best.model, activation_batches(data, self.context.tokenizer))
        write_atomically(self.folder / ACTIVATIONS_FILE, format_activations(means))
        members = {name: [str(slot.block) for slot in fusions[name].members] for name in means}
        return {
            "attention": {
                name: {"members": members[name], "sites": sites} for name, sites in means.items()
            }
        }

    def _train_seed(self, seed: int | None) -> TrainedSeed:
        """Train a seed, from its last checkpoint if there is one. A finished seed is loaded."""
        prepared = self.prepared
        set_seed(seed or 0)
        model = self.context.build_model(prepared.graph, prepared.head)
        if seed is None:
            return TrainedSeed(None, model, SeedResult(None, 0, 0.0, []))
        model.update(prepared.trained_parts)
        seed_dir = SeedDir(self.folder / f"seed-{seed}", seed_digest(prepared))
        finished = None if self.fresh else seed_dir.read_result()
        if finished is not None:
            load_state(model, seed_dir.path / STATE_FILE)
            self.sink.stage("train", f"seed {seed} (already finished)")
            return TrainedSeed(seed, model, finished)
        seed_dir.start(fresh=self.fresh)
        self.sink.stage("train", f"seed {seed}")
        with self._timed("train"):
            output = TrainingOutput(seed_dir.path, self.sink.event)
            result = train_seed(prepared, model, self.context.training_data(), seed, output)
        save_state(model, seed_dir.path / STATE_FILE)
        seed_dir.write_result(result)
        return TrainedSeed(seed, model, result)

    def _choose_best(self, seeds: list[TrainedSeed]) -> TrainedSeed:
        """The seed with the best validation score; the first one without validation."""
        task = self.prepared.task
        if task is None or any(one.result.score is None for one in seeds):
            return seeds[0]
        sign = 1 if task.metric.higher_is_better else -1
        return max(seeds, key=lambda one: sign * (one.result.score or 0.0))

    def _save_best(self, best: TrainedSeed) -> None:
        """Save the best composition to `best/`, from which `adaptcompose predict` loads it."""
        with replace_folder(self.folder / BEST_DIR) as draft:
            save_composition(best.model, draft, manifest=publish.manifest_fields(self.prepared))

    def _evaluate(self, seeds: list[TrainedSeed]) -> list[Score]:
        rows = [row for row in self.prepared.rows if isinstance(row.section, EvaluateSection)]
        if not rows:
            return []
        self.sink.stage("evaluate", counted(len(rows), "composition"))
        with self._timed("evaluate"):
            scores = [score for row in rows for score in self._score_row(row, seeds)]
        self.sink.table(*report.score_table(scores, self._baseline))
        return scores

    @property
    def _baseline(self) -> str | None:
        section = self.prepared.spec.report
        return section.baseline if section else None

    def _score_row(self, row: ExperimentRow, seeds: list[TrainedSeed]) -> Iterator[Score]:
        """Yield the scores of each seed; of one only if the row uses no trained weights."""
        section = row.section
        assert isinstance(section, EvaluateSection)
        data = self.context.encode_split(section.data)
        for trained in seeds:
            model = self.context.build_model(row.graph, row.head, trained.model)
            by_seed = _uses_trained_weights(model, trained.model, self.prepared.trained_parts)
            values = prediction.score_model(model, data, self.context.tokenizer, section.metrics)
            seed = trained.seed if by_seed else None
            for metric, value in values.items():
                yield Score(
                    section.name, str(section.data), metric, float(value), seed, section.variables
                )
            if not by_seed:
                break

    def _predict(self, best: TrainedSeed) -> None:
        for row in self.prepared.rows:
            section = row.section
            if not isinstance(section, PredictSection):
                continue
            self.sink.stage("predict", section.name)
            model = self.context.build_model(row.graph, row.head, best.model)
            records = prediction.prediction_records(
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
    """Whether a model uses weights that the run trained: of a part, or of the head."""
    head = model.head is not None and source.head is not None and "head" in trained
    if head and model.head.slots is source.head.slots:  # type: ignore[union-attr]
        return True
    return any(name in trained for name, _ in model.parts.items())
