"""DistilBERT (Sanh et al., 2019): BERT's layers, half as many, whose sums are in the layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adaptcompose.backbones.layout import HEAD_IN, VOCABULARY, Layout, SitePath, register_layout


def _parameters(config: Mapping[str, Any]) -> int:
    width, inner = int(config["dim"]), config["hidden_dim"]
    embeddings = (config["vocab_size"] + config["max_position_embeddings"]) * width + 2 * width
    attention = 4 * (width * width + width) + 2 * width
    feed_forward = 2 * width * inner + inner + width + 2 * width
    return int(embeddings + config["n_layers"] * (attention + feed_forward))


DISTILBERT = register_layout(
    Layout(
        base_attributes={"distilbert": "distilbert"},
        layers="transformer.layer",
        sites={
            "embed.tokens": SitePath(
                "embeddings.word_embeddings", "lookup", width_in="vocab_size", bias=False
            ),
            "tokens": SitePath("embeddings.word_embeddings", "tokens"),
            "positions": SitePath("embeddings.position_embeddings", "positions"),
            "embed.norm": SitePath("embeddings.LayerNorm", "norm"),
            "embed.out": SitePath("embeddings", "output"),
            "attn.q": SitePath("attention.q_lin", "linear"),
            "attn.k": SitePath("attention.k_lin", "linear"),
            "attn.v": SitePath("attention.v_lin", "linear"),
            "attn.o": SitePath("attention.out_lin", "linear"),
            "attn.kv": SitePath("attention", "attention"),
            "attn.norm": SitePath("sa_layer_norm", "norm"),
            "attn.out": SitePath(
                "attention", "sublayer", norm="sa_layer_norm", adapterhub_path="attention_adapters"
            ),
            "ffn.in": SitePath("ffn.lin1", "linear", "hidden_dim"),
            "ffn.mid": SitePath("ffn.lin2", "linear", width_in="hidden_dim"),
            "ffn.norm": SitePath("output_layer_norm", "norm"),
            "ffn.out": SitePath(
                "ffn", "sublayer", norm="output_layer_norm", adapterhub_path="output_adapters"
            ),
            "layer.out": SitePath("", "output"),
            "vocabulary": VOCABULARY,
            "head.in": HEAD_IN,
        },
        embedding="dim",
        parameters=_parameters,
        vocabulary=("vocab_projector",),
        adapterhub={"distilbert": "DistilBertAdapterModel"},
        adapterhub_prefix_keys={"": "self"},
        width="dim",
        depth={"": "n_layers"},
        heads="n_heads",
        attention_dropout="attention_dropout",
        head_dropout=("seq_classif_dropout", "dropout"),
    )
)
