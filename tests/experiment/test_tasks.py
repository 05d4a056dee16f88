"""Tasks: labels, heads and scores."""

from __future__ import annotations

import math

import pytest
from hypothesis import strategies as st

from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.experiment.data.examples import Examples
from adaptcompose.experiment.data.tasks import decode_classes, make_task
from adaptcompose.experiment.spec.sections import TaskSection
from adaptcompose.tasks.metrics import METRICS, TASK_KINDS, accuracy, macro_f1, perplexity, span_f1
from tests.sampling import sampled

BIO = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def sentences(*labels: list[str]) -> Examples:
    rows = tuple((("w",) * len(one), tuple(one)) for one in labels)
    places = tuple((0, number) for number in range(1, len(rows) + 1))
    return Examples(("tokens", "labels"), rows, places)


def texts(*labels: str) -> Examples:
    rows = tuple(("x", label) for label in labels)
    return Examples(("text", "labels"), rows, tuple((0, n) for n in range(1, len(rows) + 1)))


def test_labels_are_declared_else_brought_else_found() -> None:
    section = TaskSection(kind="text-classification")
    train = texts("b", "a", "b")
    assert make_task(section, train).labels == ("a", "b")
    assert make_task(section, train, head_labels=["b", "a", "c"]).labels == ("b", "a", "c")
    declared = TaskSection(kind="text-classification", labels=("y", "x"))  # type: ignore[arg-type]
    assert make_task(declared, train, head_labels=["b", "a"]).labels == ("y", "x")


def test_without_labels_anywhere_they_are_asked_for() -> None:
    with pytest.raises(Failed, match=r"AC606.*labels"):
        make_task(TaskSection(kind="token-classification"))


def test_one_label_is_no_classification() -> None:
    with pytest.raises(Failed, match=r"AC608.*the same label"):
        make_task(TaskSection(kind="text-classification"), texts("a", "a"))


def test_the_score_fits_the_labels() -> None:
    section = TaskSection(kind="token-classification")
    assert make_task(section, sentences(["B-PER", "I-PER", "O"])).metric.name == "span-f1"
    assert make_task(section, sentences(["NOUN", "VERB"])).metric.name == "accuracy"
    spans = TaskSection(kind="token-classification", metric="span-f1")
    with pytest.raises(Failed, match=r"AC605.*accuracy or macro-f1"):
        make_task(spans, sentences(["NOUN", "VERB"]))


def test_heads() -> None:
    task = make_task(TaskSection(kind="token-classification"), sentences(["O", "B-PER"]))
    assert task.head == {"task": "token-classification", "labels": ["B-PER", "O"]}
    assert task.label2id == {"B-PER": 0, "O": 1}
    assert decode_classes(task, [[0, 1], [1]]) == [["B-PER", "O"], ["O"]]
    language = make_task(TaskSection(kind="masked-lm"))
    assert (language.head, language.metric.name, language.metric.higher_is_better) == (
        "backbone", "perplexity", False,
    )  # fmt: skip


def test_unknown_labels_have_a_place() -> None:
    task = make_task(TaskSection(kind="token-classification"), sentences(list(BIO)))
    (found,) = task.check(sentences(["O"], ["B-PRE", "B-PRE"]))
    assert (found.code, found.severity) == ("AC609", "error")
    assert "`B-PRE` in <text>:2" in found.message
    assert found.help == "did you mean `B-PER`?"


def test_an_entity_that_starts_inside_is_a_warning() -> None:
    task = make_task(TaskSection(kind="token-classification"), sentences(list(BIO)))
    (found,) = task.check(sentences(["O", "I-PER", "I-PER"], ["B-LOC", "I-PER"]))
    assert (found.code, found.severity) == ("AC614", "warning")
    assert found.message.startswith("<text>:1: ")
    assert "(2 in total)" in found.message
    assert task.check(sentences(["B-PER", "I-PER", "B-PER", "O"])) == []


def test_kinds_that_cannot_run_yet_say_so() -> None:
    with pytest.raises(Failed, match=r"AC604.*regression"):
        make_task(TaskSection(kind="regression"))


def test_an_unknown_score_names_the_known_ones() -> None:
    task = make_task(TaskSection(kind="text-classification"), texts("a", "b"))
    with pytest.raises(Failed, match=r"AC605.*accuracy, macro-f1"):
        task.score(["a"], ["a"], ["f1"])
    assert task.score(["a", "b"], ["a", "a"], ["accuracy", "macro-f1"]) == {
        "accuracy": 0.5, "macro-f1": pytest.approx(1 / 3),
    }  # fmt: skip


def test_every_kind_names_scores_that_exist() -> None:
    assert all(name in METRICS for kind in TASK_KINDS.values() for name in kind.metrics)


@sampled(50, st.lists(st.tuples(*[st.sampled_from("abc")] * 2), min_size=1))
def test_macro_f1_is_that_of_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    from sklearn.metrics import f1_score

    guesses, truths = map(list, zip(*pairs, strict=True))
    expected = f1_score(truths, guesses, average="macro", zero_division=0)
    assert macro_f1(guesses, truths) == pytest.approx(expected)


def test_span_f1_counts_whole_entities() -> None:
    truth = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "O"]]
    assert span_f1(truth, truth) == 1.0
    assert span_f1([["B-PER", "O", "O", "B-LOC"], ["O", "O"]], truth) == 0.5
    assert span_f1([["O"] * 4, ["O"] * 2], truth) == 0.0
    assert span_f1([["O"]], [["O"]]) == 0.0
    assert span_f1([["I-PER", "I-PER", "O", "I-LOC"], ["O", "O"]], truth) == 1.0


def test_accuracy_of_tokens_weighs_tokens() -> None:
    assert accuracy([["a"], ["b", "b", "b"]], [["b"], ["b", "b", "b"]]) == 0.75


def test_perplexity_of_certainty_and_of_despair() -> None:
    assert perplexity([(1, 0.0)], [1]) == 1.0
    assert perplexity([(1, -1e9)], [2]) == math.inf


@pytest.mark.parametrize("score", [accuracy, macro_f1, span_f1, perplexity])
def test_predictions_must_fit_the_references(score: object) -> None:
    with pytest.raises(ValueError, match=r"argument 2|no predictions"):
        score([["O"]], [["O"], ["O"]])  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"no predictions"):
        score([], [])  # type: ignore[operator]
