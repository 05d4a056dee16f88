"""GPT-2 (Radford et al., 2019): norms in front, queries, keys and values in one map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from adaptcompose.backbones.layout import HEAD_IN, VOCABULARY, Layout, Place, add_layout


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


GPT2 = add_layout(
    Layout(
        types={"gpt2": "transformer"},
        layers="h",
        sites={
            "embed.tokens": Place("wte", "lookup", width_in="vocab_size", bias=False),
            "tokens": Place("wte", "tokens"),
            "positions": Place("wpe", "positions"),
            "embed.out": Place("h.0", "input"),
            "attn.norm": Place("ln_1", "norm"),
            "attn.q": Place("attn.c_attn", "linear", piece=(0, 3)),
            "attn.k": Place("attn.c_attn", "linear", piece=(1, 3)),
            "attn.v": Place("attn.c_attn", "linear", piece=(2, 3)),
            "attn.qkv": Place("attn.c_attn", "linear", _thrice, joint=True),
            "attn.o": Place("attn.c_proj", "linear"),
            "attn.kv": Place("attn", "attention"),
            "attn.out": Place("attn", "sublayer", hub="attention_adapters"),
            "ffn.norm": Place("ln_2", "norm"),
            "ffn.in": Place("mlp.c_fc", "linear", _inner),
            "ffn.mid": Place("mlp.c_proj", "linear", width_in=_inner),
            "ffn.out": Place("mlp", "sublayer", hub="output_adapters"),
            "layer.out": Place("", "output"),
            "final.norm": Place("ln_f", "norm"),
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
        reads="last",
    )
)
