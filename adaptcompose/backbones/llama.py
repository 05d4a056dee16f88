"""Llama (Touvron et al., 2023): rotary positions, a gated feed-forward, keys shared by heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adaptcompose.backbones.layout import Layout, Place, add_layout


def _head(config: Mapping[str, Any]) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def _queries(config: Mapping[str, Any]) -> int:
    return int(config["num_attention_heads"]) * _head(config)


def _keys(config: Mapping[str, Any]) -> int:
    heads = config.get("num_key_value_heads") or config["num_attention_heads"]
    return int(heads) * _head(config)


def _parameters(config: Mapping[str, Any]) -> int:
    width, inner = config["hidden_size"], config["intermediate_size"]
    queries, keys = _queries(config), _keys(config)
    attention = 2 * width * queries + 2 * width * keys + width
    if config.get("attention_bias"):
        attention += queries + 2 * keys + width
    feed_forward = 3 * width * inner + width
    if config.get("mlp_bias"):
        feed_forward += 2 * inner + width
    layers = config["num_hidden_layers"] * (attention + feed_forward)
    return int(config["vocab_size"] * width + layers + width)


LLAMA = add_layout(
    Layout(
        types={"llama": "model"},
        layers="layers",
        sites={
            "tokens": Place("embed_tokens", "tokens"),
            "positions": Place("rotary_emb", "positions"),
            "embed.out": Place("layers.0", "input"),
            "attn.norm": Place("input_layernorm", "norm", bias=False),
            "attn.q": Place("self_attn.q_proj", "linear", _queries, bias=False),
            "attn.k": Place("self_attn.k_proj", "linear", _keys, bias=False),
            "attn.v": Place("self_attn.v_proj", "linear", _keys, bias=False),
            "attn.o": Place("self_attn.o_proj", "linear", width_in=_queries, bias=False),
            "attn.kv": Place("self_attn", "attention"),
            "attn.out": Place(
                "self_attn", "sublayer", norm="input_layernorm", hub="attention_adapters"
            ),
            "ffn.norm": Place("post_attention_layernorm", "norm", bias=False),
            "ffn.gate": Place("mlp.gate_proj", "linear", "intermediate_size", bias=False),
            "ffn.in": Place("mlp.up_proj", "linear", "intermediate_size", bias=False),
            "ffn.mid": Place("mlp.down_proj", "linear", width_in="intermediate_size", bias=False),
            "ffn.out": Place(
                "mlp", "sublayer", norm="post_attention_layernorm", hub="output_adapters"
            ),
            "layer.out": Place("", "output"),
            "final.norm": Place("norm", "norm", bias=False),
            "head.in": Place("", "vocabulary"),
        },
        embedding="hidden_size",
        parameters=_parameters,
        vocabulary=("lm_head",),
        adapterhub={"llama": "LlamaAdapterModel"},
        # the peer has the two the other way round in this family
        hub_maps={"intermediate_lora": "ffn.mid", "output_lora": "ffn.in"},
        reads="last",
    )
)
