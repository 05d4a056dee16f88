"""Compose adapters on a frozen language model: one line, compiled with exact algebra.

>>> import adaptcompose as ac
>>> str(ac.parse("stack( lang = sw,task=ner ) |drop( bottom=5 )"))
'stack(lang=sw, task=ner) | drop(bottom=5)'
"""

from __future__ import annotations

from adaptcompose.api import Composition, Diagnostic, Failed, check, compose, load, parse, push
from adaptcompose.version import __version__

__all__ = [
    "Composition",
    "Diagnostic",
    "Failed",
    "__version__",
    "check",
    "compose",
    "load",
    "parse",
    "push",
]
