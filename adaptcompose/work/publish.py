"""Publishing: the saved composition, its lock and its card go to the hub in one commit."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from adaptcompose.documents import dump
from adaptcompose.hub.formats import adapterhub
from adaptcompose.hub.store import Store, listed
from adaptcompose.language.diagnostics import Failed
from adaptcompose.language.mermaid import mermaid
from adaptcompose.resources import resource
from adaptcompose.runtime.manifest import Manifest
from adaptcompose.runtime.model import ComposedModel
from adaptcompose.runtime.saved import save_composition
from adaptcompose.work.prepare import Prepared, tree_of
from adaptcompose.work.report import Score, markdown, pool
from adaptcompose.work.sections import PublishSection, Spec
from adaptcompose.work.tasks import Task

CONFIGURATIONS = (adapterhub.ADAPTER, adapterhub.HEAD, adapterhub.FUSION)
PIPELINES = {
    "text-classification": "text-classification",
    "token-classification": "token-classification",
    "masked-lm": "fill-mask",
}


@dataclass(frozen=True)
class Result:
    """What is published with a model."""

    prepared: Prepared
    model: ComposedModel
    scores: Sequence[Score]
    plan: Mapping[str, Any]

    @property
    def spec(self) -> Spec:
        return self.prepared.spec

    @property
    def task(self) -> Task | None:
        return self.prepared.task


def publish(result: Result, store: Store) -> str:
    """Commit everything at once; returns the new revision. The hub is old or new, never between."""
    section = result.spec.publish
    assert section is not None
    with tempfile.TemporaryDirectory(prefix="adaptcompose-") as name:
        folder = Path(name)
        write_folder(result, section, folder)
        files: dict[str, Path | bytes] = {path: folder / path for path in listed(folder)}
        message = section.message or f"{result.spec.name}, by adaptcompose"
        return store.commit(
            section.repo,
            files,
            message=message,
            delete=_outdated(store, section, files),
            branch=section.branch,
            private=section.private,
        )


def _outdated(store: Store, section: PublishSection, files: Mapping[str, object]) -> set[str]:
    """Parts of an earlier publication that this one has no more; what else is there stays."""
    try:
        old = store.files(section.repo, section.branch)
    except Failed as failed:
        if {one.code for one in failed.diagnostics} & {"AC401", "AC402", "AC412"}:
            return set()  # the first publication, or the first on its branch
        raise
    parts = {str(PurePosixPath(path).parent) for path in old if path.endswith(CONFIGURATIONS)}
    return {path for path in old if str(PurePosixPath(path).parent) in parts} - files.keys()


def write_folder(result: Result, section: PublishSection, folder: Path) -> None:
    """Everything that is published, as files."""
    everything = section.weights == "all"
    save_composition(
        result.model, folder, everything=everything, manifest=manifest(result.prepared)
    )
    (folder / "README.md").write_text(card(result, section, folder), "utf-8")


def manifest(prepared: Prepared) -> dict[str, Any]:
    """What composition.yaml says beside the composition itself."""
    spec = prepared.spec
    task = _task_entry(prepared.task)
    return {"name": spec.name, "description": spec.description, "task": task}


def _task_entry(task: Task | None) -> dict[str, Any] | None:
    if task is None:
        return None
    entry: dict[str, Any] = {"kind": task.kind, "metric": task.metric.name}
    return entry | ({"labels": list(task.labels)} if task.labels else {})


def card(result: Result, section: PublishSection, folder: Path) -> str:
    """The model card: metadata for the hub, the composition, the scores, how to load it."""
    import jinja2

    template = (resource("hub_cards") / "_card.md.jinja").read_text("utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    made = result.model.composition
    return environment.from_string(template).render(
        metadata=dump(metadata(result, section)),
        name=result.spec.name,
        description=result.spec.description,
        written=str(tree_of(section, result.prepared.tree)),
        published=Manifest.open(folder, section.repo).expression,
        graph=mermaid(made.graph, made.facts),
        backbone=made.facts.title,
        scores=markdown(result.scores) if result.scores else "",
        parameters=result.plan["parameters"],
        repo=section.repo,
    )


def metadata(result: Result, section: PublishSection) -> dict[str, Any]:
    """The front matter, with the keys that the Hub knows."""
    made = result.model.composition
    entry: dict[str, Any] = {"library_name": "adaptcompose", "license": section.license}
    if made.facts.name:
        entry |= {"base_model": made.facts.name, "base_model_relation": "adapter"}
    if result.task is not None:
        entry["pipeline_tag"] = PIPELINES[result.task.kind]
    if section.languages:
        entry["language"] = list(section.languages)
    entry["tags"] = ["adapter-transformers", "adaptcompose", made.facts.type, *section.tags]
    if result.scores and result.task is not None:
        entry["model-index"] = [_index(result, result.task)]
    return entry


def _index(result: Result, task: Task) -> dict[str, Any]:
    """`model-index`: the means over seeds, one entry a row and data set."""
    kind = {"type": PIPELINES[task.kind]}
    results = [
        {
            "task": kind,
            "dataset": {"name": f"{name}: {data}", "type": data},
            "metrics": [{"type": metric, "value": round(cell.mean, 6)}],
        }
        for (name, data, metric), cell in pool(result.scores).items()
    ]
    return {"name": result.spec.name, "results": results}
