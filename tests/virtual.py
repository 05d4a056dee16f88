"""What virtual tokens and keys compute, written down a second time: one row, plain torch.

Rows are without padding, so that agreement with a padded batch says that padding does nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Change = Callable[[Tensor, Tensor], Tensor]
Pair = tuple[Tensor, Tensor]


@dataclass
class Row:
    """What is special about a row.

    `prefixes` are keys and values [length, width] per layer, given what attention reads. `words`
    are embeddings in front of those of the words, `behind` of those that leave the embeddings,
    `before` of them in front of the first word, if not all. Tokens begin at position `start`.
    `change` makes of the output of the feed-forward, and what it reads, another one; `maps` adds to
    queries and values.
    """

    prefixes: dict[int, Callable[[Tensor], list[Pair]]] = field(default_factory=dict)
    words: Tensor | None = None
    behind: Tensor | None = None
    before: int | None = None
    start: int = 0
    change: dict[int, Change] = field(default_factory=dict)
    maps: dict[tuple[int, str], Callable[[Tensor], Tensor]] = field(default_factory=dict)


def encode(base: Any, ids: Tensor, row: Row) -> Tensor:
    """The last states of all tokens, virtual ones among them; the model's eps, BERT's shape."""
    config = base.config
    weights = {_as_in_bert(name): tensor for name, tensor in base.state_dict().items()}
    state = _joined(_embedded(weights, config, ids, row), row.behind, row.before)
    if "embeddings_project.weight" in weights:
        state = _linear(weights, "embeddings_project", state)
    for layer in range(config.num_hidden_layers):
        state = _layer(weights, config, state, layer, row)
    return state


_DISTILBERT = {
    "transformer.layer.": "encoder.layer.",
    ".attention.q_lin.": ".attention.self.query.",
    ".attention.k_lin.": ".attention.self.key.",
    ".attention.v_lin.": ".attention.self.value.",
    ".attention.out_lin.": ".attention.output.dense.",
    ".sa_layer_norm.": ".attention.output.LayerNorm.",
    ".ffn.lin1.": ".intermediate.dense.",
    ".ffn.lin2.": ".output.dense.",
    ".output_layer_norm.": ".output.LayerNorm.",
}


def _as_in_bert(name: str) -> str:
    for theirs, berts in _DISTILBERT.items():
        name = name.replace(theirs, berts)
    return name


def _embedded(weights: dict[str, Tensor], config: Any, ids: Tensor, row: Row) -> Tensor:
    state = weights["embeddings.word_embeddings.weight"][ids]
    if row.words is not None:
        state = _joined(state, row.words, row.before)
    first = config.pad_token_id + 1 if config.model_type.endswith(("roberta", "camembert")) else 0
    places = first + row.start + torch.arange(len(state))
    state = state + weights["embeddings.position_embeddings.weight"][places]
    if "embeddings.token_type_embeddings.weight" in weights:
        state = state + weights["embeddings.token_type_embeddings.weight"][0]
    return _norm(weights, config, "embeddings.LayerNorm", state)


def _joined(state: Tensor, virtual: Tensor | None, before: int | None) -> Tensor:
    if virtual is None:
        return state
    before = len(virtual) if before is None else before
    return torch.cat([virtual[:before], state[:1], virtual[before:], state[1:]])


def _layer(weights: dict[str, Tensor], config: Any, x: Tensor, layer: int, row: Row) -> Tensor:
    stem, heads = f"encoder.layer.{layer}", config.num_attention_heads
    query, key, value = (
        _linear(weights, f"{stem}.attention.self.{name}", x) for name in ("query", "key", "value")
    )
    if (layer, "query") in row.maps:
        query = query + row.maps[layer, "query"](x)
        value = value + row.maps[layer, "value"](x)
    for keys, values in row.prefixes[layer](x) if layer in row.prefixes else []:
        key, value = torch.cat([keys, key]), torch.cat([values, value])
    size = query.shape[1] // heads
    mixed = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = query[:, part] @ key[:, part].T / size**0.5
        mixed.append(scores.softmax(dim=-1) @ value[:, part])
    h = _linear(weights, f"{stem}.attention.output.dense", torch.cat(mixed, dim=1))
    x = _norm(weights, config, f"{stem}.attention.output.LayerNorm", h + x)
    inner = functional.gelu(_linear(weights, f"{stem}.intermediate.dense", x))
    h = _linear(weights, f"{stem}.output.dense", inner)
    if layer in row.change:
        h = row.change[layer](h, x)
    return _norm(weights, config, f"{stem}.output.LayerNorm", h + x)


def _linear(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _norm(weights: dict[str, Tensor], config: Any, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    spread = centred.square().mean(dim=-1, keepdim=True) + getattr(config, "layer_norm_eps", 1e-12)
    return centred / spread.sqrt() * weights[f"{name}.weight"] + weights[f"{name}.bias"]
