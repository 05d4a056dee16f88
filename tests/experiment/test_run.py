"""Complete runs: training, scores, predictions, reports, and a second run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.experiment.data.encoding import encode, open_tokenizer
from adaptcompose.experiment.data.examples import examples_from_texts
from adaptcompose.experiment.prepare.preparer import lock_path, prepare_runs
from adaptcompose.experiment.run.prediction import predict_examples as run_model
from adaptcompose.experiment.run.text_prediction import predict_texts
from adaptcompose.experiment.spec.spec import read_specs
from adaptcompose.runtime.saving.loader import load as load_model
from adaptcompose.storage.yaml_source import load_yaml
from tests.workshop import Workshop, sentences, tags

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

CLASSES = {"kind": "text-classification"}
FLAGSHIP = "stack(lang=en, task=new) | fuse(glue/*) | drop(bottom=1)"
NEW = {"new": "pfeiffer(reduction=4)"}


def training(**more: Any) -> dict[str, Any]:
    return {"data": "d", "steps": 3, "batch": 4, "lr": 0.02} | more


def flagship(shop: Workshop, form: str = "jsonl", **entries: Any) -> Path:
    start: dict[str, Any] = {
        "adapters": NEW,
        "compose": FLAGSHIP,
        "task": CLASSES,
        "data": shop.data(form),
        "train": training(),
        "evaluate": [{"name": "as trained", "data": "d"}],
    }
    return shop.spec(**{k: v for k, v in (start | entries).items() if v is not None})


def scores(report: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [(s["name"], s["seed"], s["metric"], s["value"]) for s in report["scores"]]


def test_the_format_of_the_data_changes_nothing(shop: Workshop) -> None:
    first, *others = (shop.run(flagship(shop, form, name=form)) for form in ("jsonl", "csv", "tsv"))
    for report in others:
        assert scores(report) == scores(first)
        assert report["seeds"][0]["score"] == first["seeds"][0]["score"]


def test_a_report_says_what_was_run(shop: Workshop) -> None:
    items = [
        {"name": "as trained", "data": "d", "metrics": ["accuracy", "macro-f1"]},
        {"each": {"l": ["sw", "en"]}, "name": "lang ${l}", "data": "d", "pipe": "swap(lang=${l})"},
        {"name": "alone", "data": "d", "compose": "stack(lang=sw, task=new) | drop(bottom=1)"},
    ]
    path = flagship(shop, train=training(seeds=[0, 1]), evaluate=items)
    report = shop.run(path)
    stored = json.loads((shop.root / "runs/demo/report.json").read_text())
    assert stored == json.loads(json.dumps(report))
    assert report["expression"] == FLAGSHIP
    assert report["lock"] == load_yaml(lock_path(path).read_text())
    assert report["lock"]["globs"] == {"glue/*": ["glue/a", "glue/b"]}
    assert set(report["lock"]["adapters"]) == {"lang/en", "lang/sw", "glue/a", "glue/b"}
    assert report["plan"]["parameters"]["trained"] > 0
    assert {"train", "evaluate"} <= report["times"].keys()
    assert report["environment"].keys() >= {"torch", "transformers", "adaptcompose", "threads"}
    assert [entry["seed"] for entry in report["seeds"]] == [0, 1]
    best = max(report["seeds"], key=lambda entry: entry["score"])
    assert report["best_seed"] == best["seed"]
    rows = [(name, seed, metric) for name, seed, metric, _ in scores(report)]
    assert rows == [
        (name, seed, metric)
        for name, metrics in (
            ("as trained", ("accuracy", "macro-f1")),
            ("lang sw", ("accuracy",)),
            ("lang en", ("accuracy",)),
            ("alone", ("accuracy",)),
        )
        for seed in (0, 1)
        for metric in metrics
    ]
    # swapping a part for itself gives the same composition
    by_row = {(name, seed, metric): value for name, seed, metric, value in scores(report)}
    for seed in (0, 1):
        assert by_row["lang en", seed, "accuracy"] == by_row["as trained", seed, "accuracy"]


def test_scores_and_predictions_are_those_of_the_published_model(shop: Workshop) -> None:
    path = flagship(
        shop,
        compose="stack(lang=en, task=new)",
        task={"kind": "token-classification"},
        data=shop.data("conll"),
        train=training(steps=8),
        evaluate=[{"name": "all", "data": "d", "metrics": ["span-f1", "accuracy"]}],
        predict=[{"name": "p", "data": "d"}, {"name": "t", "text": ["amina sees mombasa"]}],
    )
    report = shop.run(path)
    model = load_model(shop.root / "runs/demo")
    words = sentences(5, 5)
    labels = model.composition.head.labels  # type: ignore[union-attr]
    guesses = []
    tokenizer = open_tokenizer(shop.root / "base", "token-classification")
    for sentence in words:
        batch = tokenizer(sentence, is_split_into_words=True, return_tensors="pt")
        found = model(**batch).logits[0].argmax(-1)[1:-1].tolist()
        guesses.append([labels[number] for number in found])
    truths = [tags(sentence) for sentence in words]
    pairs = [p for g, t in zip(guesses, truths, strict=True) for p in zip(g, t, strict=True)]
    accuracy = sum(g == t for g, t in pairs) / len(pairs)
    hits = sum(g == t != "O" for g, t in pairs)
    guessed, true = (sum(pair[side] != "O" for pair in pairs) for side in (0, 1))
    by_metric = {metric: value for _, _, metric, value in scores(report)}
    assert by_metric["accuracy"] == pytest.approx(accuracy)
    # every entity here is one word
    assert by_metric["span-f1"] == pytest.approx(2 * hits / (guessed + true))
    lines = (shop.root / "runs/demo/predictions/p.jsonl").read_text().splitlines()
    assert [json.loads(line)["prediction"] for line in lines] == guesses
    text = json.loads((shop.root / "runs/demo/predictions/t.jsonl").read_text())
    assert text["tokens"] == ["amina", "sees", "mombasa"]
    assert len(text["prediction"]) == 3


def test_masked_lm_is_scored_as_its_numbers_say(shop: Workshop) -> None:
    path = flagship(
        shop,
        adapters={"sw": "language()"},
        compose="stack(lang=sw)",
        task={"kind": "masked-lm", "mask": 0.3},
        data=shop.data("txt"),
        evaluate=[
            {"name": "all", "data": "d", "metrics": ["masked-accuracy"]},
            {"name": "bare", "data": "d", "metrics": ["masked-accuracy"], "compose": "none"},
        ],
    )
    report = shop.run(path)
    model = load_model(shop.root / "runs/demo")
    assert model.composition.head == "backbone"
    spec = read_specs(path)[0]
    task = prepare_runs((spec,), path)[0].task
    assert task is not None
    tokenizer = open_tokenizer(shop.root / "base", "masked-lm")
    encoded = encode(
        task, examples_from_texts([" ".join(w) for w in sentences(5, 5)]), tokenizer, 32, 0
    )
    right = [
        int(token == truth)
        for (token, _), truth in zip(
            encoded.decode(run_model(model, encoded, tokenizer)), encoded.references(), strict=True
        )
    ]
    by_row = {(name, seed): value for name, seed, _, value in scores(report)}
    assert by_row["all", 0] == pytest.approx(sum(right) / len(right))
    assert ("bare", None) in by_row, "nothing trained takes part: it is scored once"


def test_masked_lm_predicts_the_words_at_its_masks(shop: Workshop) -> None:
    texts = ["amina lives <mask> mombasa", "juma <mask> <mask>", "juma sees"]
    path = flagship(
        shop,
        adapters={"sw": "language()"},
        compose="stack(lang=sw)",
        task={"kind": "masked-lm"},
        data=shop.data("txt"),
        predict=[{"name": "t", "text": texts}, {"name": "p", "data": "d"}],
    )
    shop.run(path)
    rows = [
        json.loads(line)
        for line in (shop.root / "runs/demo/predictions/t.jsonl").read_text().splitlines()
    ]
    assert [row["text"] for row in rows] == texts
    assert [len(row["prediction"]) for row in rows] == [1, 2, 0]
    model = load_model(shop.root / "runs/demo")
    tokenizer = open_tokenizer(shop.root / "base", "masked-lm")
    batch = tokenizer(texts[1], return_tensors="pt")
    with torch.no_grad():
        words = model(**batch).logits[0].argmax(-1)[batch["input_ids"][0] == 4]
    assert rows[1]["prediction"] == tokenizer.convert_ids_to_tokens(words)
    said = predict_texts(str(shop.root / "runs/demo"), texts[1:2])
    assert said[0]["prediction"] == rows[1]["prediction"]
    assert said[0]["shown"] == " ".join(["juma", *rows[1]["prediction"]])


def test_what_trains_nothing_is_scored_once(shop: Workshop) -> None:
    path = flagship(
        shop,
        compose="stack(lang=en, task=ner)",
        adapters=None,
        task={"kind": "token-classification", "head": "of-adapter"},
        data=shop.data("conll"),
        train=training(update=["lang"], seeds=[0, 1]),
        evaluate=[
            {"name": "trained", "data": "d"},
            {"name": "not", "data": "d", "pipe": "swap(lang=sw)"},
        ],
    )
    report = shop.run(path)
    assert [(name, seed) for name, seed, *_ in scores(report)] == [
        ("trained", 0),
        ("trained", 1),
        ("not", None),
    ]


def test_a_head_alone_is_trained_and_then_every_item_is_scored_per_seed(shop: Workshop) -> None:
    path = flagship(
        shop,
        compose="stack(lang=en, task=ner)",
        adapters=None,
        task={"kind": "token-classification", "head": "of-adapter"},
        data=shop.data("conll"),
        train=training(update=["head"], seeds=[0, 1]),
        evaluate=[{"name": "other", "data": "d", "pipe": "swap(lang=sw)"}],
    )
    report = shop.run(path)
    assert [seed for _, seed, *_ in scores(report)] == [0, 1]
    with safe_open(shop.root / "runs/demo/seed-0/trained.safetensors", "pt") as file:
        assert all(name.startswith("head/") for name in file.keys())  # noqa: SIM118


def test_without_training_an_adapter_with_a_head_is_scored_as_it_is(shop: Workshop) -> None:
    path = flagship(
        shop,
        compose="stack(lang=en, task=ner)",
        adapters=None,
        task={"kind": "token-classification"},
        data=shop.data("conll", "test"),
        train=None,
    )
    report = shop.run(path)
    assert report["best_seed"] is None
    assert report["seeds"] == []
    assert [seed for _, seed, *_ in scores(report)] == [None]


def test_none_is_the_bare_backbone_with_a_head(shop: Workshop) -> None:
    path = flagship(shop, compose="none", adapters=None)
    report = shop.run(path)
    assert report["graph"] == "none"
    with safe_open(shop.root / "runs/demo/seed-0/trained.safetensors", "pt") as file:
        assert all(name.startswith("head/") for name in file.keys())  # noqa: SIM118


def test_a_finished_run_is_not_trained_again(shop: Workshop) -> None:
    path = flagship(shop)
    first = shop.run(path)
    state = shop.root / "runs/demo/seed-0/trained.safetensors"
    before = state.stat().st_mtime_ns
    assert scores(shop.run(path)) == scores(first)
    assert state.stat().st_mtime_ns == before
    content = state.read_bytes()
    again = shop.run(path, fresh=True)
    assert state.stat().st_mtime_ns != before
    assert state.read_bytes() == content, "the same seed gives the same weights"
    assert scores(again) == scores(first)


def test_what_decides_a_seed_trains_it_again_and_nothing_else(shop: Workshop) -> None:
    shop.run(flagship(shop))
    state = shop.root / "runs/demo/seed-0/trained.safetensors"
    before = state.read_bytes()
    # more seeds and other metrics: the finished seed is reused
    more = [{"name": "x", "data": "d", "metrics": ["macro-f1"]}]
    report = shop.run(flagship(shop, evaluate=more, train=training(seeds=[0, 1])))
    assert state.read_bytes() == before
    assert [seed for _, seed, *_ in scores(report)] == [0, 1]
    # another learning rate: the seed is trained again, with the same lock
    shop.run(flagship(shop, evaluate=more, train=training(lr=0.05)))
    assert state.read_bytes() != before
    # other data at the same path: trained again once the lock is rewritten
    changed = state.read_bytes()
    data = shop.root / "data/train.jsonl"
    data.write_text("".join(reversed(data.read_text().splitlines(keepends=True))))
    path = flagship(shop, evaluate=more, train=training(lr=0.05))
    with pytest.raises(Failed, match=r"AC410.*d/train.*train.jsonl"):
        shop.run(path)
    lock_path(path).unlink()
    shop.run(path)
    assert state.read_bytes() != changed


def test_a_lock_fixes_globs_and_revisions(shop: Workshop) -> None:
    path = flagship(shop)
    first = shop.run(path)
    locked = lock_path(path).read_bytes()
    shop.publish("demo/glue-c", "pfeiffer(reduction=4)", 30, head=None)
    shop.card("glue/c", "demo/glue-c")
    shop.publish("demo/glue-a", "pfeiffer(reduction=4)", 31, head=None)
    assert scores(shop.run(path, fresh=True)) == scores(first)
    assert lock_path(path).read_bytes() == locked
    lock_path(path).unlink()
    report = shop.run(path)
    assert report["lock"]["globs"] == {"glue/*": ["glue/a", "glue/b", "glue/c"]}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"compose": FLAGSHIP.replace("en", "sw")}, "`lang/sw` (new)"),
        ({"compose": FLAGSHIP.replace("bottom=1", "bottom=2")}, "the spec"),
        ({"evaluate": [{"name": "x", "data": "d", "pipe": "swap(lang=sw)"}]}, "`lang/sw` (new)"),
        ({"evaluate": [{"name": "x", "data": "d/validation"}]}, "`d/test` (no longer used)"),
    ],
)
def test_a_lock_of_another_spec_is_out_of_date(
    shop: Workshop, change: dict[str, Any], told: str
) -> None:
    path = flagship(shop)
    shop.run(path)
    before = shop.files()
    flagship(shop, **change)
    with pytest.raises(Failed) as failed:
        shop.run(path)
    found = [(one.code, one.message) for one in failed.value.diagnostics]
    assert ("AC410", f"demo.lock is out of date: {told} changed") in found
    assert "adaptcompose lock" in str(failed.value)
    after = shop.files() | {"demo.yaml": before["demo.yaml"]}
    assert after == before


def test_a_typo_is_told_before_a_lock_that_is_out_of_date(shop: Workshop) -> None:
    path = flagship(shop)
    shop.run(path)
    flagship(shop, compose="stack(lang=en, task=new) | drop(botom=1)")
    with pytest.raises(Failed) as failed:
        shop.run(path)
    assert [one.code for one in failed.value.diagnostics] == ["AC201"]


def test_two_specs_of_one_name_do_not_share_a_folder(shop: Workshop) -> None:
    path = flagship(shop)
    shop.run(path)
    other = shop.root / "other.yaml"
    other.write_text(path.read_text())
    with pytest.raises(Failed, match=r"AC423.*runs/demo.*demo.yaml"):
        shop.run(other)
    path.unlink()
    shop.run(other)  # the first one is gone: a renamed spec goes on with its run


def test_what_only_changes_how_it_is_computed_is_honoured(shop: Workshop) -> None:
    base = {"model": "./base", "as": "demo/base", "dtype": "bfloat16", "attention": "eager"}
    shop.run(flagship(shop, backbone=base, train=training(steps=1)))
    model = load_model(shop.root / "runs/demo")
    assert str(model.composition.backbone.dtype) == "torch.bfloat16"
    assert model.composition.backbone.config._attn_implementation == "eager"
