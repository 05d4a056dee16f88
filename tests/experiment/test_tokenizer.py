"""A replaced tokenizer is pinned, checked against the embeddings, and published."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.experiment.data.encoding import open_tokenizer
from adaptcompose.experiment.prepare.preparer import prepare_runs
from adaptcompose.experiment.prepare.spec_lock import lock_path
from adaptcompose.experiment.run.text_prediction import predict_texts
from adaptcompose.experiment.spec.spec import read_specs
from adaptcompose.hub.lock import Lock
from adaptcompose.runtime.saving.loader import load
from tests.workshop import SPECIAL, WORDS, Workshop

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def make_other(folder: Path, *more: str) -> None:
    """The words of the backbone's tokenizer in another order."""
    numbers = {word: number for number, word in enumerate([*SPECIAL, *reversed(WORDS), *more])}
    inner = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}
    made = PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=32, **names)
    made.save_pretrained(str(folder))


def spec(shop: Workshop, tokenizer: str, **more: object) -> Path:
    base = {"model": "./base", "as": "demo/base", "tokenizer": tokenizer}
    start = {
        "backbone": base,
        "compose": "pfeiffer(reduction=4)",
        "task": {"kind": "text-classification"},
        "data": shop.data("jsonl"),
        "train": {"data": "d", "steps": 1, "batch": 4},
        "publish": {"repo": "me/out", "license": "apache-2.0"},
    }
    return shop.spec(**(start | more))


def in_hub(shop: Workshop) -> str:
    make_other(shop.root / "other")
    return shop.commit("demo/tok", shop.root / "other")


def ids(folder: Path) -> list[int]:
    found: list[int] = open_tokenizer(folder, "text-classification")("amina nairobi")["input_ids"]
    return found


@pytest.mark.parametrize("name", ["./other", "demo/tok"])
def test_it_is_used_and_published(shop: Workshop, name: str) -> None:
    revision = in_hub(shop)
    report = shop.run(spec(shop, name))
    assert "tokenizer.json" in report["lock"]["tokenizer"]["files"]
    card = (shop.hub.fetch("me/out") / "README.md").read_text()
    expected = "./tokenizer" if name == "./other" else f"demo/tok@{revision}"
    model = load("me/out", shop.root / "base", str(shop.root / "hub"))
    used = model.composition.tokenizer
    assert used is not None and ids(used.folder()) == ids(shop.root / "other")
    assert ids(shop.root / "other") != ids(shop.root / "base")
    assert f"with the tokenizer of `{expected[:16]}" in card
    texts = ["amina lives nairobi"]
    published = predict_texts(
        "me/out", texts, backbone=str(shop.root / "base"), hub=str(shop.root / "hub")
    )
    assert predict_texts(str(shop.root / "runs/demo"), texts) == published


def test_it_is_pinned(shop: Workshop) -> None:
    in_hub(shop)
    path = spec(shop, "demo/tok")
    lock = prepare_runs(read_specs(path), path)[0].lock
    lock.write(lock_path(path))
    assert Lock.load(lock_path(path)) == lock
    make_other(shop.root / "other", "more")
    newer = shop.commit("demo/tok", shop.root / "other")
    assert prepare_runs(read_specs(path), path)[0].lock == lock
    specs = read_specs(path)
    assert prepare_runs(specs, path, rewrite_lock=True)[0].lock == lock
    upgraded = prepare_runs(specs, path, rewrite_lock=True, upgrade=("tokenizer",))[0].lock
    assert upgraded.tokenizer is not None and upgraded.tokenizer.revision == newer
    lock_path(path).unlink()
    local = spec(shop, "./other")
    prepare_runs(read_specs(local), local)[0].lock.write(lock_path(local))
    make_other(shop.root / "other", "less")
    with pytest.raises(Failed, match=r"AC410.*`backbone.tokenizer` \(tokenizer.json"):
        prepare_runs(read_specs(local), local)


def test_its_tokens_must_have_embeddings(shop: Workshop) -> None:
    make_other(shop.root / "other", "one", "two")
    with pytest.raises(Failed) as caught:
        shop.run(spec(shop, "./other"))
    (found,) = caught.value.diagnostics
    assert found.code == "AC605" and found.span is not None and found.span.text == "./other"
    size = len(SPECIAL) + len(WORDS)
    assert f"at most {size} tokens" in found.message and found.message.endswith(
        f"is one with {size + 2}"
    )


@pytest.mark.parametrize(("name", "code"), [("./data", "AC418"), ("./gone", "AC412")])
def test_a_place_without_a_tokenizer(shop: Workshop, name: str, code: str) -> None:
    path = spec(shop, name)
    with pytest.raises(Failed) as caught:
        prepare_runs(read_specs(path), path)
    (found,) = caught.value.diagnostics
    assert found.code == code and found.span is not None and found.span.text == name


def test_a_published_one_names_no_folder_of_this_machine(shop: Workshop) -> None:
    make_other(shop.root / "other")
    shop.run(spec(shop, "./other"))
    folder = shop.root / "runs/demo/best"
    text = (folder / "composition.yaml").read_text()
    (folder / "composition.yaml").write_text(text.replace("./tokenizer", "/etc"))
    with pytest.raises(Failed, match="AC413"):
        load(folder, shop.root / "base", str(shop.root / "hub"))
