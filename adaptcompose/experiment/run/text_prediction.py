"""`adaptcompose predict`: predict texts with a published composition, a run or an expression."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adaptcompose.composition.graph import Head
from adaptcompose.composition.heads import HEAD_TYPES_BY_TASK
from adaptcompose.composition.operators import parts_of
from adaptcompose.diagnostics.codes import AC412, AC418, AC508, AC512
from adaptcompose.diagnostics.diagnostic import Failed, Source
from adaptcompose.experiment.data.encoding import encode, max_input_length, open_tokenizer
from adaptcompose.experiment.data.tasks import Task
from adaptcompose.experiment.prepare.trainable import untrained_diagnostic
from adaptcompose.experiment.run.prediction import examples_for_task, prediction_records
from adaptcompose.experiment.spec.spec import read_specs
from adaptcompose.hub.opening import open_store
from adaptcompose.resolution.manifest import FILE
from adaptcompose.resolution.tokenizer import VOCABULARY_FILES
from adaptcompose.runtime.branched import BranchedModel
from adaptcompose.runtime.compose import compose
from adaptcompose.runtime.model import ComposedModel
from adaptcompose.runtime.saving.loader import load
from adaptcompose.syntax import parser
from adaptcompose.syntax.references import is_glob, parse_ref
from adaptcompose.tasks.metrics import METRICS
from adaptcompose.tasks.metrics import TASK_KINDS as TASKS


def predict_texts(
    target: str, texts: Sequence[str], *, backbone: str | None = None, hub: str | None = None
) -> list[dict[str, Any]]:
    """One record per text: the `prediction`, and `shown`, a line for the terminal."""
    model = _open_model(target, backbone, hub)
    if not isinstance(model, BranchedModel):
        return _predict(model, texts)
    names = ", ".join(model.names)
    if model.program.branch_layer is None:
        raise Failed(AC512.at(operator="route", what="`adaptcompose predict`", known=names))
    by_branch = {name: _predict(model.branch(name), texts) for name in model.names}
    return [
        _join_branches(text, {name: records[row] for name, records in by_branch.items()})
        for row, text in enumerate(texts)
    ]


def _join_branches(text: str, records: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One record for a text, with the prediction of every branch."""
    predictions = {name: record["prediction"] for name, record in records.items()}
    shown = "\n".join(f"{name}: {record['shown']}" for name, record in records.items())
    return {"text": text, "predictions": predictions, "shown": shown}


def _predict(model: ComposedModel, texts: Sequence[str]) -> list[dict[str, Any]]:
    task = _task_of_head(model)
    pinned = model.composition.tokenizer
    folder = Path(str(model.config._name_or_path)) if pinned is None else pinned.folder()
    if not any((folder / name).is_file() for name in VOCABULARY_FILES):
        raise Failed(AC418.at(name=str(folder), missing="tokenizer.json"))
    tokenizer = open_tokenizer(folder, task.kind)
    examples = examples_for_task(task, texts)
    encoded = encode(task, examples, tokenizer, max_input_length(tokenizer, model.config))
    mask = tokenizer.mask_token if task.kind == "masked-lm" else None
    return [
        record | {"text": text, "shown": _format_prediction(text, record["prediction"], mask)}
        for text, record in zip(texts, prediction_records(model, encoded, tokenizer), strict=True)
    ]


def _open_model(target: str, backbone: str | None, hub: str | None) -> ComposedModel:
    if target.endswith((".yaml", ".yml")):
        run = Path("runs") / read_specs(Path(target))[0].name
        if not (run / "best").is_dir():
            help = f"run the spec first: `adaptcompose run {target}`"
            raise Failed(AC412.at(path=run / "best", root=Path.cwd(), help=help))
        return load(run, backbone, hub)
    if Path(target).is_dir() or _is_published(target, hub):
        return load(target, backbone, hub)
    source = Source(target)
    if backbone is None:
        parser.parse_tree(source)
        help = (
            "add --backbone to use an expression, or name a published composition, a run or a spec"
        )
        raise Failed(AC412.at(source.span(), path=target, root=Path.cwd(), help=help))
    model = compose(source, backbone, hub=hub)
    parts = parts_of(model.composition.graph)
    if new := {name for name, part in parts.items() if part.is_new}:
        raise Failed(
            untrained_diagnostic(
                source.span(), new, "use an expression whose parts are all trained"
            )
        )
    return model


def _is_published(target: str, hub: str | None) -> bool:
    """Whether a text is a reference to a repository with a composition, not with an adapter."""
    try:
        ref = parse_ref(target, ())
    except Failed:
        return False
    if ref.kind != "hub" or ref.repo is None or is_glob(target):
        return False
    store = open_store("hf" if ref.has_hub_prefix else hub or "hf", Path())
    folder = f"{ref.subfolder}/" if ref.subfolder else ""
    return f"{folder}{FILE}" in store.list_files(ref.repo, store.resolve(ref.repo, ref.revision))


def _task_of_head(model: ComposedModel) -> Task:
    """The task that fits the head of a composition. Raises AC508 if no task does."""
    labels: tuple[str, ...] = ()
    head = model.composition.head
    kind = {kind: task for task, kind in HEAD_TYPES_BY_TASK.items()}.get(
        getattr(head, "head_type", "")
    )
    if isinstance(head, Head):
        labels = head.labels
    elif head == "backbone" and type(model.composition.backbone).__name__.endswith("ForMaskedLM"):
        kind = "masked-lm"
    if kind is None:
        help = "use a composition with a head for classification, tagging or masked words"
        raise Failed(AC508.at(what="`adaptcompose predict`", help=help))
    return Task(kind, labels, METRICS[TASKS[kind].metrics[0]])


def _format_prediction(text: str, prediction: Any, mask: str | None = None) -> str:
    """A prediction as a line of text: a label and the text, tagged words, or filled masks.

    >>> _format_prediction("Amina anaishi Mombasa", ["B-PER", "O", "B-LOC"])
    'Amina/B-PER anaishi Mombasa/B-LOC'
    >>> _format_prediction("Amina <mask> <mask>", ["anaishi", "Mombasa"], "<mask>")
    'Amina anaishi Mombasa'
    """
    if mask is not None:
        for word in prediction:
            text = text.replace(mask, word, 1)
        return text
    if not isinstance(prediction, list):
        return f"{prediction}\t{text}"
    words = zip(text.split(), prediction, strict=True)
    return " ".join(word if label == "O" else f"{word}/{label}" for word, label in words)
