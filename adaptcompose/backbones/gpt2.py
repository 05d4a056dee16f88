"""GPT-2 (Radford et al., 2019): norms in front, queries, keys and values in one map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from adaptcompose.backbones.layout import HEAD_IN, VOCABULARY, Layout, SitePath, register_layout


def _inner(config: Mapping[str, Any]) -> int:
    return int(config.get("n_inner") or 4 * config["n_embd"])


def _thrice(config: Mapping[str, Any]) -> int:
    return 3 * int(config["n_embd"])


def _parameters(config: Mapping[str, Any]) -> int:
    width, inner = int(config["n_embd"]), _inner(config)
    embeddings = (config["vocab_size"] + config["n_positions"]) * width
    attention = 4 * (width * width + width) + 2 * width
    feed_forward = 2 * width * inner + inner + width + 2 * width
    return int(embeddings + config["n_layer"] * (attention + feed_forward) + 2 * width)


GPT2 = register_layout(
    Layout(
        base_attributes={"gpt2": "transformer"},
        layers="h",
        sites={
            "embed.tokens": SitePath("wte", "lookup", width_in="vocab_size", bias=False),
            "tokens": SitePath("wte", "tokens"),
            "positions": SitePath("wpe", "positions"),
            "embed.out": SitePath("h.0", "input"),
            "attn.norm": SitePath("ln_1", "norm"),
            "attn.q": SitePath("attn.c_attn", "linear", piece=(0, 3)),
            "attn.k": SitePath("attn.c_attn", "linear", piece=(1, 3)),
            "attn.v": SitePath("attn.c_attn", "linear", piece=(2, 3)),
            "attn.qkv": SitePath("attn.c_attn", "linear", _thrice, spans_module=True),
            "attn.o": SitePath("attn.c_proj", "linear"),
            "attn.kv": SitePath("attn", "attention"),
            "attn.out": SitePath("attn", "sublayer", adapterhub_path="attention_adapters"),
            "ffn.norm": SitePath("ln_2", "norm"),
            "ffn.in": SitePath("mlp.c_fc", "linear", _inner),
            "ffn.mid": SitePath("mlp.c_proj", "linear", width_in=_inner),
            "ffn.out": SitePath("mlp", "sublayer", adapterhub_path="output_adapters"),
            "layer.out": SitePath("", "output"),
            "final.norm": SitePath("ln_f", "norm"),
            "vocabulary": replace(VOCABULARY, bias=False),
            "head.in": HEAD_IN,
        },
        embedding="n_embd",
        parameters=_parameters,
        vocabulary=("lm_head",),
        adapterhub={"gpt2": "GPT2AdapterModel"},
        width="n_embd",
        depth={"": "n_layer"},
        transposed=True,
        heads="n_head",
        attention_dropout="attn_pdrop",
        head_dropout=("classifier_dropout", "resid_pdrop"),
        pooled_token="last",
    )
)
