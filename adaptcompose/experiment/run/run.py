"""`adaptcompose run`: train, evaluate, predict, report and publish what was prepared."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from transformers import set_seed

from adaptcompose.compiler.plan import Plan
from adaptcompose.composition.canonical import canonical
from adaptcompose.composition.drawing.svg import svg
from adaptcompose.composition.operators import fusions
from adaptcompose.composition.operators.prune import FILE as ACTIVATIONS
from adaptcompose.composition.operators.prune import as_text
from adaptcompose.diagnostics.codes import AC423
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.experiment.prepare.prepared_run import Prepared
from adaptcompose.experiment.prepare.pruning import batches
from adaptcompose.experiment.prepare.spec_lock import lock_path
from adaptcompose.experiment.prepare.trainable import Item
from adaptcompose.experiment.report import html as page
from adaptcompose.experiment.report import report
from adaptcompose.experiment.report.report import Score
from adaptcompose.experiment.run import predict
from adaptcompose.experiment.run.context import Opened
from adaptcompose.experiment.run.seed_dirs import STATE, Finished, SeedFolder, digest_of
from adaptcompose.experiment.run.train import Place, Trained, load_state, save_state, train_seed
from adaptcompose.experiment.share import publish
from adaptcompose.experiment.spec.sections import EvaluateSection, PredictSection
from adaptcompose.hub.lock import Lock
from adaptcompose.hub.opening import open_store
from adaptcompose.runtime.fusion_attention import measure
from adaptcompose.runtime.model import ComposedModel
from adaptcompose.runtime.saving.writer import save_composition
from adaptcompose.storage.atomic import write_atomically

BEST, OWNER = "best", ".spec"


class Sink(Protocol):
    """Where a run tells what it does: a terminal, or nothing."""

    def stage(self, name: str, detail: str = "") -> None:
        """A stage begins."""

    def event(self, entry: dict[str, Any]) -> None:
        """Progress inside a stage."""

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Scores."""


@dataclass(frozen=True)
class Measured:
    """What a run found before it is published."""

    best: Trained
    scores: list[Score]
    report: dict[str, Any]


@dataclass
class Run:
    """One run of a prepared spec; results go to `folder`.

    Making one opens everything that the run reads, so that nothing is written where a file is
    missing or damaged.
    """

    prepared: Prepared
    plan: Plan
    folder: Path
    sink: Sink
    fresh: bool = False
    times: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_owner(self.folder, self.prepared.path)
        self.opened = Opened(self.prepared)

    def run(self) -> dict[str, Any]:
        """Every stage that the spec has; returns what report.json holds."""
        return self.published(self.measured())

    def measured(self) -> Measured:
        """Everything but publishing."""
        write_atomically(self.folder / OWNER, f"{self.prepared.path.resolve()}\n")
        seeds = [self._seed(number) for number in self._seeds()]
        best = self._best(seeds)
        self._keep(best)
        attention = self._attention(best)
        scores = self._evaluate(seeds)
        self._predict(best)
        self._note_members()
        found = self._report(seeds, scores, best) | attention
        self._write(found)
        return Measured(best, scores, found)

    def published(self, measured: Measured) -> dict[str, Any]:
        """The report of a run, and its best composition on the hub if the spec says so."""
        found = measured.report
        if self.prepared.spec.publish is not None:
            found["published"] = self._publish(measured.best, measured.scores)
            self._write(found)
        return found

    def _write(self, found: dict[str, Any]) -> None:
        """What was found, for programs and for people."""
        prepared = self.prepared
        report.write(self.folder, found)
        drawing = svg(prepared.graph, prepared.facts)
        page.write(self.folder, found, drawing, plotted=prepared.spec.plotted)

    def _seeds(self) -> tuple[int | None, ...]:
        train = self.prepared.spec.train
        return train.seeds if train is not None else (None,)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.times[name] = self.times.get(name, 0.0) + time.monotonic() - started

    def _note_members(self) -> None:
        """What was kept goes into the lock, if that is the one of this run."""
        path, own = lock_path(self.prepared.path), self.prepared.lock
        held = Lock.open(path)
        if held is not None and replace(held, members={}) == replace(own, members={}):
            replace(held, members={**held.members, **self.opened.members}).write(path)

    def _attention(self, best: Trained) -> dict[str, Any]:
        """How much attention each member of the fusions gets: `prune(by=<this run>)`."""
        train, known = self.prepared.spec.train, fusions(self.prepared.graph)
        if train is None or not known:
            return {}
        data = self.opened.examples(train.data, train=True)
        found = measure(best.model, batches(data, self.opened.tokenizer))
        write_atomically(self.folder / ACTIVATIONS, as_text(found))
        members = {name: [str(slot.block) for slot in known[name].members] for name in found}
        return {
            "attention": {name: {"members": members[name], "sites": found[name]} for name in found}
        }

    def _seed(self, seed: int | None) -> Trained:
        """One trained seed: finished before, gone on with, or from the start."""
        prepared = self.prepared
        set_seed(seed or 0)
        model = self.opened.model(prepared.graph, prepared.head)
        if seed is None:
            return Trained(None, model, Finished(None, 0, 0.0, []))
        model.update(prepared.trained)
        place = SeedFolder(self.folder / f"seed-{seed}", digest_of(prepared))
        finished = None if self.fresh else place.finished()
        if finished is not None:
            load_state(model, place.path / STATE)
            self.sink.stage("train", f"seed {seed} (done before)")
            return Trained(seed, model, finished)
        place.start(fresh=self.fresh)
        self.sink.stage("train", f"seed {seed}")
        with self._timed("train"):
            where = Place(place.path, self.sink.event)
            found = train_seed(prepared, model, self.opened.training_data(), seed, where)
        save_state(model, place.path / STATE)
        place.finish(found)
        return Trained(seed, model, found)

    def _best(self, seeds: list[Trained]) -> Trained:
        """The best on validation; the first where nothing was validated."""
        task = self.prepared.task
        if task is None or any(one.result.score is None for one in seeds):
            return seeds[0]
        sign = 1 if task.metric.higher else -1
        return max(seeds, key=lambda one: sign * (one.result.score or 0.0))

    def _keep(self, best: Trained) -> None:
        """The best composition, where `predict` of this run finds it; the old one until then."""
        with replaced(self.folder / BEST) as draft:
            save_composition(best.model, draft, manifest=publish.manifest(self.prepared))

    def _evaluate(self, seeds: list[Trained]) -> list[Score]:
        items = [i for i in self.prepared.items if isinstance(i.section, EvaluateSection)]
        if not items:
            return []
        self.sink.stage("evaluate", f"{len(items)} compositions")
        with self._timed("evaluate"):
            scores = [score for item in items for score in self._score(item, seeds)]
        self.sink.table(*report.table(scores, self._baseline))
        return scores

    @property
    def _baseline(self) -> str | None:
        section = self.prepared.spec.report
        return section.baseline if section else None

    def _score(self, item: Item, seeds: list[Trained]) -> Iterator[Score]:
        """One score a seed, or one in all where nothing that was trained takes part."""
        section = item.section
        assert isinstance(section, EvaluateSection)
        data = self.opened.examples(section.data)
        for trained in seeds:
            model = self.opened.model(item.graph, item.head, trained.model)
            alone = not _shares(model, trained.model, self.prepared.trained)
            found = predict.score(model, data, self.opened.tokenizer, section.metrics)
            seed = None if alone else trained.seed
            for metric, value in found.items():
                yield Score(
                    section.name, str(section.data), metric, float(value), seed, section.variables
                )
            if alone:
                break

    def _predict(self, best: Trained) -> None:
        for item in self.prepared.items:
            section = item.section
            if not isinstance(section, PredictSection):
                continue
            self.sink.stage("predict", section.name)
            model = self.opened.model(item.graph, item.head, best.model)
            records = predict.records(model, self.opened.inputs(section), self.opened.tokenizer)
            path = self.folder / (section.out or f"predictions/{section.name}.jsonl")
            lines = (json.dumps(record, ensure_ascii=False) for record in records)
            write_atomically(path, "".join(f"{line}\n" for line in lines))

    def _report(self, seeds: list[Trained], scores: list[Score], best: Trained) -> dict[str, Any]:
        prepared = self.prepared
        return {
            "name": prepared.spec.name,
            "description": prepared.spec.description,
            "expression": str(prepared.tree),
            "graph": canonical(prepared.graph),
            "lock": prepared.lock.as_plain(),
            "scores": [score.as_dict() for score in scores],
            "own": list(publish.rows(prepared, canonical(prepared.graph))),
            "table": report.cells(scores, self._baseline),
            "seeds": [one.as_dict() for one in seeds if one.seed is not None],
            "best_seed": best.seed,
            "baseline": self._baseline,
            "metric": prepared.task.metric.name if prepared.task else None,
            "plan": self.plan.as_dict(),
            "times": {name: round(seconds, 2) for name, seconds in self.times.items()},
            "environment": report.environment(),
            **({"set": list(prepared.spec.overrides)} if prepared.spec.overrides else {}),
            **({"variables": prepared.spec.variables} if prepared.spec.variables else {}),
        }

    def _publish(self, best: Trained, scores: list[Score]) -> dict[str, str]:
        section = self.prepared.spec.publish
        assert section is not None
        self.sink.stage("publish", section.repo)
        spec = self.prepared.spec
        item = next(one for one in self.prepared.items if one.section is section)
        model = self.opened.model(item.graph, item.head, best.model)
        result = publish.Result(self.prepared, model, scores, self.plan.as_dict(), best.seed)
        revision = publish.publish(result, open_store(spec.hub, spec.root))
        return {"repo": section.repo, "revision": revision}


def _shares(model: ComposedModel, source: ComposedModel, trained: frozenset[str]) -> bool:
    """Whether a model uses anything that was trained."""
    head = model.head is not None and source.head is not None and "head" in trained
    if head and model.head.slots is source.head.slots:  # type: ignore[union-attr]
        return True
    return any(name in trained for name, _ in model.parts.items())


@contextmanager
def replaced(place: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of an old one when it is whole."""
    draft = place.with_name(f".{place.name}")
    shutil.rmtree(draft, ignore_errors=True)
    yield draft
    shutil.rmtree(place, ignore_errors=True)
    draft.replace(place)


def check_owner(folder: Path, spec: Path) -> None:
    """Raise if the folder holds the run of another spec that is still there."""
    note = folder / OWNER
    other = Path(note.read_text("utf-8").strip()) if note.is_file() else spec.resolve()
    if other != spec.resolve() and other.is_file():
        raise Failed(AC423.at(path=folder, other=other))
