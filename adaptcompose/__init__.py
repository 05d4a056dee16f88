"""Compose adapters on a frozen language model: one line, compiled with exact algebra.

>>> import adaptcompose as ac
>>> str(ac.parse("stack( lang = sw,task=ner ) |drop( bottom=5 )"))
'stack(lang=sw, task=ner) | drop(bottom=5)'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from adaptcompose.version import __version__

if TYPE_CHECKING:
    from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed
    from adaptcompose.experiment.share.push import push
    from adaptcompose.language.public import Composition, check, parse
    from adaptcompose.runtime.compose import compose
    from adaptcompose.runtime.saving.loading import load

_PLACES = {
    "parse": "language.public",
    "check": "language.public",
    "Composition": "language.public",
    "Failed": "language.diagnostics",
    "Diagnostic": "language.diagnostics",
    "compose": "runtime.compose",
    "load": "runtime.public",
    "push": "work.push",
}
"""Where the public names live: imported when they are used, so that checking needs no torch."""

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


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
