"""Llama (Touvron et al., 2023): rotary positions, a gated feed-forward, keys shared by heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from adaptcompose.backbones.layout import HEAD_IN, VOCABULARY, Layout, Place, add_layout


def _head(config: Mapping[str, Any]) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def _queries(config: Mapping[str, Any]) -> int:
    return int(config["num_attention_heads"]) * _head(config)


def _keys(config: Mapping[str, Any]) -> int:
    heads = config.get("num_key_value_heads") or config["num_attention_heads"]
    return int(heads) * _head(config)


def _attention_bias(config: Mapping[str, Any]) -> bool:
    return bool(config.get("attention_bias"))


def _mlp_bias(config: Mapping[str, Any]) -> bool:
    return bool(config.get("mlp_bias"))


def _parameters(config: Mapping[str, Any]) -> int:
    width, inner = config["hidden_size"], config["intermediate_size"]
    queries, keys = _queries(config), _keys(config)
    attention = 2 * width * queries + 2 * width * keys + width
    if _attention_bias(config):
        attention += queries + 2 * keys + width
    feed_forward = 3 * width * inner + width
    if _mlp_bias(config):
        feed_forward += 2 * inner + width
    layers = config["num_hidden_layers"] * (attention + feed_forward)
    return int(config["vocab_size"] * width + layers + width)


LLAMA = add_layout(
    Layout(
        types={"llama": "model"},
        attributes=("transformer",),  # of LlamaForQuestionAnswering
        layers="layers",
        sites={
            "embed.tokens": Place("embed_tokens", "lookup", width_in="vocab_size", bias=False),
            "tokens": Place("embed_tokens", "tokens"),
            "positions": Place("rotary_emb", "positions"),
            "embed.out": Place("layers.0", "input"),
            "attn.norm": Place("input_layernorm", "norm", bias=False),
            "attn.q": Place("self_attn.q_proj", "linear", _queries, bias=_attention_bias),
            "attn.k": Place("self_attn.k_proj", "linear", _keys, bias=_attention_bias),
            "attn.v": Place("self_attn.v_proj", "linear", _keys, bias=_attention_bias),
            "attn.o": Place("self_attn.o_proj", "linear", width_in=_queries, bias=_attention_bias),
            "attn.kv": Place("self_attn", "attention"),
            "attn.out": Place("self_attn", "sublayer", hub="attention_adapters"),
            "ffn.norm": Place("post_attention_layernorm", "norm", bias=False),
            "ffn.gate": Place("mlp.gate_proj", "linear", "intermediate_size", bias=_mlp_bias),
            "ffn.in": Place("mlp.up_proj", "linear", "intermediate_size", bias=_mlp_bias),
            "ffn.mid": Place(
                "mlp.down_proj", "linear", width_in="intermediate_size", bias=_mlp_bias
            ),
            "ffn.out": Place("mlp", "sublayer", hub="output_adapters"),
            "layer.out": Place("", "output"),
            "final.norm": Place("norm", "norm", bias=False),
            "vocabulary": replace(VOCABULARY, bias=False),
            "head.in": HEAD_IN,
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
