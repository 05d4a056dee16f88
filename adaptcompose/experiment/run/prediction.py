"""Score a model on encoded examples, and predict with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch.utils.data import DataLoader

from adaptcompose.experiment.data.encoding import EncodedDataset, make_collator, make_logits_reducer
from adaptcompose.experiment.data.examples import Examples, examples_from_texts
from adaptcompose.experiment.data.tasks import Task
from adaptcompose.runtime.model import ComposedModel

BATCH_SIZE = 64


def predict_examples(model: ComposedModel, encoded: EncodedDataset, tokenizer: Any) -> list[Any]:
    """The reduced logits that `EncodedDataset.decode` reads, one entry per example, in order."""
    return [row for rows in _batches(model, encoded, tokenizer) for row in rows]


def _batches(model: ComposedModel, encoded: EncodedDataset, tokenizer: Any) -> Iterator[Any]:
    task = encoded.task
    reduce = make_logits_reducer(task)
    collate = make_collator(task, tokenizer, masked=True)
    model.eval()
    with torch.inference_mode():
        for batch in DataLoader(encoded, batch_size=BATCH_SIZE, collate_fn=collate):
            inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
            labels = inputs.pop("labels", None)
            yield reduce(model(**inputs).logits, labels).cpu().numpy()


def score_model(
    model: ComposedModel,
    encoded: EncodedDataset,
    tokenizer: Any,
    names: tuple[str, ...] | None = None,
) -> dict[str, float]:
    """The scores of a model on labelled examples, by the names of the metrics."""
    return encoded.score(predict_examples(model, encoded, tokenizer), names)


def examples_for_task(task: Task, texts: Sequence[str]) -> Examples:
    """Texts as examples of a task. For tagging, each text is split into words at whitespace."""
    if task.inputs != ("tokens",):
        return examples_from_texts(texts)
    rows = tuple((tuple(text.split()),) for text in texts)
    return Examples(("tokens",), rows, tuple((0, number) for number in range(1, len(rows) + 1)))


def fill_masks(
    model: ComposedModel, encoded: EncodedDataset, tokenizer: Any
) -> Iterator[list[str]]:
    """Yield, for each text, the most likely word at every mask token in it."""
    extra = {"special_tokens_mask", "labels"}
    plain = [{n: row[n] for n in row.keys() - extra} for row in encoded.features]
    collate = make_collator(encoded.task, tokenizer, masked=True)
    model.eval()
    with torch.inference_mode():
        for batch in DataLoader(cast(Any, plain), batch_size=BATCH_SIZE, collate_fn=collate):
            inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
            best = model(**inputs).logits.argmax(-1)
            hidden = inputs["input_ids"] == tokenizer.mask_token_id
            for tokens, is_mask in zip(best, hidden, strict=True):
                yield [tokenizer.decode([token]).strip() for token in tokens[is_mask].tolist()]


def prediction_records(
    model: ComposedModel, encoded: EncodedDataset, tokenizer: Any
) -> list[dict[str, Any]]:
    """One record per example: its text or tokens, and the prediction of the model."""
    if encoded.task.kind == "masked-lm":
        predictions: list[Any] = list(fill_masks(model, encoded, tokenizer))
    else:
        predictions = encoded.decode(predict_examples(model, encoded, tokenizer))
    names = [name for name in ("text", "tokens") if name in encoded.examples.columns]
    columns = {name: encoded.examples.column(name) for name in names}
    return [
        {name: column[row] for name, column in columns.items()} | {"prediction": prediction}
        for row, prediction in enumerate(predictions)
    ]
