"""Backbones as data: one file a family, each a `Layout` literal. Nothing here imports torch."""

from __future__ import annotations

from adaptcompose.backbones import bert
from adaptcompose.backbones.layout import Facts, Layout, Site, layout_of, layouts, read_facts

__all__ = ["Facts", "Layout", "Site", "bert", "layout_of", "layouts", "read_facts"]
