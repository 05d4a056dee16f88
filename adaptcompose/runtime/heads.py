"""Prediction heads, in the form in which AdapterHub's files describe them.

A head is a sequence of slots; the number of a slot stands in its keys (`heads.ner.1.weight`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from adaptcompose.backbones.layout import Facts
from adaptcompose.composition.graph import Head
from adaptcompose.composition.heads import VOCABULARY_HEAD_TYPES
from adaptcompose.diagnostics.codes import AC413, AC416, AC519
from adaptcompose.diagnostics.diagnostic import Failed, counted
from adaptcompose.runtime.ops.primitives import PrimitiveModule, State, activation

_OF_ROWS = ("classification", "multiple_choice")  # what reads one state a row, not one a token
_MOST_LAYERS = 100  # a file that says more is broken
IGNORED_LABEL = -100  # the label that the loss skips, as everywhere in transformers


class FlexHead(nn.Module):
    """A head on the last hidden state; `inverse` is applied before a vocabulary matrix."""

    def __init__(self, head: Head, facts: Facts, inverse: PrimitiveModule | None = None) -> None:
        super().__init__()
        if head.head_type not in _SLOTS:
            known = f"use a head of one of these kinds: {', '.join(_SLOTS)}"
            raise Failed(AC416.at(name=head.part, kind=head.head_type, help=known))
        self.part = head.part
        self.kind = head.head_type
        self.config = dict(head.config)
        try:
            self.slots = nn.ModuleList(_SLOTS[head.head_type](self.config, facts))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            why = f"its configuration is invalid: {error}"
            raise Failed(AC413.at(file=f"{head.part}: its head", why=why)) from None
        self.inverse = inverse
        self.choices = int(self.config.get("num_choices") or 2)
        scaled = head.head_type != "classification" and facts.layout.scale is not None
        self.scale = facts.layout.scale(facts.config) if scaled and facts.layout.scale else 1.0

    def forward(
        self,
        hidden: Tensor,
        pooled: Tensor | None = None,
        first: Tensor | None = None,
        choices: int | None = None,
    ) -> Tensor:
        """[batch, tokens, width] to logits: [batch, labels], or one row per token.

        Of spans [batch, tokens, 2]: start and end. Of a multiple choice [batch / choices, choices],
        where the choices of an example are rows that follow each other: as many as the input tells,
        else as the file says. `first` is the state of the
        token that is classified, where it is not the first in `hidden`.
        """
        state = hidden
        if self.kind in _OF_ROWS:
            state = hidden[:, 0] if first is None else first
            if self.config.get("use_pooler"):
                assert pooled is not None
                state = pooled
        *inner, last = self.slots
        # a head may be finer than a backbone in half precision
        state = state.to(next(last.parameters()).dtype) * self.scale
        for slot in inner:
            state = slot(state)
        if self.inverse is not None and self.kind in VOCABULARY_HEAD_TYPES:
            state = self.inverse(State(state))
        logits: Tensor = last(state)
        if self.kind != "multiple_choice":
            return logits
        count = choices or self.choices
        if len(logits) % count:
            raise Failed(
                AC519.at(choices=count, problem=f"the batch has {counted(len(logits), 'row')}")
            )
        return logits.view(-1, count)

    def loss(self, logits: Tensor, labels: Tensor, attention_mask: Tensor | None) -> Tensor:
        if self.kind == "classification" and logits.shape[-1] == 1:
            return functional.mse_loss(logits.view(-1), labels.view(-1).to(logits.dtype))
        if self.kind == "question_answering":
            return _loss_of_spans(logits, labels)
        if self.kind == "tagging" and attention_mask is not None:
            labels = labels.masked_fill(attention_mask == 0, IGNORED_LABEL)
        if self.config.get("shift_labels"):
            logits, labels = logits[:, :-1], labels[:, 1:]
        flat = logits.reshape(-1, logits.shape[-1])
        flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
        return functional.cross_entropy(flat, labels.reshape(-1), ignore_index=IGNORED_LABEL)

    def tensors(self) -> dict[str, Tensor]:
        """Weights by their keys below `heads.<name>.`: `1.weight`, …"""
        return {key: tensor.detach() for key, tensor in self.slots.state_dict().items()}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        self.slots.load_state_dict(dict(tensors))

    def init_weights(self, std: float) -> None:
        """New weights: N(0, std), biases zero, as the backbone's own layers start."""
        for module in self.slots:
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def _loss_of_spans(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean loss of starts and ends; positions outside the row are ignored."""
    labels = labels.clamp(min=0)
    labels = labels.masked_fill(labels >= logits.shape[1], IGNORED_LABEL)
    both = zip(logits.unbind(-1), labels.unbind(-1), strict=True)
    losses = [functional.cross_entropy(*one, ignore_index=IGNORED_LABEL) for one in both]
    return torch.stack(losses).mean()


def _choice(config: Mapping[str, Any], facts: Facts) -> list[nn.Module]:
    return _perceptron({**config, "num_labels": 1}, facts)


def _perceptron(config: Mapping[str, Any], facts: Facts) -> list[nn.Module]:
    """`layers` times dropout, linear map and activation; no activation after the last."""
    slots: list[nn.Module] = []
    probability = _dropout(config, facts)
    for number in range(count := _layers(config)):
        last = number == count - 1
        size = int(config["num_labels"]) if last else facts.width
        linear = nn.Linear(facts.width, size, bias=bool(config.get("bias", True)))
        slots += [nn.Dropout(probability), linear]
        if not last and config.get("activation_function"):
            slots.append(_Activation(config["activation_function"]))
    return slots


def _layers(config: Mapping[str, Any]) -> int:
    count = int(config.get("layers", 1))
    if not 1 <= count <= _MOST_LAYERS:
        raise ValueError(f"{count} layers")
    return count


def _dropout(config: Mapping[str, Any], facts: Facts) -> float:
    candidates = [config.get("dropout_prob")]
    candidates += [facts.config.get(key) for key in facts.layout.head_dropout]
    return float(next((found for found in candidates if found is not None), 0.0))


def _language_model(config: Mapping[str, Any], facts: Facts) -> list[nn.Module]:
    slots: list[nn.Module] = []
    width = facts.width
    for _ in range(_layers(config) - 1):
        slots.append(nn.Linear(width, facts.embedding))
        width = facts.embedding
        if config.get("activation_function"):
            slots.append(_Activation(config["activation_function"]))
        if config.get("layer_norm"):
            eps = float(facts.config.get("layer_norm_eps", 1e-12))
            slots.append(nn.LayerNorm(facts.embedding, eps=eps))
    size = int(config.get("vocab_size") or facts.config["vocab_size"])
    slots.append(nn.Linear(width, size, bias=bool(config.get("bias", True))))
    return slots


_SLOTS: dict[str, Callable[[Mapping[str, Any], Facts], list[nn.Module]]] = {
    "classification": _perceptron,
    "tagging": _perceptron,
    "question_answering": _perceptron,
    "multiple_choice": _choice,
    "masked_lm": _language_model,
    "causal_lm": _language_model,
    "seq2seq_lm": _language_model,
}


class _Activation(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.function = activation(name)

    def forward(self, state: Tensor) -> Tensor:
        return self.function(state)


def value_regularisation(value: Tensor) -> Tensor:
    """‖I − W_v‖², which keeps the value map of a fusion near the identity in training."""
    return (
        (torch.eye(value.shape[0], device=value.device, dtype=value.dtype) - value).square().sum()
    )
