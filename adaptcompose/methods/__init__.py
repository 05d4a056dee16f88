"""Methods: families of adapters, one file each. torch is imported inside bodies only."""

from __future__ import annotations

from adaptcompose.methods import (
    bitfit,
    bottleneck,
    compacter,
    dora,
    ia3,
    layernorm,
    lora,
    prefix,
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
    "prefix",
    "spell_method",
    "vera",
]
