"""The expressions of a spec in canonical form, everything else of the file as it is."""

from __future__ import annotations

import re
from collections.abc import Iterator

from adaptcompose.documents import Value, read
from adaptcompose.language.diagnostics import Diagnostic, Failed, Source
from adaptcompose.language.formatting import WIDTH, as_scalar, formatted
from adaptcompose.language.syntax import parse_tree

_ITEMS = ("evaluate", "predict")
_EXPRESSIONS = ("compose", "pipe")


def tidy(source: Source) -> str:
    """The text of a spec with its expressions formatted.

    One in a block keeps its lines and comments, one that waits for a variable stays as it is.
    """
    text, problems = source.text, list[Diagnostic]()
    places: list[tuple[int, int, str]] = []
    for value in expressions(read(source)):
        try:
            places.append((value.span.start, value.span.end, _tidied(value)))
        except Failed as failed:
            problems += failed.diagnostics
    if problems:
        raise Failed(problems)
    for start, end, new in sorted(places, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def expressions(document: Value) -> Iterator[Value]:
    """The texts of a spec that are expressions, as they are written."""
    if not isinstance(document.data, dict):
        return
    top = document.data
    sections = [document, *(top[name] for name in ("publish",) if name in top)]
    for name in _ITEMS:
        if name in top and isinstance(top[name].data, tuple):
            sections += top[name].data
    found = [_inside(section, name) for section in sections for name in _EXPRESSIONS]
    for names in (("adapters",), ("serve", "allow")):
        inner: Value | None = document
        for name in names:
            inner = _inside(inner, name)
        if inner is not None and isinstance(inner.data, dict):
            found += inner.data.values()
    yield from (one for one in found if one is not None and isinstance(one.data, str))


def _inside(value: Value | None, name: str) -> Value | None:
    return value.data.get(name) if value is not None and isinstance(value.data, dict) else None


def _tidied(value: Value) -> str:
    written = value.span.text
    if "${" in value.data or value.style == ">":
        return written
    if value.style != "|":
        return as_scalar(str(parse_tree(value.source())))
    header, _, body = written.partition("\n")
    first = next((line for line in body.split("\n") if line.strip()), "")
    indent = re.match(r" *", first)
    assert indent is not None
    lines = formatted(value.source(), WIDTH - len(indent[0])).split("\n")
    return "\n".join([header, *(f"{indent[0]}{line}" for line in lines)])
