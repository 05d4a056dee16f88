"""BART and mBART with a composition in them, in plain torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tests.compositions import Tree
from tests.reference import Place, Weights, after, coupled, heads, weighed
from tests.tiny import LAYERS

OFFSET = 2  # rows of a table of positions that none of them has


def encode_and_decode(
    base: Any, tree: Tree | None, weights: Weights, batch: Mapping[str, Tensor]
) -> Tensor:
    """The last hidden state of the decoder; the encoder alone has invertible parts."""
    ids, mask = batch["input_ids"], batch["attention_mask"]
    masked = (1 - mask[:, None, None, :]).bool()
    state = _embedded(base.encoder, ids)
    state = state if tree is None else coupled(tree, state, weights)
    read = _layers(base.encoder, tree, weights, state, masked)
    first = torch.full_like(ids[:, :1], base.config.decoder_start_token_id)
    if base.config.model_type == "mbart":
        first = ids.gather(1, mask.sum(dim=1, keepdim=True) - 1)
    state = _embedded(base.decoder, torch.cat([first, ids[:, :-1]], dim=1))
    later = torch.ones(ids.shape[1], ids.shape[1]).triu(1).bool()
    return _layers(base.decoder, tree, weights, state, later, (read, masked))


def _embedded(stack: Any, ids: Tensor) -> Tensor:
    words = stack.embed_tokens.weight[ids] * stack.embed_tokens.embed_scale
    positions = stack.embed_positions.weight[OFFSET : OFFSET + ids.shape[1]]
    return stack.layernorm_embedding(words + positions)  # type: ignore[no-any-return]


def _layers(
    stack: Any,
    tree: Tree | None,
    weights: Weights,
    state: Tensor,
    masked: Tensor,
    read: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Those of the encoder, or of the decoder, which also attends to what is read."""
    name, below = ("encoder", 0) if read is None else ("decoder", LAYERS)
    in_front = hasattr(stack, "layer_norm")
    for number, layer in enumerate(stack.layers):
        for site, norm in _sublayers(layer):
            z = norm(state) if in_front else state
            if site == "ffn.out":
                h = layer.fc2(functional.gelu(layer.fc1(z)))
            elif site == "attn.out":
                h = _attended(layer.self_attn, z, z, masked)
            else:
                assert read is not None
                h = _attended(layer.encoder_attn, z, *read)
            behind = (lambda total: total) if in_front else norm
            place = Place(site, number, state, behind, weights, name, below)
            state = after(None if site == "cross.out" else tree, h, place)
    return stack.layer_norm(state) if in_front else state


def _sublayers(layer: Any) -> Iterator[tuple[str, Any]]:
    yield "attn.out", layer.self_attn_layer_norm
    if hasattr(layer, "encoder_attn"):
        yield "cross.out", layer.encoder_attn_layer_norm
    yield "ffn.out", layer.final_layer_norm


def _attended(module: Any, z: Tensor, read: Tensor, masked: Tensor) -> Tensor:
    maps = ((module.q_proj, z), (module.k_proj, read), (module.v_proj, read))
    q, k, v = (heads(linear, state, module.num_heads) for linear, state in maps)
    return module.out_proj(weighed(q, k, v, masked))  # type: ignore[no-any-return]
