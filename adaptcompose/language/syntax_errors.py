"""What is wrong with a text that is no expression."""

from __future__ import annotations

from adaptcompose.language.codes import AC013
from adaptcompose.language.diagnostics import Diagnostic, Source


def explain(source: Source) -> list[Diagnostic]:
    return [AC013.at(source.span(), expected="a composition", got="something else")]
