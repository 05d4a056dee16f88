"""T5 (Raffel et al., 2020): an encoder and a decoder, relative positions, no bias anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from adaptcompose.backbones.layout import HEAD_IN, VOCABULARY, Layout, SitePath, register_layout


def _heads(config: Mapping[str, Any]) -> int:
    return int(config["num_heads"]) * int(config["d_kv"])


def _gated(config: Mapping[str, Any]) -> bool:
    return str(config.get("feed_forward_proj") or "relu").startswith("gated-")


def _scale(config: Mapping[str, Any]) -> float:
    """A vocabulary that is tied to the embeddings expects smaller states.

    Configurations that transformers has read say of all vocabularies that they are tied.
    """
    tied = config.get("scale_decoder_outputs", config.get("tie_word_embeddings", True))
    return float(config["d_model"]) ** -0.5 if tied else 1.0


def _variant(config: Mapping[str, Any]) -> Layout:
    return GATED if _gated(config) else T5


def _parameters(config: Mapping[str, Any]) -> int:
    width = int(config["d_model"])
    attention = 4 * width * _heads(config) + width
    feed_forward = (3 if _gated(config) else 2) * width * config["d_ff"] + width
    encoder = config["num_layers"]
    decoder = config.get("num_decoder_layers") or encoder
    layers = encoder * (attention + feed_forward) + decoder * (2 * attention + feed_forward)
    positions = config.get("relative_attention_num_buckets", 32) * config["num_heads"]
    return int(config["vocab_size"] * width + layers + 2 * (positions + width))


def _attention(where: str, hub: str, *parts: str) -> dict[str, SitePath]:
    """The sites of one of the attentions."""
    name, layer, module = where.split()
    inside = f"{layer}.{module}"
    maps = {
        letter: SitePath(f"{inside}.{letter}", "linear", _heads, bias=False, parts=parts)
        for letter in "qkv"
    }
    maps["o"] = SitePath(f"{inside}.o", "linear", width_in=_heads, bias=False, parts=parts)
    norm = f"{layer}.layer_norm"
    others = {
        "kv": SitePath(inside, "attention", parts=parts),
        "norm": SitePath(norm, "norm", bias=False, parts=parts),
        "out": SitePath(f"{layer}.dropout", "sublayer", adapterhub_path=hub, parts=parts),
    }
    return {f"{name}.{key}": place for key, place in (maps | others).items()}


T5 = register_layout(
    Layout(
        base_attributes={"t5": "transformer"},
        layers="{part}.block",
        sites={
            "embed.tokens": SitePath(
                "{part}.embed_tokens", "lookup", width_in="vocab_size", bias=False
            ),
            "tokens": SitePath("encoder.embed_tokens", "tokens"),
            "embed.out": SitePath("encoder.block.0", "input"),
            **_attention("attn layer.0 SelfAttention", "layer.0"),
            **_attention("cross layer.1 EncDecAttention", "layer.1", "decoder"),
            "ffn.norm": SitePath("{ffn}.layer_norm", "norm", bias=False),
            "ffn.gate": SitePath(
                "{ffn}.DenseReluDense.wi_0", "linear", "d_ff", bias=False, exists_if=_gated
            ),
            "ffn.in": SitePath("{ffn}.DenseReluDense.{wi}", "linear", "d_ff", bias=False),
            "ffn.mid": SitePath("{ffn}.DenseReluDense.wo", "linear", width_in="d_ff", bias=False),
            "ffn.out": SitePath("{ffn}.dropout", "sublayer", adapterhub_path="{ffn}"),
            "layer.out": SitePath("", "output"),
            "final.norm": SitePath("{part}.final_layer_norm", "norm", bias=False),
            "vocabulary": replace(VOCABULARY, bias=False),
            "head.in": HEAD_IN,
        },
        embedding="d_model",
        parameters=_parameters,
        vocabulary=("lm_head",),
        adapterhub={"t5": "T5AdapterModel"},
        adapterhub_stem="encoder.",
        width="d_model",
        depth={"encoder": "num_layers", "decoder": "num_decoder_layers"},
        heads="num_heads",
        attention_dropout="dropout_rate",
        head_dropout=("classifier_dropout", "dropout_rate"),
        path_variables={
            "encoder": {"ffn": "layer.1", "wi": "wi"},
            "decoder": {"ffn": "layer.2", "wi": "wi"},
        },
        unused_modules=("shared",),
        pooled_token="end",
        has_relative_positions=True,
        variant=_variant,
        scale=_scale,
    )
)
GATED = replace(
    T5,
    path_variables={
        part: dict(names) | {"wi": "wi_1"} for part, names in T5.path_variables.items()
    },
)
"""T5 1.1 and Flan-T5: one of the two maps into the feed-forward goes through the activation."""
