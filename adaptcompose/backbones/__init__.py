"""Backbone families as data: one `Layout` literal per file. Nothing here imports torch."""

from __future__ import annotations

from adaptcompose.backbones import bart, bert, distilbert, gpt2, llama, t5
from adaptcompose.backbones.layout import (
    Facts,
    Layout,
    Site,
    layout_of,
    read_facts,
    registered_layouts,
)

__all__ = [
    "Facts",
    "Layout",
    "Site",
    "bart",
    "bert",
    "distilbert",
    "gpt2",
    "layout_of",
    "llama",
    "read_facts",
    "registered_layouts",
    "t5",
]
