"""Llama (Touvron et al., 2023): rotary positions, a gated feed-forward, keys shared by heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from adaptcompose.backbones.layout import HEAD_IN, VOCABULARY, Layout, SitePath, register_layout


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


LLAMA = register_layout(
    Layout(
        base_attributes={"llama": "model"},
        attributes=("transformer",),  # of LlamaForQuestionAnswering
        layers="layers",
        sites={
            "embed.tokens": SitePath("embed_tokens", "lookup", width_in="vocab_size", bias=False),
            "tokens": SitePath("embed_tokens", "tokens"),
            "positions": SitePath("rotary_emb", "positions"),
            "embed.out": SitePath("layers.0", "input"),
            "attn.norm": SitePath("input_layernorm", "norm", bias=False),
            "attn.q": SitePath("self_attn.q_proj", "linear", _queries, bias=_attention_bias),
            "attn.k": SitePath("self_attn.k_proj", "linear", _keys, bias=_attention_bias),
            "attn.v": SitePath("self_attn.v_proj", "linear", _keys, bias=_attention_bias),
            "attn.o": SitePath(
                "self_attn.o_proj", "linear", width_in=_queries, bias=_attention_bias
            ),
            "attn.kv": SitePath("self_attn", "attention"),
            "attn.out": SitePath("self_attn", "sublayer", adapterhub_path="attention_adapters"),
            "ffn.norm": SitePath("post_attention_layernorm", "norm", bias=False),
            "ffn.gate": SitePath("mlp.gate_proj", "linear", "intermediate_size", bias=_mlp_bias),
            "ffn.in": SitePath("mlp.up_proj", "linear", "intermediate_size", bias=_mlp_bias),
            "ffn.mid": SitePath(
                "mlp.down_proj", "linear", width_in="intermediate_size", bias=_mlp_bias
            ),
            "ffn.out": SitePath("mlp", "sublayer", adapterhub_path="output_adapters"),
            "layer.out": SitePath("", "output"),
            "final.norm": SitePath("norm", "norm", bias=False),
            "vocabulary": replace(VOCABULARY, bias=False),
            "head.in": HEAD_IN,
        },
        embedding="hidden_size",
        parameters=_parameters,
        vocabulary=("lm_head",),
        adapterhub={"llama": "LlamaAdapterModel"},
        # the peer has the two the other way round in this family
        adapterhub_lora_flags={"intermediate_lora": "ffn.mid", "output_lora": "ffn.in"},
        pooled_token="last",
    )
)
