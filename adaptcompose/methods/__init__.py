"""Methods: families of adapters, one file each. torch is imported inside bodies only."""

from __future__ import annotations

from adaptcompose.methods import bottleneck, compacter, prefix
from adaptcompose.methods.method import Method, Shape, calls, spell_method

__all__ = ["Method", "Shape", "bottleneck", "calls", "compacter", "prefix", "spell_method"]
