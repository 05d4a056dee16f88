"""Backbone families as data: one `Layout` literal per file. Nothing here imports torch."""

from __future__ import annotations

from adaptcompose.backbones.layout import (
    Facts,
    Layout,
    Site,
    layout_of,
    read_facts,
    registered_layouts,
)
from adaptcompose.registration import import_modules_of

__all__ = ["Facts", "Layout", "Site", "layout_of", "read_facts", "registered_layouts"]

import_modules_of(__name__, __path__)
