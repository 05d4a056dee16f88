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
from adaptcompose.methods.method import Method, Shape, calls, spell_method

__all__ = [
    "Method",
    "Shape",
    "bitfit",
    "bottleneck",
    "calls",
    "compacter",
    "dora",
    "ia3",
    "layernorm",
    "lora",
    "mam",
    "prefix",
    "prompt",
    "ptuning",
    "spell_method",
    "unipelt",
    "vera",
]
