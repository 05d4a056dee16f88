"""Metrics, which are pure functions of predictions and references, and kinds of task.

>>> METRICS["accuracy"].compute(["a", "b", "b"], ["a", "b", "a"])
0.6666666666666666
>>> METRICS["span-f1"].compute([["B-PER", "I-PER", "O"]], [["B-PER", "O", "O"]])
0.0
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

ScoreFunction = Callable[[Sequence[Any], Sequence[Any]], float]


@dataclass(frozen=True)
class Metric:
    """A metric with its name. A share lies between 0 and 1 and is shown in per cent."""

    name: str
    compute: ScoreFunction
    higher_is_better: bool = True
    is_share: bool = True


@dataclass(frozen=True)
class TaskKind:
    """A kind of task. Its first metric is the default; without metrics it is not supported yet."""

    name: str
    metrics: tuple[str, ...] = ()

    @property
    def is_supported(self) -> bool:
        return bool(self.metrics)


def accuracy(predictions: Sequence[Any], references: Sequence[Any]) -> float:
    """The share of predictions that equal their reference, over examples or over their tokens."""
    pairs = _flat(predictions, references)
    return sum(bool(guess == truth) for guess, truth in pairs) / len(pairs)


def macro_f1(predictions: Sequence[Any], references: Sequence[Any]) -> float:
    """The mean over labels of 2·hits / (predicted + true), as scikit-learn's `average="macro"`.

    >>> macro_f1(["a", "a", "b"], ["a", "b", "b"])
    0.6666666666666666
    """
    pairs = _flat(predictions, references)
    hits = Counter(truth for guess, truth in pairs if guess == truth)
    seen = Counter(label for pair in pairs for label in pair)
    return sum(2 * hits[label] / count for label, count in seen.items()) / len(seen)


def span_f1(predictions: Sequence[Any], references: Sequence[Any]) -> float:
    """Micro F1 over entities, as in seqeval's default mode and the script of CoNLL-2000.

    >>> span_f1([["B-PER", "I-PER", "O", "B-LOC"]], [["B-PER", "I-PER", "O", "O"]])
    0.6666666666666666
    """
    from seqeval.metrics import f1_score

    _flat(predictions, references)
    with warnings.catch_warnings():
        # without any entity the score is 0; a warning would only break the table
        warnings.simplefilter("ignore")
        return float(
            f1_score([list(one) for one in references], [list(one) for one in predictions])
        )


def masked_accuracy(predictions: Sequence[Any], references: Sequence[Any]) -> float:
    """The share of masked tokens that are predicted correctly.

    Each prediction is (token, log-probability of the reference).
    """
    return accuracy([token for token, _ in predictions], references)


def perplexity(predictions: Sequence[Any], references: Sequence[Any]) -> float:
    """exp of the mean negative log-probability of the masked tokens.

    >>> round(perplexity([(7, math.log(0.5)), (8, math.log(0.125))], [7, 9]), 6)
    4.0
    """
    _flat(predictions, references)
    mean = -math.fsum(logarithm for _, logarithm in predictions) / len(predictions)
    return math.exp(mean) if mean < 700 else math.inf


METRICS = {
    metric.name: metric
    for metric in (
        Metric("accuracy", accuracy),
        Metric("macro-f1", macro_f1),
        Metric("span-f1", span_f1),
        Metric("perplexity", perplexity, higher_is_better=False, is_share=False),
        Metric("masked-accuracy", masked_accuracy),
    )
}

TASK_KINDS = {
    kind.name: kind
    for kind in (
        TaskKind("text-classification", ("accuracy", "macro-f1")),
        TaskKind("token-classification", ("span-f1", "accuracy", "macro-f1")),
        TaskKind("masked-lm", ("perplexity", "masked-accuracy")),
        TaskKind("regression"),
        TaskKind("question-answering"),
        TaskKind("multiple-choice"),
        TaskKind("causal-lm"),
        TaskKind("seq2seq-lm"),
    )
}


def supported_kinds() -> list[str]:
    return [kind.name for kind in TASK_KINDS.values() if kind.is_supported]


def _flat(predictions: Sequence[Any], references: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Pairs (prediction, reference) of labels; lists of labels are concatenated.

    Raises ValueError if there are none, or if lengths differ.
    """
    pairs = list(zip(predictions, references, strict=True))
    if references and isinstance(references[0], (list, tuple)):
        pairs = [pair for one in pairs for pair in zip(*one, strict=True)]
    if not pairs:
        raise ValueError("no predictions to score")
    return pairs
