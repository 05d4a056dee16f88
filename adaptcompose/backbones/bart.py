"""BART (Lewis et al., 2020) and mBART (Liu et al., 2020): an encoder and a decoder.

They differ in where their norms are: behind the sums, or in front of the sub-layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from adaptcompose.backbones.layout import HEAD_IN, VOCABULARY, Layout, SitePath, register_layout

_OFFSET = 2
"""Rows of the positions' table that no position has."""


def _parameters(config: Mapping[str, Any]) -> int:
    width = int(config["d_model"])
    norm, attention = 2 * width, 4 * (width * width + width)
    words = config["vocab_size"] * width * (1 if config.get("tie_word_embeddings", True) else 3)
    positions = 2 * ((config["max_position_embeddings"] + _OFFSET) * width + norm)
    final = 2 * norm if config["model_type"] == "mbart" else 0
    layers = 0
    for part, attentions in (("encoder", 1), ("decoder", 2)):
        inner = config[f"{part}_ffn_dim"]
        feed_forward = 2 * width * inner + inner + width + norm
        layers += config[f"{part}_layers"] * (attentions * (attention + norm) + feed_forward)
    return int(words + positions + layers + final)


def _attention(name: str, module: str, hub: str, *parts: str, behind: bool) -> dict[str, SitePath]:
    """The sites of one of the attentions."""
    maps = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "out_proj"}
    norm = f"{module}_layer_norm"
    others = {
        "kv": SitePath(module, "attention", parts=parts),
        "norm": SitePath(norm, "norm", parts=parts),
        "out": SitePath(
            module, "sublayer", norm=norm if behind else "", adapterhub_path=hub, parts=parts
        ),
    }
    linear = {
        key: SitePath(f"{module}.{path}", "linear", parts=parts) for key, path in maps.items()
    }
    return {f"{name}.{key}": place for key, place in (linear | others).items()}


def _sites(*, behind: bool) -> dict[str, SitePath]:
    """All sites; the norms are after the sums of sub-layers if `behind`, or in front of them."""
    norm, inner = "final_layer_norm", "{part}_ffn_dim"
    return {
        "embed.tokens": SitePath(
            "{part}.embed_tokens", "lookup", width_in="vocab_size", bias=False
        ),
        "tokens": SitePath("encoder.embed_tokens", "tokens"),
        "positions": SitePath("{part}.embed_positions", "positions"),
        "embed.norm": SitePath("{part}.layernorm_embedding", "norm"),
        "embed.out": SitePath("encoder.layernorm_embedding", "output"),
        **_attention("attn", "self_attn", "attention_adapters", behind=behind),
        **_attention("cross", "encoder_attn", "cross_attention_adapters", "decoder", behind=behind),
        "ffn.norm": SitePath(norm, "norm"),
        "ffn.in": SitePath("fc1", "linear", inner),
        "ffn.mid": SitePath("fc2", "linear", width_in=inner),
        "ffn.out": SitePath(
            "fc2", "sublayer", norm=norm if behind else "", adapterhub_path="output_adapters"
        ),
        "layer.out": SitePath("", "output"),
        "vocabulary": replace(VOCABULARY, bias=False),
        "head.in": HEAD_IN,
    }


_layout = partial(
    Layout,
    layers="{part}.layers",
    embedding="d_model",
    parameters=_parameters,
    vocabulary=("lm_head",),
    adapterhub_stem="encoder.",
    width="d_model",
    depth={"encoder": "encoder_layers", "decoder": "decoder_layers"},
    heads="{part}_attention_heads",
    attention_dropout="attention_dropout",
    head_dropout=("classifier_dropout", "dropout"),
    unused_modules=("shared",),
    pooled_token="end",
)
"""What BART and mBART share."""

BART = register_layout(
    _layout(
        base_attributes={"bart": "model"},
        sites=_sites(behind=True),
        adapterhub={"bart": "BartAdapterModel"},
    )
)
MBART = register_layout(
    _layout(
        base_attributes={"mbart": "model"},
        sites=_sites(behind=False) | {"final.norm": SitePath("{part}.layer_norm", "norm")},
        adapterhub={"mbart": "MBartAdapterModel"},
        starts="last",
    )
)
