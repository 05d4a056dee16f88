"""Adapter methods: one family per file. torch is imported inside bodies only."""

from __future__ import annotations

from adaptcompose.methods.method import Method, Shape, format_method, registered_methods
from adaptcompose.registration import import_modules_of

__all__ = ["Method", "Shape", "format_method", "registered_methods"]

import_modules_of(__name__, __path__)
