"""Publishing at the end of a run: the composition that its spec names, with what it scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adaptcompose.composition.canonical_text import format_canonical
from adaptcompose.experiment.data.tasks import Task
from adaptcompose.experiment.prepare.prepared_run import PreparedRun
from adaptcompose.experiment.prepare.preparer import row_tree
from adaptcompose.experiment.report.report import Score
from adaptcompose.experiment.share.model_card import EvalResults
from adaptcompose.experiment.share.push import PushTarget, prepare_push
from adaptcompose.experiment.spec.sections import EvaluateSection, PublishSection
from adaptcompose.hub.store import Store
from adaptcompose.runtime.model import ComposedModel


@dataclass(frozen=True)
class Publication:
    """What is published with a model; `seed` is the one that trained its weights."""

    prepared: PreparedRun
    model: ComposedModel
    scores: Sequence[Score]
    plan: Mapping[str, Any]
    seed: int | None = None

    def eval_results(self, section: PublishSection) -> EvalResults:
        """The scores, and which of them are of what is published."""
        item = next(one for one in self.prepared.rows if one.section is section)
        expression = str(row_tree(section, self.prepared.tree))
        own = rows_of_graph(self.prepared, format_canonical(item.graph))
        return EvalResults(expression, tuple(self.scores), own, self.seed, self.plan["parameters"])


def publish_run(result: Publication, store: Store) -> str:
    """Commit everything at once; returns the new revision. The hub is old or new, never between."""
    spec = result.prepared.spec
    section = spec.publish
    assert section is not None
    target = PushTarget(
        section.repo,
        section.branch,
        private=section.private,
        includes_pinned=section.weights == "all",
        message=section.message or f"{spec.name}, by adaptcompose",
    )
    told, findings = manifest_fields(result.prepared), result.eval_results(section)
    with prepare_push(result.model, told, findings, target, store) as push:
        return push.send().revision


def rows_of_graph(found: PreparedRun, graph: str) -> tuple[str, ...]:
    """The rows of `evaluate` that measure this composition."""
    same = (one.section for one in found.rows if format_canonical(one.graph) == graph)
    return tuple(dict.fromkeys(one.name for one in same if isinstance(one, EvaluateSection)))


def manifest_fields(prepared: PreparedRun) -> dict[str, Any]:
    """What composition.yaml says beside the composition itself."""
    spec = prepared.spec
    task, card = _task_entry(prepared.task), _card_entry(spec.publish)
    return {"name": spec.name, "description": spec.description, "task": task, "card": card}


def _task_entry(task: Task | None) -> dict[str, Any] | None:
    if task is None:
        return None
    entry: dict[str, Any] = {"kind": task.kind, "metric": task.metric.name}
    return entry | ({"labels": list(task.labels)} if task.labels else {})


def _card_entry(section: PublishSection | None) -> dict[str, Any]:
    if section is None:
        return {}
    entry = {
        "license": section.license,
        "languages": list(section.languages),
        "datasets": list(section.datasets),
        "tags": list(section.tags),
    }
    return {name: value for name, value in entry.items() if value}
