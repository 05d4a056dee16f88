"""DistilBERT (Sanh et al., 2019): BERT's layers, half as many, whose sums are in the layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adaptcompose.backbones.layout import HEAD_IN, VOCABULARY, Layout, Place, add_layout


def _parameters(config: Mapping[str, Any]) -> int:
    width, inner = int(config["dim"]), config["hidden_dim"]
    embeddings = (config["vocab_size"] + config["max_position_embeddings"]) * width + 2 * width
    attention = 4 * (width * width + width) + 2 * width
    feed_forward = 2 * width * inner + inner + width + 2 * width
    return int(embeddings + config["n_layers"] * (attention + feed_forward))


DISTILBERT = add_layout(
    Layout(
        types={"distilbert": "distilbert"},
        layers="transformer.layer",
        sites={
            "embed.tokens": Place(
                "embeddings.word_embeddings", "lookup", width_in="vocab_size", bias=False
            ),
            "tokens": Place("embeddings.word_embeddings", "tokens"),
            "positions": Place("embeddings.position_embeddings", "positions"),
            "embed.norm": Place("embeddings.LayerNorm", "norm"),
            "embed.out": Place("embeddings", "output"),
            "attn.q": Place("attention.q_lin", "linear"),
            "attn.k": Place("attention.k_lin", "linear"),
            "attn.v": Place("attention.v_lin", "linear"),
            "attn.o": Place("attention.out_lin", "linear"),
            "attn.kv": Place("attention", "attention"),
            "attn.norm": Place("sa_layer_norm", "norm"),
            "attn.out": Place(
                "attention", "sublayer", norm="sa_layer_norm", hub="attention_adapters"
            ),
            "ffn.in": Place("ffn.lin1", "linear", "hidden_dim"),
            "ffn.mid": Place("ffn.lin2", "linear", width_in="hidden_dim"),
            "ffn.norm": Place("output_layer_norm", "norm"),
            "ffn.out": Place("ffn", "sublayer", norm="output_layer_norm", hub="output_adapters"),
            "layer.out": Place("", "output"),
            "vocabulary": VOCABULARY,
            "head.in": HEAD_IN,
        },
        embedding="dim",
        parameters=_parameters,
        vocabulary=("vocab_projector",),
        adapterhub={"distilbert": "DistilBertAdapterModel"},
        hub_prefixes={"": "self"},
        width="dim",
        depth={"": "n_layers"},
        heads="n_heads",
        attention_dropout="attention_dropout",
        head_dropout=("seq_classif_dropout", "dropout"),
    )
)
