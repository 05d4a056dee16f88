"""A package that adds an operator, a modifier, a method, a layout and a hub to adaptcompose."""

from __future__ import annotations
