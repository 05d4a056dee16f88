"""`adaptcompose run`: lock, plan, train, evaluate, predict, report, publish, as the spec says."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from transformers import PreTrainedModel, set_seed

from adaptcompose.compiler.plan import Plan
from adaptcompose.documents import write_atomically
from adaptcompose.hub.store import open_store
from adaptcompose.language.codes import AC605
from adaptcompose.language.diagnostics import Failed
from adaptcompose.language.graph import Head
from adaptcompose.language.heads import Chosen
from adaptcompose.runtime.compose import build, load_backbone
from adaptcompose.runtime.model import ComposedModel
from adaptcompose.runtime.saved import save_composition
from adaptcompose.work import predict, publish, report
from adaptcompose.work.encode import Encoded, encode, longest_input, open_tokenizer
from adaptcompose.work.prepare import Item, Prepared
from adaptcompose.work.references import DataRef
from adaptcompose.work.report import Score
from adaptcompose.work.sections import EvaluateSection, PredictSection
from adaptcompose.work.train import (
    STATE,
    Place,
    Trained,
    TrainingData,
    device_of,
    load_state,
    save_state,
    train_seed,
)

DONE, BEST = "done.json", "best"


class Sink(Protocol):
    """Where a run tells what it does: a terminal, or nothing."""

    def stage(self, name: str, detail: str = "") -> None:
        """A stage begins."""

    def event(self, entry: dict[str, Any]) -> None:
        """Progress inside a stage."""

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Scores."""


@dataclass
class Run:
    """One run of a prepared spec; results go to `folder`."""

    prepared: Prepared
    plan: Plan
    folder: Path
    sink: Sink
    fresh: bool = False
    times: dict[str, float] = field(default_factory=dict)
    _encoded: dict[tuple[str, bool], Encoded] = field(default_factory=dict)

    def __post_init__(self) -> None:
        prepared = self.prepared
        folder = prepared.backbone.folder()
        section = prepared.spec.backbone
        self.stock: PreTrainedModel = load_backbone(
            folder, with_head=prepared.head == "backbone"
        ).to(device_of(prepared.spec.train.device if prepared.spec.train else "auto"))
        kind = prepared.task.kind if prepared.task else "text-classification"
        self.tokenizer = open_tokenizer(folder, kind)
        self.max_length = longest_input(
            self.tokenizer, self.stock.config, section.max_length, section.place("max_length")
        )

    def run(self) -> dict[str, Any]:
        """Every stage that the spec has; returns what report.json holds."""
        seeds = [self._seed(number) for number in self._seeds()]
        best = self._best(seeds)
        self._keep(best)
        scores = self._evaluate(seeds)
        self._predict(best.model)
        found = self._report(seeds, scores, best)
        if self.prepared.spec.publish is not None:
            found["published"] = self._publish(best, scores)
        report.write(self.folder, found)
        return found

    def _seeds(self) -> tuple[int | None, ...]:
        train = self.prepared.spec.train
        return train.seeds if train is not None else (None,)

    def _timed(self, name: str) -> Callable[[], None]:
        started = time.monotonic()

        def stop() -> None:
            self.times[name] = self.times.get(name, 0.0) + time.monotonic() - started

        return stop

    def _model(
        self, item: Item | None = None, trained: ComposedModel | None = None
    ) -> ComposedModel:
        """The composition, or that of an item over the parts that were trained."""
        prepared = self.prepared
        graph = item.graph if item else prepared.graph
        head: Chosen = item.head if item else prepared.head
        given = dict(trained.parts.items()) if trained else {}
        own = trained is not None and trained.head is not None and isinstance(head, Head)
        slots = trained.head.slots if own and head.part == trained.head.part else None  # type: ignore[union-attr]
        model = build(
            graph, prepared.facts, self.stock, prepared.sources, head=head, given=given, slots=slots
        )
        model.composition = replace(model.composition, backbone_pin=prepared.backbone.pin)
        return model

    def _seed(self, seed: int | None) -> Trained:
        """One trained seed: finished before, gone on with, or from the start."""
        prepared = self.prepared
        set_seed(seed or 0)
        model = self._model()
        if seed is None:
            return Trained(0, model, None, 0, 0.0)
        model.update(prepared.trained)
        place = self.folder / f"seed-{seed}"
        digest = prepared.lock.spec
        finished = None if self.fresh else _finished(place, digest)
        if finished is not None:
            load_state(model, place / STATE)
            self.sink.stage("train", f"seed {seed} (done before)")
            return Trained(seed, model, finished["score"], finished["steps"], finished["seconds"])
        if self.fresh or _digest_of(place) != digest:
            shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True, exist_ok=True)
        write_atomically(place / "digest", digest)
        self.sink.stage("train", f"seed {seed}")
        stop = self._timed("train")
        trained = train_seed(
            prepared, model, self._training_data(), seed, Place(place, self.sink.event)
        )
        stop()
        save_state(model, place / STATE)
        for checkpoint in place.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
        entry: dict[str, Any] = {"digest": digest, "score": trained.score, "steps": trained.steps}
        entry |= {"seconds": round(trained.seconds, 2), "curve": trained.curve}
        write_atomically(place / DONE, json.dumps(entry, indent=2))
        return trained

    def _training_data(self) -> TrainingData:
        section = self.prepared.spec.train
        assert section is not None
        validation = self._examples(section.validation) if section.validation else None
        return TrainingData(self.tokenizer, self._examples(section.data, train=True), validation)

    def _examples(self, ref: DataRef, *, train: bool = False, labelled: bool = True) -> Encoded:
        """Encoded once; masked-lm hides the same tokens whenever a split is scored."""
        key = (str(ref), train)
        if key not in self._encoded:
            task = self.prepared.task
            assert task is not None
            examples = self.prepared.examples(ref, labelled=labelled)
            seed = None if train else 0
            self._encoded[key] = encode(task, examples, self.tokenizer, self.max_length, seed)
        return self._encoded[key]

    def _best(self, seeds: list[Trained]) -> Trained:
        task = self.prepared.task
        if task is None or any(one.score is None for one in seeds):
            return seeds[0]
        sign = 1 if task.metric.higher else -1
        return max(seeds, key=lambda one: sign * (one.score or 0.0))

    def _keep(self, best: Trained) -> None:
        """The best composition, where `predict` of this run finds it."""
        place = self.folder / BEST
        shutil.rmtree(place, ignore_errors=True)
        save_composition(best.model, place, manifest=publish.manifest(self.prepared))

    def _evaluate(self, seeds: list[Trained]) -> list[Score]:
        items = [i for i in self.prepared.items if isinstance(i.section, EvaluateSection)]
        if not items:
            return []
        self.sink.stage("evaluate", f"{len(items)} compositions")
        stop = self._timed("evaluate")
        scores = [score for item in items for score in self._score(item, seeds)]
        stop()
        self.sink.table(*report.table(scores))
        return scores

    def _score(self, item: Item, seeds: list[Trained]) -> Iterator[Score]:
        """One score a seed, or one in all where nothing that was trained takes part."""
        section = item.section
        assert isinstance(section, EvaluateSection)
        data = self._examples(section.data)
        for trained in seeds:
            model = self._model(item, trained.model)
            alone = not _uses(model, self.prepared.trained)
            found = predict.score(model, data, self.tokenizer, section.metrics)
            for metric, value in found.items():
                seed = None if alone or trained.steps == 0 else trained.seed
                yield Score(section.name, str(section.data), metric, value, seed, section.variables)
            if alone:
                break

    def _predict(self, model: ComposedModel) -> None:
        for item in self.prepared.items:
            section = item.section
            if not isinstance(section, PredictSection):
                continue
            self.sink.stage("predict", section.name)
            records = predict.records(
                self._model(item, model), self._inputs(section), self.tokenizer
            )
            path = self.folder / (section.out or f"predictions/{section.name}.jsonl")
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = (json.dumps(record, ensure_ascii=False) for record in records)
            write_atomically(path, "".join(f"{line}\n" for line in lines))

    def _inputs(self, section: PredictSection) -> Encoded:
        from adaptcompose.work.data import examples_of

        if section.data is not None:
            return self._examples(section.data, labelled=False)
        task = self.prepared.task
        assert section.text is not None and task is not None
        if "tokens" in task.inputs:
            place = section.place("text")
            expected = "left out for token-classification; use data, or adaptcompose predict"
            raise Failed(AC605.at(place, name="predict.text", expected=expected, got="a text"))
        return encode(task, examples_of(section.text), self.tokenizer, self.max_length, 0)

    def _report(self, seeds: list[Trained], scores: list[Score], best: Trained) -> dict[str, Any]:
        prepared = self.prepared
        spec = prepared.spec
        cells = report.pool(scores)
        return {
            "name": spec.name,
            "description": spec.description,
            "expression": str(prepared.tree),
            "graph": str(prepared.graph),
            "lock": prepared.lock.as_plain(),
            "scores": [score.as_dict() for score in scores],
            "table": [
                {"name": name, "data": data, "metric": metric, "mean": c.mean, "sd": c.sd, "n": c.n}
                for (name, data, metric), c in cells.items()
            ],
            "seeds": [
                {"seed": s.seed, "score": s.score, "steps": s.steps, "seconds": round(s.seconds, 2)}
                for s in seeds
                if s.steps
            ],
            "best_seed": best.seed,
            "plan": self.plan.as_dict(),
            "times": {name: round(seconds, 2) for name, seconds in self.times.items()},
            "environment": report.environment(),
        }

    def _publish(self, best: Trained, scores: list[Score]) -> dict[str, str]:
        section = self.prepared.spec.publish
        assert section is not None
        self.sink.stage("publish", section.repo)
        spec = self.prepared.spec
        result = publish.Result(self.prepared, best.model, scores, self.plan.as_dict())
        revision = publish.publish(result, open_store(spec.hub, spec.root))
        return {"repo": section.repo, "revision": revision}


def _uses(model: ComposedModel, trained: frozenset[str]) -> bool:
    head = model.head is not None and "head" in trained and model.head.part == "head"
    return head or any(name in trained for name, _ in model.parts.items())


def _finished(place: Path, digest: str) -> dict[str, Any] | None:
    """What a finished seed left, if it is of this very spec."""
    try:
        entry: dict[str, Any] = json.loads((place / DONE).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return entry if entry.get("digest") == digest and (place / STATE).is_file() else None


def _digest_of(place: Path) -> str | None:
    path = place / "digest"
    return path.read_text("utf-8") if path.is_file() else None
