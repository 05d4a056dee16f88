"""Encode examples and decode predictions, with a small tokenizer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForTokenClassification,
    RobertaTokenizer,
    Trainer,
    TrainingArguments,
)

from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.experiment.data.encoding import (
    IGNORED_LABEL,
    encode,
    make_collator,
    make_logits_reducer,
    max_input_length,
    open_tokenizer,
)
from adaptcompose.experiment.data.examples import Examples, examples_from_texts
from adaptcompose.experiment.data.tasks import Task, make_task
from adaptcompose.experiment.spec.sections import TaskSection

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
PIECES = ["jam", "##bo", "sara", "reid", "na", "a", "b", "c", "##c", "d", "##d"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    vocabulary = {piece: number for number, piece in enumerate(SPECIAL + PIECES)}
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
    inner.normalizer = normalizers.Replace("\u200b", "")
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [("<s>", 0), ("</s>", 2)]
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ends
    )
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", cls_token="<s>",
        sep_token="</s>", pad_token="<pad>", unk_token="<unk>", mask_token="<mask>",
        model_max_length=64,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("tokenizer")
    made.save_pretrained(str(folder))
    return open_tokenizer(folder, "masked-lm")


def tagged(*pairs: tuple[str, str]) -> Examples:
    rows = tuple((tuple(words.split(" ")), tuple(labels.split(" "))) for words, labels in pairs)
    return Examples(("tokens", "labels"), rows, tuple((0, n) for n in range(1, len(rows) + 1)))


def task_of(kind: str, examples: Examples | None = None, **keys: Any) -> Task:
    return make_task(TaskSection(kind=kind, **keys), examples)


def test_the_first_token_of_a_word_carries_its_label(tokenizer: Any) -> None:
    examples = tagged(("jambo sara", "O B-PER"))
    found = encode(task_of("token-classification", examples), examples, tokenizer, 16)
    (feature,) = found.features
    assert tokenizer.convert_ids_to_tokens(feature["input_ids"]) == [
        "<s>", "jam", "##bo", "sara", "</s>",
    ]  # fmt: skip
    assert feature["labels"] == [IGNORED_LABEL, 1, IGNORED_LABEL, 0, IGNORED_LABEL]
    assert found.word_tokens == ({0: 1, 1: 3},)
    assert (found.truncated, found.untokenised_words) == (0, 0)


def test_predictions_come_back_to_every_word(tokenizer: Any) -> None:
    examples = tagged(("jambo sara", "O B-PER"), ("a \u200b reid", "O O B-PER"))
    found = encode(task_of("token-classification", examples), examples, tokenizer, 16)
    assert found.untokenised_words == 1
    predictions = [[9, 1, 9, 0, 9], [9, 0, 1, 9, 9]]
    assert found.decode(predictions) == [["O", "B-PER"], ["B-PER", "O", "O"]]
    assert found.score(predictions, ["accuracy"]) == {"accuracy": 3 / 5}


def test_words_that_are_cut_off_count_as_mistakes(tokenizer: Any) -> None:
    examples = tagged(("a b sara reid", "O O B-PER I-PER"))
    found = encode(task_of("token-classification", examples), examples, tokenizer, 4)
    assert (found.truncated, found.untokenised_words) == (1, 2)
    assert len(found.features[0]["input_ids"]) == 4  # type: ignore[arg-type]
    assert found.decode([[0, 2, 2, 0]]) == [["O", "O", "O", "O"]]
    assert found.score([[0, 2, 2, 0]])["span-f1"] == 0.0


def test_batches_are_padded(tokenizer: Any) -> None:
    examples = tagged(("a", "O"), ("a sara", "O B-PER"))
    task = task_of("token-classification", examples)
    batch = make_collator(task, tokenizer)(list(encode(task, examples, tokenizer, 16)))
    assert batch["input_ids"].tolist() == [[0, 10, 2, 1], [0, 10, 7, 2]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert batch["labels"][0].tolist() == [IGNORED_LABEL, 1, IGNORED_LABEL, IGNORED_LABEL]


def test_texts_and_pairs(tokenizer: Any) -> None:
    rows = ((("a", "b"), "no"), (("c", "a"), "yes"))
    examples = Examples(("text", "labels"), rows, ((0, 1), (0, 2)))
    task = task_of("text-classification", examples)
    found = encode(task, examples, tokenizer, 16)
    assert found.features[0]["input_ids"] == [0, 10, 2, 2, 11, 2]
    batch = make_collator(task, tokenizer)(list(found))
    assert batch["labels"].tolist() == [0, 1]
    assert found.decode([1, 1]) == ["yes", "yes"]
    assert found.score([1, 1]) == {"accuracy": 0.5}


def test_texts_without_labels_can_be_predicted(tokenizer: Any) -> None:
    task = task_of("text-classification", labels=("x", "y"))
    found = encode(task, examples_from_texts(["a", "a b c d a b"]), tokenizer, 4)
    assert found.truncated == 1
    assert "labels" not in make_collator(task, tokenizer)(list(found))


def test_unknown_labels_are_refused(tokenizer: Any) -> None:
    task = task_of("token-classification", tagged(("a b", "O B-PER")))
    with pytest.raises(Failed, match="AC609"):
        encode(task, tagged(("a", "B-LOC")), tokenizer, 8)


TEXTS = examples_from_texts(["a b c d sara reid jambo na"] * 40)


def test_hidden_tokens_are_drawn_from_the_seed(tokenizer: Any) -> None:
    task = task_of("masked-lm", mask=0.3)
    found = encode(task, TEXTS, tokenizer, 16)
    first, again, other = (make_collator(task, tokenizer, seed)(list(found)) for seed in (1, 1, 2))
    assert torch.equal(first["labels"], again["labels"])
    assert not torch.equal(first["labels"], other["labels"])
    hidden = first["labels"] != IGNORED_LABEL
    assert 0.2 < hidden[:, 1:-1].float().mean() < 0.4
    assert not hidden[:, 0].any()


def test_scores_hide_the_same_tokens_each_time(tokenizer: Any) -> None:
    task = task_of("masked-lm", mask=0.05)
    once, again = (encode(task, TEXTS, tokenizer, 16, mask_seed=0) for _ in range(2))
    assert once.features == again.features
    assert all(any(one != IGNORED_LABEL for one in item["labels"]) for item in once)  # type: ignore[union-attr]
    batch = make_collator(task, tokenizer, masked=True)(list(once))
    assert set(batch) == {"input_ids", "attention_mask", "labels"} | set(batch) & {"token_type_ids"}


def test_perplexity_of_a_uniform_guess_is_the_size_of_the_vocabulary(tokenizer: Any) -> None:
    task = task_of("masked-lm")
    found = encode(task, TEXTS, tokenizer, 16, mask_seed=0)
    batch = make_collator(task, tokenizer, masked=True)(list(found))
    logits = torch.zeros(*batch["labels"].shape, 16)
    reduced = make_logits_reducer(task)((logits,), batch["labels"])
    assert found.score(reduced.numpy())["perplexity"] == pytest.approx(16, rel=1e-5)
    truth = batch["labels"].clamp(min=0)
    sure = make_logits_reducer(task)(torch.nn.functional.one_hot(truth, 16) * 50.0, batch["labels"])
    scores = found.score(sure.numpy(), ["masked-accuracy", "perplexity"])
    assert scores == {"masked-accuracy": 1.0, "perplexity": pytest.approx(1.0)}


def test_logits_of_labels_are_reduced_to_numbers() -> None:
    task = task_of("text-classification", labels=("x", "y"))
    assert make_logits_reducer(task)(torch.tensor([[0.0, 1.0], [2.0, 1.0]]), None).tolist() == [
        1,
        0,
    ]


def test_the_longest_input(tokenizer: Any) -> None:
    bert = SimpleNamespace(model_type="bert", max_position_embeddings=32, pad_token_id=0)
    roberta = SimpleNamespace(model_type="roberta", max_position_embeddings=34, pad_token_id=1)
    assert max_input_length(tokenizer, bert) == max_input_length(tokenizer, roberta) == 32
    assert max_input_length(tokenizer, bert, 8) == 8
    with pytest.raises(Failed, match=r"AC605.*at most 32"):
        max_input_length(tokenizer, roberta, 33)


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="AC413"):
        open_tokenizer(tmp_path, "masked-lm")


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokens = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġa", "ab"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    folder = tmp_path_factory.mktemp("byte-level")
    RobertaTokenizer(vocab=vocabulary, merges=[("Ġ", "a"), ("a", "b")]).save_pretrained(str(folder))
    return folder


def test_byte_level_words_have_their_blank_and_texts_do_not(byte_level: Path) -> None:
    examples = tagged(("ab a", "O B-PER"))
    task = task_of("token-classification", examples)
    found = encode(task, examples, open_tokenizer(byte_level, task.kind), 16)
    text = encode(
        task_of("text-classification", labels=("x", "y")),
        examples_from_texts(["ab a"]),
        open_tokenizer(byte_level, "text-classification"),
        16,
    )
    tokenizer = open_tokenizer(byte_level, task.kind)
    shown = [tokenizer.convert_ids_to_tokens(one[0]["input_ids"]) for one in (found, text)]
    assert shown == [["<s>", "Ġa", "b", "Ġa", "</s>"], ["<s>", "ab", "Ġa", "</s>"]]


def test_the_trainer_takes_it_as_it_is(byte_level: Path, tmp_path: Path) -> None:
    examples = tagged(("ab a", "O B-PER"), ("a", "O"), ("a ab a", "O O B-PER"))
    task = task_of("token-classification", examples)
    tokenizer = open_tokenizer(byte_level, task.kind)
    config = RobertaConfig(
        vocab_size=300, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, num_labels=2, max_position_embeddings=34, pad_token_id=1,
    )  # fmt: skip
    found = encode(task, examples, tokenizer, max_input_length(tokenizer, config))
    arguments = TrainingArguments(
        output_dir=str(tmp_path), report_to=[], use_cpu=True, max_steps=60, learning_rate=0.05,
        disable_tqdm=True, save_strategy="no", per_device_eval_batch_size=2,
    )  # fmt: skip
    torch.manual_seed(0)
    trainer = Trainer(
        RobertaForTokenClassification(config),
        arguments,
        data_collator=make_collator(task, tokenizer),
        train_dataset=found,
        preprocess_logits_for_metrics=make_logits_reducer(task),
    )
    trainer.train()
    predictions = trainer.predict(found).predictions
    assert found.decode(predictions) == [list(labels) for _, labels in examples.rows]
