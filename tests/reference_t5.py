"""T5 with a composition in it, in plain torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tests.compositions import Tree
from tests.reference import Place, Weights, after, coupled
from tests.tiny import LAYERS


def encode_and_decode(
    base: Any, tree: Tree | None, weights: Weights, batch: Mapping[str, Tensor]
) -> Tensor:
    """The last hidden state of the decoder; the encoder alone has invertible parts."""
    ids, masked = batch["input_ids"], (1 - batch["attention_mask"][:, None, None, :]).bool()
    state = base.encoder.embed_tokens(ids)
    state = state if tree is None else coupled(tree, state, weights)
    read = _blocks(base.encoder, tree, weights, state, masked)
    shifted = torch.cat([torch.zeros_like(ids[:, :1]), ids[:, :-1]], dim=1)
    later = torch.ones(ids.shape[1], ids.shape[1]).triu(1).bool()
    state = base.decoder.embed_tokens(shifted)
    return _blocks(base.decoder, tree, weights, state, later, (read, masked))


def _blocks(
    stack: Any,
    tree: Tree | None,
    weights: Weights,
    state: Tensor,
    masked: Tensor,
    read: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """The layers of the encoder, or of the decoder, which also attends to what is read."""
    name, below = ("encoder", 0) if read is None else ("decoder", LAYERS)
    length = state.shape[1]
    near = stack.block[0].layer[0].SelfAttention.compute_bias(length, length)
    for number, block in enumerate(stack.block):
        for site, layer in (("attn.out", block.layer[0]), ("ffn.out", block.layer[-1])):
            place = Place(site, number, state, lambda total: total, weights, name, below)
            z = layer.layer_norm(state)
            if site == "ffn.out":
                h = layer.DenseReluDense.wo(layer.DenseReluDense.wi(z).clamp(min=0))
            else:
                h = _near(layer.SelfAttention, z, z, masked, near)
            state = after(tree, h, place)
            if site == "attn.out" and read is not None:
                cross = block.layer[1]
                z = cross.layer_norm(state)
                state = state + _near(cross.EncDecAttention, z, *read, torch.zeros(()))
    return stack.final_layer_norm(state)  # type: ignore[no-any-return]


def _near(module: Any, z: Tensor, read: Tensor, masked: Tensor, near: Tensor) -> Tensor:
    """Attention with scores by distance, which no width divides."""
    q, k, v = (
        (one @ linear.weight.T).unflatten(-1, (module.n_heads, -1)).transpose(1, 2)
        for one, linear in ((z, module.q), (read, module.k), (read, module.v))
    )
    scores = (q @ k.mT + near).masked_fill(masked, float("-inf"))
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2) @ module.o.weight.T  # type: ignore[no-any-return]
