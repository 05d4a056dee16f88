"""Publish the best composition of a run, or the one that `publish` derives from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adaptcompose.composition.canonical_text import format_canonical
from adaptcompose.composition.graph import Block
from adaptcompose.experiment.data.tasks import Task
from adaptcompose.experiment.prepare.prepared_run import PreparedRun
from adaptcompose.experiment.prepare.preparer import row_tree
from adaptcompose.experiment.report.report import Score
from adaptcompose.experiment.share.model_card import EvalResults
from adaptcompose.experiment.share.push import PushTarget, prepare_push
from adaptcompose.experiment.spec.sections import EvaluateSection, PublishSection
from adaptcompose.hub.opening import open_store
from adaptcompose.runtime.model import ComposedModel


def publish_run(prepared: PreparedRun, model: ComposedModel, eval_results: EvalResults) -> str:
    """Push a model to the repository of `publish`, in one commit; return the new revision."""
    spec = prepared.spec
    section = spec.publish
    assert section is not None
    target = PushTarget(
        section.repo,
        section.branch,
        private=section.private,
        includes_pinned=section.weights == "all",
        message=section.message or f"{spec.name}, by adaptcompose",
    )
    store = open_store(spec.hub, spec.root)
    with prepare_push(model, manifest_fields(prepared), eval_results, target, store) as push:
        return push.send().revision


def published_eval_results(
    prepared: PreparedRun, scores: Sequence[Score], parameters: Mapping[str, int], seed: int | None
) -> EvalResults:
    """The scores of a run, with the rows that measure the published composition.

    `parameters` are the counts of its plan, `seed` is the one that trained the published weights.
    """
    section = prepared.spec.publish
    assert section is not None
    graph = next(row.graph for row in prepared.rows if row.section is section)
    return EvalResults(
        str(row_tree(section, prepared.tree)),
        tuple(scores),
        rows_with_graph(prepared, graph),
        seed,
        parameters,
    )


def rows_with_graph(prepared: PreparedRun, graph: Block) -> tuple[str, ...]:
    """The names of the rows of `evaluate` that measure exactly this composition."""
    text = format_canonical(graph)
    sections = (row.section for row in prepared.rows if format_canonical(row.graph) == text)
    names = (section.name for section in sections if isinstance(section, EvaluateSection))
    return tuple(dict.fromkeys(names))


def manifest_fields(prepared: PreparedRun) -> dict[str, Any]:
    """The entries of composition.yaml that describe the run: name, description, task, card."""
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
