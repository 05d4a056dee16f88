"""Tasks: the columns that they read, their labels, their metric and their head.

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
    """A kind of task with its labels and its metric. `mask_share` is for masked-lm."""

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
        """The head to choose for this task: a new one, or `backbone` for that of the checkpoint."""
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
        """The named metrics, or the metric of the task."""
        return tuple(_metric(self.kind, name) for name in names) if names else (self.metric,)

    def score(
        self,
        predictions: Sequence[Any],
        references: Sequence[Any],
        names: Sequence[str] | None = None,
    ) -> dict[str, float]:
        """The scores by the names of their metrics.

        Predictions and references have a label, or a list of labels, for each example.
        """
        metrics = self.metrics(names)
        return {metric.name: metric.compute(predictions, references) for metric in metrics}

    def check(self, examples: Examples) -> list[Diagnostic]:
        """AC609 (an error) for unknown labels, AC614 (a warning) for `I-X` without `B-X`."""
        if "labels" not in examples.columns:
            return []
        diagnostics = list(_label_problems(self.labels, examples))
        if self.kind == "token-classification" and self.metric.name == "span-f1":
            diagnostics += _entity_problems(examples)
        return diagnostics


def roles_of(kind: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The input columns and the label columns of a kind of task."""
    if kind not in _ROLES:
        raise Failed(AC604.at(name=f"task.kind: {kind}", known=", ".join(supported_kinds())))
    return _ROLES[kind]


def make_task(
    section: TaskSection, train: Examples | None = None, head_labels: Sequence[str] | None = None
) -> Task:
    """Make the task of a spec.

    Its labels are those of `task.labels`, else `head_labels`, else those of the training examples:
    the class names of their files, or the labels that occur. Raises AC604, AC605, AC606 or AC608
    if the kind, the metric or the labels are not valid.
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
    """The labels that occur in examples, or in lists of labels, sorted."""
    labels: set[str] = set()
    for label in examples.column("labels"):
        labels.update([label] if isinstance(label, str) else label)
    return tuple(sorted(labels))


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
    span = section.span_of("metric") if section else None
    expected, got = f"one of {', '.join(known)}", f"`{name}`"
    help = suggest(name, known)
    raise Failed(AC605.at(span, name="task.metric", expected=expected, got=got, help=help))


def _default_metric(kind: str, labels: Iterable[str]) -> str:
    """The default metric; for tagging without B-…, I-… and O labels it is accuracy."""
    if kind == "token-classification" and not _are_spans(labels):
        return "accuracy"
    return TASK_KINDS[kind].metrics[0]


def _are_spans(labels: Iterable[str]) -> bool:
    return all(_SPAN.fullmatch(label) for label in labels)


def _label_problems(labels: Sequence[str], examples: Examples) -> Iterator[Diagnostic]:
    known, reported = set(labels), set()
    for row, value in enumerate(examples.column("labels")):
        for label in [value] if isinstance(value, str) else value:
            if label not in known and label not in reported:
                reported.add(label)
                file, line = examples.origin(row)
                help = suggest(label, labels)
                listed = ", ".join(labels[:20]) + (", …" if len(labels) > 20 else "")
                place = f"{file}:{line}"
                yield AC609.at(None, label=label, place=place, known=listed, help=help)


def _entity_problems(examples: Examples) -> Iterator[Diagnostic]:
    """Yield AC614 if `I-X` follows neither `B-X` nor `I-X`; seqeval counts it as a start."""
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
    """The labels of class numbers, or of lists of class numbers."""
    names: Mapping[int, str] = task.id2label
    return [
        [names[int(one)] for one in number]
        if isinstance(number, (list, tuple))
        else names[int(number)]
        for number in numbers
    ]
