"""BERT (Devlin et al., 2019) and its shape: RoBERTa, XLM-R, CamemBERT, ELECTRA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adaptcompose.backbones.layout import HEAD_IN, VOCABULARY, Layout, SitePath, register_layout


def _parameters(config: Mapping[str, Any]) -> int:
    width, inner = config["hidden_size"], config["intermediate_size"]
    embedding = config.get("embedding_size") or width
    rows = config["vocab_size"] + config["max_position_embeddings"] + config["type_vocab_size"]
    embeddings = rows * embedding + 2 * embedding
    attention = 4 * (width * width + width) + 2 * width
    feed_forward = 2 * width * inner + inner + width + 2 * width
    project = embedding * width + width if embedding != width else 0
    pooler = 0 if config["model_type"] == "electra" else width * width + width
    layers = config["num_hidden_layers"] * (attention + feed_forward)
    return int(embeddings + project + layers + pooler)


def _projected(config: Mapping[str, Any]) -> bool:
    """ELECTRA's small models have narrower embeddings."""
    return bool((config.get("embedding_size") or config["hidden_size"]) != config["hidden_size"])


def _pooled(config: Mapping[str, Any]) -> bool:
    return bool(config["model_type"] != "electra")


BERT = register_layout(
    Layout(
        base_attributes={
            "bert": "bert",
            "roberta": "roberta",
            "xlm-roberta": "roberta",
            "camembert": "roberta",
            "electra": "electra",
        },
        layers="encoder.layer",
        sites={
            "embed.tokens": SitePath(
                "embeddings.word_embeddings", "lookup", "embedding_size", "vocab_size", bias=False
            ),
            "tokens": SitePath("embeddings.word_embeddings", "tokens", "embedding_size"),
            "positions": SitePath("embeddings.position_embeddings", "positions", "embedding_size"),
            "embed.norm": SitePath("embeddings.LayerNorm", "norm", "embedding_size"),
            "embed.project": SitePath(
                "embeddings_project",
                "linear",
                "hidden_size",
                "embedding_size",
                exists_if=_projected,
            ),
            "embed.out": SitePath("embeddings", "output", "embedding_size"),
            "attn.q": SitePath("attention.self.query", "linear"),
            "attn.k": SitePath("attention.self.key", "linear"),
            "attn.v": SitePath("attention.self.value", "linear"),
            "attn.o": SitePath("attention.output.dense", "linear"),
            "attn.kv": SitePath("attention.self", "attention"),
            "attn.norm": SitePath("attention.output.LayerNorm", "norm"),
            "attn.out": SitePath(
                "attention.output.dropout",
                "sublayer",
                norm="attention.output.LayerNorm",
                adapterhub_path="attention.output",
            ),
            "ffn.in": SitePath("intermediate.dense", "linear", "intermediate_size"),
            "ffn.mid": SitePath("output.dense", "linear", "hidden_size", "intermediate_size"),
            "ffn.norm": SitePath("output.LayerNorm", "norm"),
            "ffn.out": SitePath(
                "output.dropout", "sublayer", norm="output.LayerNorm", adapterhub_path="output"
            ),
            "layer.out": SitePath("", "output"),
            "pooler": SitePath("pooler.dense", "linear", exists_if=_pooled),
            "vocabulary": VOCABULARY,
            "head.in": HEAD_IN,
        },
        embedding="embedding_size",
        parameters=_parameters,
        pooler="pooler",
        adapterhub={
            "bert": "BertAdapterModel",
            "roberta": "RobertaAdapterModel",
            "xlm-roberta": "XLMRobertaAdapterModel",
            "electra": "ElectraAdapterModel",
        },
        vocabulary=("cls.predictions.decoder", "lm_head.decoder", "generator_lm_head"),
    )
)
