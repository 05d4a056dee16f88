"""Examples to tensors and predictions back to labels, with the tokenizers and collators of
transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import (
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
)

from adaptcompose.diagnostics.codes import AC413, AC605
from adaptcompose.diagnostics.diagnostic import Failed, Span, select_errors
from adaptcompose.experiment.data.examples import Examples
from adaptcompose.experiment.data.tasks import Task
from adaptcompose.resolution.backbone import Backbone

IGNORED_LABEL = -100
_AS_FILES: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
_OFFSET_TYPES = {"roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "mpnet", "longformer"}
Feature = dict[str, list[int] | int]


def open_tokenizer(folder: Path, kind: str) -> Any:
    """The fast tokenizer of a folder, as a kind of task uses it, set to pad on the right."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), **_AS_FILES)
        # Byte-level vocabularies know a word by the blank before it, which split texts lack.
        bare = getattr(tokenizer, "add_prefix_space", None) is False
        if bare and kind == "token-classification":
            tokenizer = AutoTokenizer.from_pretrained(
                str(folder), **_AS_FILES, add_prefix_space=True
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Failed(AC413.at(file=f"the tokenizer in {folder}", why=why)) from None
    if not tokenizer.is_fast:
        why = "it has no tokenizer.json"
        raise Failed(AC413.at(file=f"the tokenizer in {folder}", why=why))
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    return tokenizer


def open_backbone_tokenizer(backbone: Backbone, kind: str, place: Span | None = None) -> Any:
    """The tokenizer that texts go through; each token of another than its own has an embedding."""
    tokenizer = open_tokenizer(backbone.tokenizer_folder(), kind)
    most = backbone.facts.config.get("vocab_size")
    needed = max(tokenizer.get_vocab().values(), default=-1) + 1
    if backbone.tokenizer is not None and isinstance(most, int) and needed > most:
        expected = f"a tokenizer with at most {most:,} tokens, the embeddings of the backbone"
        values = {"name": "backbone.tokenizer", "expected": expected, "got": f"one with {needed:,}"}
        raise Failed(AC605.at(place, **values))
    return tokenizer


def max_input_length(
    tokenizer: Any, config: Any, wanted: int | None = None, place: Span | None = None
) -> int:
    """How many tokens an input may have: as wanted, else as the tokenizer and the positions say."""
    positions = int(getattr(config, "max_position_embeddings", None) or 512)
    if getattr(config, "model_type", "") in _OFFSET_TYPES:
        # Their positions start behind the number of the padding token.
        positions -= int(config.pad_token_id or 0) + 1
    if wanted is None:
        return min(positions, int(tokenizer.model_max_length))
    if wanted > positions:
        expected = f"at most {positions}, the number of positions of the backbone"
        raise Failed(
            AC605.at(place, name="backbone.max_length", expected=expected, got=str(wanted))
        )
    return wanted


@dataclass(frozen=True, eq=False)
class EncodedDataset(Dataset[Feature]):
    """Examples as a model takes them, in their order.

    `words` holds, for each example of token classification, the token of each word that has one;
    `truncated` counts examples that were cut, `lost` the words without a token.
    """

    task: Task
    examples: Examples
    features: tuple[Feature, ...]
    word_tokens: tuple[dict[int, int], ...] = ()
    truncated: int = 0
    untokenised_words: int = 0

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> Feature:
        return self.features[index]

    def references(self) -> list[Any]:
        """What is true: a label, the labels of all words, or the hidden tokens laid end to end."""
        if self.task.kind == "masked-lm":
            return [token for labels in self._hidden_tokens() for token in labels.values()]
        return self.examples.column("labels")

    def decode(self, predictions: Any) -> list[Any]:
        """Labels, or labels of every word, out of what `make_logits_reducer` leaves of the logits.

        A word without a token (cut off, or a character that the tokenizer drops) gets `O`, or else
        the first label: it counts in every score.
        """
        if self.task.kind == "text-classification":
            return [self.task.labels[int(number)] for number in predictions]
        if self.task.kind == "masked-lm":
            return [
                (int(predictions[row][place][0]), float(predictions[row][place][1]))
                for row, hidden in enumerate(self._hidden_tokens())
                for place in hidden
            ]
        labels = self.task.labels
        default = "O" if "O" in labels else labels[0]
        found = []
        for row, (places, tokens) in enumerate(
            zip(self.word_tokens, self.examples.column("tokens"), strict=True)
        ):
            numbers = {word: int(predictions[row][place]) for word, place in places.items()}
            found.append(
                [
                    labels[numbers[word]] if word in numbers else default
                    for word in range(len(tokens))
                ]
            )
        return found

    def score(self, predictions: Any, names: Sequence[str] | None = None) -> dict[str, float]:
        """Scores of reduced predictions, in the order of the examples.

        A Trainer that groups by length (`train_sampling_strategy`) evaluates in another order:
        predict with one that does not.
        """
        return self.task.score(self.decode(predictions), self.references(), names)

    def _hidden_tokens(self) -> list[dict[int, int]]:
        """For each example of masked-lm, position to hidden token."""
        return [
            {place: one for place, one in enumerate(labels) if one != IGNORED_LABEL}
            for feature in self.features
            if isinstance(labels := feature.get("labels"), list)
        ]


def encode(
    task: Task,
    examples: Examples,
    tokenizer: Any,
    max_length: int,
    mask_seed: int | None = None,
) -> EncodedDataset:
    """Examples as features. With `mask_seed`, masked-lm hides the same tokens at every reading.

    Raises Failed where examples have labels that the task does not know.
    """
    if found := select_errors(task.check(examples)):
        raise Failed(found)
    if task.kind == "token-classification":
        return _encode_words(task, examples, tokenizer, max_length)
    texts = [(text,) if isinstance(text, str) else text for text in examples.column("text")]
    pairs = [list(column) for column in zip(*texts, strict=True)]
    batch = tokenizer(
        *pairs,
        truncation=True,
        max_length=max_length,
        return_special_tokens_mask=task.kind == "masked-lm",
    )
    features = _features(batch)
    if task.kind == "text-classification" and "labels" in examples.columns:
        for feature, label in zip(features, examples.column("labels"), strict=True):
            feature["labels"] = task.label2id[label]
    if task.kind == "masked-lm" and mask_seed is not None:
        features = _mask_features(task, features, tokenizer, mask_seed)
    truncated = sum(bool(one.overflowing) for one in batch.encodings)
    return EncodedDataset(task, examples, tuple(features), truncated=truncated)


def make_collator(task: Task, tokenizer: Any, seed: int = 0, *, masked: bool = False) -> Any:
    """Puts features of one dataset into padded batches.

    In training, masked-lm hides other tokens each time, drawn from `seed`; `masked` says that the
    features were already given theirs by `encode(…, mask_seed=…)`.
    """
    if task.kind == "masked-lm" and not masked:
        return DataCollatorForLanguageModeling(
            tokenizer, mlm_probability=task.mask_share, seed=seed
        )
    if task.kind == "text-classification":
        return DataCollatorWithPadding(tokenizer)
    return DataCollatorForTokenClassification(tokenizer, label_pad_token_id=IGNORED_LABEL)


def make_logits_reducer(task: Task) -> Callable[[Any, Any], torch.Tensor]:
    """What is kept of a batch's logits: class numbers, or (token, log-probability of the truth).

    The function is a `preprocess_logits_for_metrics` of the Trainer: the logits of a whole test
    set over a whole vocabulary would fill the memory.
    """

    def reduced(logits: Any, labels: Any) -> torch.Tensor:
        scores = logits[0] if isinstance(logits, tuple) else logits
        best: torch.Tensor = scores.argmax(-1)
        if task.kind != "masked-lm":
            return best
        wanted = labels.clamp(min=0)[..., None]
        truth = scores.float().log_softmax(-1).gather(-1, wanted)[..., 0]
        return torch.stack([best.to(truth.dtype), truth], -1)

    return reduced


def _encode_words(
    task: Task, examples: Examples, tokenizer: Any, max_length: int
) -> EncodedDataset:
    """The first token of each word carries its label; the loss skips the others."""
    tokens = [list(words) for words in examples.column("tokens")]
    batch = tokenizer(tokens, is_split_into_words=True, truncation=True, max_length=max_length)
    features, words = _features(batch), []
    truths = examples.column("labels") if "labels" in examples.columns else None
    for row, feature in enumerate(features):
        numbers = [None, *batch.word_ids(row)]
        places = {
            word: place
            for place, (before, word) in enumerate(pairwise(numbers))
            if word is not None and word != before
        }
        words.append(places)
        if truths is not None:
            labels = [IGNORED_LABEL] * (len(numbers) - 1)
            for word, place in places.items():
                labels[place] = task.label2id[truths[row][word]]
            feature["labels"] = labels
    lost = sum(len(one) - len(places) for one, places in zip(tokens, words, strict=True))
    truncated = sum(bool(one.overflowing) for one in batch.encodings)
    return EncodedDataset(task, examples, tuple(features), tuple(words), truncated, lost)


def _features(batch: Any) -> list[Feature]:
    return [{name: batch[name][row] for name in batch} for row in range(len(batch["input_ids"]))]


def _mask_features(task: Task, features: list[Feature], tokenizer: Any, seed: int) -> list[Feature]:
    hide = make_collator(task, tokenizer, seed)
    return [_mask_feature(hide, feature) for feature in features]


def _mask_feature(hide: Any, feature: Feature) -> Feature:
    """One example with its hidden tokens; at least one, wherever the draw allows it."""
    for _ in range(100):
        drawn = {name: tensor[0].tolist() for name, tensor in hide([dict(feature)]).items()}
        if any(label != IGNORED_LABEL for label in drawn["labels"]):
            break
    return drawn
