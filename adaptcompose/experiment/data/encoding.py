"""Encode examples for a model, and decode its predictions to labels.

Tokenizers and collators are those of transformers.
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
    """Open the fast tokenizer in a folder for a kind of task. It pads and truncates on the right.

    Raises AC413 if the folder has no fast tokenizer.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), **_AS_FILES)
        # Byte-level vocabularies encode a word with the space before it; split words have none.
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


def open_backbone_tokenizer(backbone: Backbone, kind: str, span: Span | None = None) -> Any:
    """The tokenizer of a backbone, or the one that replaces it.

    Raises AC605 if a replacement has more tokens than the backbone has embeddings.
    """
    tokenizer = open_tokenizer(backbone.tokenizer_folder(), kind)
    embeddings = backbone.facts.config.get("vocab_size")
    tokens = max(tokenizer.get_vocab().values(), default=-1) + 1
    if backbone.tokenizer is not None and isinstance(embeddings, int) and tokens > embeddings:
        expected = f"a tokenizer with at most {embeddings:,} tokens, the embeddings of the backbone"
        values = {"name": "backbone.tokenizer", "expected": expected, "got": f"one with {tokens:,}"}
        raise Failed(AC605.at(span, **values))
    return tokenizer


def max_input_length(
    tokenizer: Any, config: Any, requested: int | None = None, span: Span | None = None
) -> int:
    """The largest number of tokens of an input.

    The default is the smaller of the tokenizer's limit and the number of positions. Raises AC605
    if `requested` is larger than the number of positions.
    """
    positions = int(getattr(config, "max_position_embeddings", None) or 512)
    if getattr(config, "model_type", "") in _OFFSET_TYPES:
        # the positions of these models are numbered from pad_token_id + 1
        positions -= int(config.pad_token_id or 0) + 1
    if requested is None:
        return min(positions, int(tokenizer.model_max_length))
    if requested > positions:
        expected = f"at most {positions}, the number of positions of the backbone"
        raise Failed(
            AC605.at(span, name="backbone.max_length", expected=expected, got=str(requested))
        )
    return requested


@dataclass(frozen=True, eq=False)
class EncodedDataset(Dataset[Feature]):
    """Examples with their features (token ids, attention mask, labels), in the same order.

    For token classification, `word_tokens` maps, for each example, the index of a word to the
    position of its first token. `truncated` counts the examples that were too long,
    `untokenised_words` the words without a token.
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
        """The true labels: one per example, a list per example, or all masked tokens in a row."""
        if self.task.kind == "masked-lm":
            return [token for labels in self._hidden_tokens() for token in labels.values()]
        return self.examples.column("labels")

    def decode(self, predictions: Any) -> list[Any]:
        """Turn reduced logits (see `make_logits_reducer`) into labels, in the form of `references`.

        A word without a token (truncated, or dropped by the tokenizer) gets `O`, or the first label
        if there is no `O`. It counts in every score.
        """
        if self.task.kind == "text-classification":
            return [self.task.labels[int(number)] for number in predictions]
        if self.task.kind == "masked-lm":
            return [
                (int(predictions[row][position][0]), float(predictions[row][position][1]))
                for row, hidden in enumerate(self._hidden_tokens())
                for position in hidden
            ]
        labels = self.task.labels
        default = "O" if "O" in labels else labels[0]
        decoded = []
        for row, (positions, tokens) in enumerate(
            zip(self.word_tokens, self.examples.column("tokens"), strict=True)
        ):
            classes = {word: int(predictions[row][at]) for word, at in positions.items()}
            words = range(len(tokens))
            decoded.append([labels[classes[w]] if w in classes else default for w in words])
        return decoded

    def score(self, predictions: Any, names: Sequence[str] | None = None) -> dict[str, float]:
        """The scores of reduced logits, which must be in the order of the examples.

        A Trainer that groups examples by length (`train_sampling_strategy`) predicts in another
        order; use one that does not.
        """
        return self.task.score(self.decode(predictions), self.references(), names)

    def _hidden_tokens(self) -> list[dict[int, int]]:
        """For each example of masked-lm, a mapping from position to masked token."""
        return [
            {position: token for position, token in enumerate(labels) if token != IGNORED_LABEL}
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
    """Encode examples as features of at most `max_length` tokens.

    With `mask_seed`, the tokens of masked-lm are masked here, always the same ones. Raises AC609
    if examples have labels that the task does not have.
    """
    if problems := select_errors(task.check(examples)):
        raise Failed(problems)
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
    truncated = sum(bool(encoding.overflowing) for encoding in batch.encodings)
    return EncodedDataset(task, examples, tuple(features), truncated=truncated)


def make_collator(task: Task, tokenizer: Any, seed: int = 0, *, masked: bool = False) -> Any:
    """Make a collator, which puts features into padded batches.

    For masked-lm it masks random tokens in every batch, drawn from `seed`; not so with `masked`,
    for features that `encode(…, mask_seed=…)` has masked already.
    """
    if task.kind == "masked-lm" and not masked:
        return DataCollatorForLanguageModeling(
            tokenizer, mlm_probability=task.mask_share, seed=seed
        )
    if task.kind == "text-classification":
        return DataCollatorWithPadding(tokenizer)
    return DataCollatorForTokenClassification(tokenizer, label_pad_token_id=IGNORED_LABEL)


def make_logits_reducer(task: Task) -> Callable[[Any, Any], torch.Tensor]:
    """Make a function that reduces the logits of a batch to what scores need.

    It returns the indices of the best classes (batch, or batch × length). For masked-lm it returns
    pairs (best token, log-probability of the true token), batch × length × 2. It is meant for
    `preprocess_logits_for_metrics` of the Trainer: the full logits of a test set over a vocabulary
    would not fit into memory.
    """

    def reduce(logits: Any, labels: Any) -> torch.Tensor:
        scores = logits[0] if isinstance(logits, tuple) else logits
        best: torch.Tensor = scores.argmax(-1)
        if task.kind != "masked-lm":
            return best
        true_tokens = labels.clamp(min=0)[..., None]
        truth = scores.float().log_softmax(-1).gather(-1, true_tokens)[..., 0]
        return torch.stack([best.to(truth.dtype), truth], -1)

    return reduce


def _encode_words(
    task: Task, examples: Examples, tokenizer: Any, max_length: int
) -> EncodedDataset:
    """Encode words. The first token of a word gets its label; the loss ignores the others."""
    tokens = [list(words) for words in examples.column("tokens")]
    batch = tokenizer(tokens, is_split_into_words=True, truncation=True, max_length=max_length)
    features, word_tokens = _features(batch), []
    truths = examples.column("labels") if "labels" in examples.columns else None
    for row, feature in enumerate(features):
        word_ids = [None, *batch.word_ids(row)]
        positions = {
            word: position
            for position, (before, word) in enumerate(pairwise(word_ids))
            if word is not None and word != before
        }
        word_tokens.append(positions)
        if truths is not None:
            labels = [IGNORED_LABEL] * (len(word_ids) - 1)
            for word, position in positions.items():
                labels[position] = task.label2id[truths[row][word]]
            feature["labels"] = labels
    untokenised = sum(len(words) for words in tokens) - sum(map(len, word_tokens))
    truncated = sum(bool(encoding.overflowing) for encoding in batch.encodings)
    return EncodedDataset(
        task, examples, tuple(features), tuple(word_tokens), truncated, untokenised
    )


def _features(batch: Any) -> list[Feature]:
    return [{name: batch[name][row] for name in batch} for row in range(len(batch["input_ids"]))]


def _mask_features(task: Task, features: list[Feature], tokenizer: Any, seed: int) -> list[Feature]:
    hide = make_collator(task, tokenizer, seed)
    return [_mask_feature(hide, feature) for feature in features]


def _mask_feature(hide: Any, feature: Feature) -> Feature:
    """One masked example. Draws up to 100 times until at least one token is masked."""
    for _ in range(100):
        masked = {name: tensor[0].tolist() for name, tensor in hide([dict(feature)]).items()}
        if any(label != IGNORED_LABEL for label in masked["labels"]):
            break
    return masked
