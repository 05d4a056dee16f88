"""Adapter methods: one family per file. torch is imported inside bodies only."""

from __future__ import annotations

from adaptcompose.methods import (
    bitfit,
    bottleneck,
    compacter,
    dora,
    ia3,
    layernorm,
    lora,
    mam,
    prefix,
    prompt,
    ptuning,
    unipelt,
    vera,
)
from adaptcompose.methods.method import Method, Shape, format_method, registered_methods

__all__ = [
    "Method",
    "Shape",
    "bitfit",
    "bottleneck",
    "compacter",
    "dora",
    "format_method",
    "ia3",
    "layernorm",
    "lora",
    "mam",
    "prefix",
    "prompt",
    "ptuning",
    "registered_methods",
    "unipelt",
    "vera",
]
