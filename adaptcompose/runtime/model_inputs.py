"""Inputs of causal and encoder-decoder models, and which token a head classifies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from adaptcompose.runtime.heads import IGNORED_LABEL


def given_inputs(**given: Any) -> dict[str, Any]:
    """The inputs that are not None."""
    return {name: value for name, value in given.items() if value is not None}


def flatten_choices(batch: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int | None]:
    """Flatten [examples, choices, tokens] to rows of tokens; returns the number of choices, too."""
    ids = batch.get("input_ids")
    if ids is None or ids.dim() != 3:
        return dict(batch), None
    return {name: tensor.flatten(0, 1) for name, tensor in batch.items()}, ids.shape[1]


def shift_tokens_right(ids: Tensor, config: Any, decoder_start: str = "mark") -> Tensor:
    """Shift ids to the right by one, after the token that decoding starts with.

    That is a mark of the configuration, or the last token of each row: mBART's language.
    """
    padding = config.pad_token_id
    ids = ids.masked_fill(ids == IGNORED_LABEL, padding)
    moved = ids.roll(1, dims=1)
    if decoder_start == "last":
        last = (ids != padding).sum(dim=1, keepdim=True) - 1
        moved[:, :1] = ids.gather(1, last.clamp(min=0))
    else:
        start = config.decoder_start_token_id
        moved[:, 0] = padding if start is None else start
    return moved


def classified_state(
    states: Tensor, batch: Mapping[str, Tensor], config: Any, token_choice: str
) -> Tensor:
    """The state of every row's last token, or of its last end mark, [rows, width]."""
    ids, mask = batch.get("input_ids"), batch.get("attention_mask")
    if mask is None and ids is not None and config.pad_token_id is not None:
        mask = ids != config.pad_token_id
    if token_choice == "end" and ids is not None:
        mask = ids == config.eos_token_id
    real = states.new_ones(states.shape[:2]).bool() if mask is None else mask.bool()
    places = torch.arange(real.shape[1], device=states.device)
    last = torch.where(real, places, 0).amax(dim=1).clamp(max=states.shape[1] - 1)
    last = last.repeat(states.shape[0] // last.shape[0])  # a fan has repeated the rows
    return states[torch.arange(states.shape[0], device=states.device), last]
