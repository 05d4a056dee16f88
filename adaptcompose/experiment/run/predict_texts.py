"""`adaptcompose predict`: texts through a published composition, a run, a spec or an expression."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adaptcompose.composition.graph import Head
from adaptcompose.composition.heads import KINDS
from adaptcompose.composition.operators import parts_of
from adaptcompose.diagnostics.codes import AC412, AC418, AC508, AC512
from adaptcompose.diagnostics.diagnostic import Failed, Source
from adaptcompose.experiment.data.encoding import encode, longest_input, open_tokenizer
from adaptcompose.experiment.data.tasks import Task
from adaptcompose.experiment.prepare.trainable import untrained
from adaptcompose.experiment.run.predict import records, texts_for
from adaptcompose.experiment.spec.spec import read_spec
from adaptcompose.hub.opening import open_store
from adaptcompose.resolution.manifest import FILE
from adaptcompose.resolution.tokenizer import TOKENIZERS
from adaptcompose.runtime.branched import BranchedModel
from adaptcompose.runtime.compose import compose
from adaptcompose.runtime.model import ComposedModel
from adaptcompose.runtime.saving.loading import load
from adaptcompose.syntax import parser as syntax
from adaptcompose.syntax.references import is_glob, parse_ref
from adaptcompose.tasks.metrics import KINDS as TASKS
from adaptcompose.tasks.metrics import METRICS


def answer(
    target: str, texts: Sequence[str], *, backbone: str | None = None, hub: str | None = None
) -> list[dict[str, Any]]:
    """One record a text: what the composition says, and `shown`, a line for people."""
    model = _model(target, backbone, hub)
    if not isinstance(model, BranchedModel):
        return _answer(model, texts)
    names = ", ".join(model.names)
    if model.program.fan is None:
        raise Failed(AC512.at(operator="route", what="predict", known=names))
    found = {name: _answer(model.branch(name), texts) for name in model.names}
    return [
        _joined(text, {n: records[row] for n, records in found.items()})
        for row, text in enumerate(texts)
    ]


def _joined(text: str, records: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What every branch says of a text."""
    predictions = {name: record["prediction"] for name, record in records.items()}
    shown = "\n".join(f"{name}: {record['shown']}" for name, record in records.items())
    return {"text": text, "predictions": predictions, "shown": shown}


def _answer(model: ComposedModel, texts: Sequence[str]) -> list[dict[str, Any]]:
    task = _task(model)
    known = model.composition.tokenizer
    place = Path(str(model.config._name_or_path)) if known is None else known.folder()
    if not any((place / name).is_file() for name in TOKENIZERS):
        raise Failed(AC418.at(name=str(place), missing="tokenizer.json"))
    tokenizer = open_tokenizer(place, task.kind)
    examples = texts_for(task, texts)
    encoded = encode(task, examples, tokenizer, longest_input(tokenizer, model.config))
    mask = tokenizer.mask_token if task.kind == "masked-lm" else None
    return [
        record | {"text": text, "shown": _shown(text, record["prediction"], mask)}
        for text, record in zip(texts, records(model, encoded, tokenizer), strict=True)
    ]


def _model(target: str, backbone: str | None, hub: str | None) -> ComposedModel:
    if target.endswith((".yaml", ".yml")):
        run = Path("runs") / read_spec(Path(target)).name
        if not (run / "best").is_dir():
            help = f"run it first: adaptcompose run {target}"
            raise Failed(AC412.at(path=run / "best", root=Path.cwd(), help=help))
        return load(run, backbone, hub)
    if Path(target).is_dir() or _is_published(target, hub):
        return load(target, backbone, hub)
    source = Source(target)
    if backbone is None:
        syntax.parse_tree(source)
        help = "an expression needs --backbone; or name a published composition, a run, a spec"
        raise Failed(AC412.at(source.span(), path=target, root=Path.cwd(), help=help))
    model = compose(source, backbone, hub=hub)
    parts = parts_of(model.composition.graph)
    if new := {name for name, part in parts.items() if part.new}:
        raise Failed(untrained(source.span(), new, "predict with trained parts only"))
    return model


def _is_published(target: str, hub: str | None) -> bool:
    """Whether a text names a repository, and that holds a composition and no adapter."""
    try:
        ref = parse_ref(target, ())
    except Failed:
        return False
    if ref.kind != "hub" or ref.repo is None or is_glob(target):
        return False
    store = open_store("hf" if ref.forced else hub or "hf", Path())
    folder = f"{ref.subfolder}/" if ref.subfolder else ""
    return f"{folder}{FILE}" in store.files(ref.repo, store.resolve(ref.repo, ref.revision))


def _task(model: ComposedModel) -> Task:
    """The task that the composition's head does."""
    labels: tuple[str, ...] = ()
    head = model.composition.head
    kind = {kind: task for task, kind in KINDS.items()}.get(getattr(head, "kind", ""))
    if isinstance(head, Head):
        labels = head.labels
    elif head == "backbone" and type(model.composition.backbone).__name__.endswith("ForMaskedLM"):
        kind = "masked-lm"
    if kind is None:
        help = "give a composition whose head is for classification, tagging or masked words"
        raise Failed(AC508.at(what="predict", help=help))
    return Task(kind, labels, METRICS[TASKS[kind].metrics[0]])


def _shown(text: str, prediction: Any, mask: str | None = None) -> str:
    """A label behind its text, or behind each word that has one; or the text with its masks filled.

    >>> _shown("Amina anaishi Mombasa", ["B-PER", "O", "B-LOC"])
    'Amina/B-PER anaishi Mombasa/B-LOC'
    >>> _shown("Amina <mask> <mask>", ["anaishi", "Mombasa"], "<mask>")
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
