"""`adaptcompose predict`: texts through a published composition, a run, a spec or an expression."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adaptcompose.language.codes import AC501, AC508
from adaptcompose.language.diagnostics import Failed, Source
from adaptcompose.language.graph import Head, adapters
from adaptcompose.language.heads import KINDS
from adaptcompose.language.operators import fusions
from adaptcompose.runtime.compose import compose
from adaptcompose.runtime.model import ComposedModel
from adaptcompose.runtime.public import load
from adaptcompose.work.data import Examples, examples_of
from adaptcompose.work.encode import encode, longest_input, open_tokenizer
from adaptcompose.work.metrics import KINDS as TASKS
from adaptcompose.work.metrics import METRICS
from adaptcompose.work.predict import records
from adaptcompose.work.spec import read_spec
from adaptcompose.work.tasks import Task


def answer(
    target: str, texts: Sequence[str], *, backbone: str | None = None, hub: str = "hf"
) -> list[dict[str, Any]]:
    """One record a text: what the composition says, and `shown`, a line for people."""
    model = _model(target, backbone, hub)
    task = _task(model)
    place = Path(str(model.config._name_or_path))
    tokenizer = open_tokenizer(place, task.kind)
    examples = _examples(task, texts)
    encoded = encode(task, examples, tokenizer, longest_input(tokenizer, model.config))
    return [
        record | {"text": text, "shown": _shown(text, record["prediction"])}
        for text, record in zip(texts, records(model, encoded, tokenizer), strict=True)
    ]


def _model(target: str, backbone: str | None, hub: str) -> ComposedModel:
    if target.endswith((".yaml", ".yml")):
        return load(Path("runs") / read_spec(Path(target)).name, backbone, hub)
    if backbone is None or Path(target).is_dir():
        return load(target, backbone, hub)
    model = compose(Source(target), backbone, hub=hub)
    graph = model.composition.graph
    new = [name for name, leaf in adapters(graph).items() if leaf.new]
    new += [name for name, block in fusions(graph).items() if block.new]
    if new:
        names = ", ".join(f"`{name}`" for name in new)
        raise Failed(AC501.at(names=names, help="predict with trained parts only"))
    return model


def _task(model: ComposedModel) -> Task:
    """The task that the composition's head does."""
    head = model.composition.head
    if not isinstance(head, Head):
        help = "give a composition whose head is for classification or tagging"
        raise Failed(AC508.at(what="predict", help=help))
    kind = next(kind for kind, found in KINDS.items() if found == head.kind)
    return Task(kind, head.labels, METRICS[TASKS[kind].metrics[0]])


def _examples(task: Task, texts: Sequence[str]) -> Examples:
    if task.kind != "token-classification":
        return examples_of(texts)
    rows = tuple((tuple(text.split()),) for text in texts)
    return Examples(("tokens",), rows, tuple((0, number) for number in range(1, len(rows) + 1)))


def _shown(text: str, prediction: Any) -> str:
    """A label behind its text, or behind each word that has one.

    >>> _shown("Amina anaishi Mombasa", ["B-PER", "O", "B-LOC"])
    'Amina/B-PER anaishi Mombasa/B-LOC'
    """
    if not isinstance(prediction, list):
        return f"{prediction}\t{text}"
    words = zip(text.split(), prediction, strict=True)
    return " ".join(word if label == "O" else f"{word}/{label}" for word, label in words)
