"""Kinds of task: which columns they read, how labels are found, which head and score they want.

>>> from adaptcompose.experiment.data.examples import Examples
>>> rows = Examples(("text", "labels"), (("a", "no"), ("b", "5"), ("c", "no")), ((0, 1),) * 3)
>>> task = make_task(TaskSection(kind="text-classification"), rows)
>>> task.labels, task.metric.name, task.head
(('5', 'no'), 'accuracy', {'task': 'text-classification', 'labels': ['5', 'no']})
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adaptcompose.diagnostics.codes import AC604, AC605, AC606, AC608, AC609, AC614
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed, suggest
from adaptcompose.experiment.data.examples import Examples
from adaptcompose.experiment.spec.sections import TaskSection
from adaptcompose.tasks.metrics import METRICS, TASK_KINDS, Metric, supported_kinds

_ROLES = {
    "text-classification": (("text",), ("labels",)),
    "token-classification": (("tokens",), ("labels",)),
    "masked-lm": (("text",), ()),
}
_SPAN = re.compile(r"O|[BI]-.+")


@dataclass(frozen=True)
class Task:
    """What is predicted, how it is scored, and the head that it wants."""

    kind: str
    labels: tuple[str, ...]
    metric: Metric
    mask_share: float = 0.15

    @property
    def roles(self) -> tuple[str, ...]:
        """The columns that training and scoring read."""
        inputs, outputs = _ROLES[self.kind]
        return (*inputs, *outputs)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns that prediction reads."""
        return _ROLES[self.kind][0]

    @property
    def head(self) -> dict[str, Any] | str:
        """The new head of this task, or `backbone` where the checkpoint's own is meant."""
        if self.kind == "masked-lm":
            return "backbone"
        return {"task": self.kind, "labels": list(self.labels)}

    @property
    def id2label(self) -> dict[int, str]:
        return dict(enumerate(self.labels))

    @property
    def label2id(self) -> dict[str, int]:
        return {label: number for number, label in enumerate(self.labels)}

    def metrics(self, names: Sequence[str] | None = None) -> tuple[Metric, ...]:
        """The named scores, or the task's own."""
        return tuple(_metric(self.kind, name) for name in names) if names else (self.metric,)

    def score(
        self,
        predictions: Sequence[Any],
        references: Sequence[Any],
        names: Sequence[str] | None = None,
    ) -> dict[str, float]:
        """Every score by its name. Predictions are labels, or a list of labels for each example."""
        found = self.metrics(names)
        return {metric.name: metric.compute(predictions, references) for metric in found}

    def check(self, examples: Examples) -> list[Diagnostic]:
        """Unknown labels (errors), and entities that do not start with `B-` (a warning)."""
        if "labels" not in examples.columns:
            return []
        found = list(_label_problems(self.labels, examples))
        if self.kind == "token-classification" and self.metric.name == "span-f1":
            found += _entity_problems(examples)
        return found


def roles_of(kind: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns that a kind of task reads, and those that it learns."""
    if kind not in _ROLES:
        raise Failed(AC604.at(name=f"task.kind: {kind}", known=", ".join(supported_kinds())))
    return _ROLES[kind]


def make_task(
    section: TaskSection, train: Examples | None = None, head_labels: Sequence[str] | None = None
) -> Task:
    """The task of a spec. Its labels: declared, else `head_labels` by a head, else those of `train`.

    Those are the classes that its files name, in their order, or else the labels that occur.
    """
    roles_of(section.kind)
    labels: tuple[str, ...] = ()
    if section.kind != "masked-lm":
        labels = _labels(section, train, head_labels)
    name = section.metric or _default_metric(section.kind, labels)
    metric = _metric(section.kind, name, section)
    if metric.name == "span-f1" and not _are_spans(labels):
        expected = "accuracy or macro-f1, because the labels are not B-…, I-… and O"
        raise Failed(
            AC605.at(
                section.span_of("metric"), name="task.metric", expected=expected, got=f"`{name}`"
            )
        )
    return Task(section.kind, labels, metric, section.mask)


def label_set(examples: Examples) -> tuple[str, ...]:
    """The labels that occur, sorted; of tokens, if each example has a list of them."""
    found: set[str] = set()
    for label in examples.column("labels"):
        found.update([label] if isinstance(label, str) else label)
    return tuple(sorted(found))


def _labels(
    section: TaskSection, train: Examples | None, brought: Sequence[str] | None
) -> tuple[str, ...]:
    if section.labels:
        return tuple(map(str, section.labels))
    if brought:
        return tuple(brought)
    if train is None or "labels" not in train.columns:
        help = "add `labels: [a, b]`; without training there is no data to take them from"
        raise Failed(AC606.at(section.span_of("kind"), section="task", name="labels", help=help))
    labels = train.classes or label_set(train)
    if len(labels) < 2 and section.kind == "text-classification":
        file, line = train.origin(0)
        why = f"all examples have the same label, {', '.join(labels)}"
        raise Failed(AC608.at(None, file=file, line=line, why=why))
    return labels


def _metric(kind: str, name: str, section: TaskSection | None = None) -> Metric:
    known = TASK_KINDS[kind].metrics
    if name in known:
        return METRICS[name]
    place = section.span_of("metric") if section else None
    expected, got = f"one of {', '.join(known)}", f"`{name}`"
    help = suggest(name, known)
    raise Failed(AC605.at(place, name="task.metric", expected=expected, got=got, help=help))


def _default_metric(kind: str, labels: Iterable[str]) -> str:
    """Whole entities where labels are B-…, I-… and O, single tokens elsewhere."""
    if kind == "token-classification" and not _are_spans(labels):
        return "accuracy"
    return TASK_KINDS[kind].metrics[0]


def _are_spans(labels: Iterable[str]) -> bool:
    return all(_SPAN.fullmatch(label) for label in labels)


def _label_problems(labels: Sequence[str], examples: Examples) -> Iterator[Diagnostic]:
    known, told = set(labels), set()
    for row, value in enumerate(examples.column("labels")):
        for label in [value] if isinstance(value, str) else value:
            if label not in known and label not in told:
                told.add(label)
                file, line = examples.origin(row)
                help = suggest(label, labels)
                listed = ", ".join(labels[:20]) + (", …" if len(labels) > 20 else "")
                place = f"{file}:{line}"
                yield AC609.at(None, label=label, place=place, known=listed, help=help)


def _entity_problems(examples: Examples) -> Iterator[Diagnostic]:
    """`I-X` that follows neither `B-X` nor `I-X`: scored as a start, as seqeval does."""
    count, first = 0, ("", "")
    for row, labels in enumerate(examples.column("labels")):
        for before, label in zip(["O", *labels], labels, strict=False):
            if label.startswith("I-") and before[2:] != label[2:]:
                file, line = examples.origin(row)
                first = first if count else (label, f"{file}:{line}")
                count += 1
    if count:
        yield AC614.at(None, label=first[0], place=first[1], count=count)


def decode_classes(task: Task, numbers: Sequence[Any]) -> list[Any]:
    """Labels of class numbers; of lists of them, if each example has one."""
    names: Mapping[int, str] = task.id2label
    return [
        [names[int(one)] for one in number]
        if isinstance(number, (list, tuple))
        else names[int(number)]
        for number in numbers
    ]
