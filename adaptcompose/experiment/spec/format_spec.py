"""The expressions of a spec in canonical form, everything else of the file as it is."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed, Source
from adaptcompose.storage.yaml_source import Value, read
from adaptcompose.syntax.formatting import WIDTH, as_scalar, formatted, single_quoted
from adaptcompose.syntax.literals import quote
from adaptcompose.syntax.parser import parse_tree

_ITEMS = ("evaluate", "predict")
_EXPRESSIONS = ("compose", "pipe")
_LINE_END = re.compile("(\r\n|[\n\r\x85\u2028\u2029])")
_LINE_START = re.compile("([\n\u2028\u2029])")
_INDENT = re.compile(r"^ *(?=[^ \r\n])", re.M)


def tidy(source: Source) -> str:
    """The text of a spec with its expressions formatted.

    One in a block keeps its lines, one in quotes its quotes, and one that waits for a variable
    stays as it is. Nobody gets a text that does not say the same.
    """
    document = read(source)
    text, problems = source.text, list[Diagnostic]()
    places: list[tuple[int, int, str]] = []
    for value in expressions(document):
        try:
            places.append((value.span.start, value.span.end, _tidied(value)))
        except Failed as failed:
            problems += failed.diagnostics
    if problems:
        raise Failed(problems)
    for start, end, new in sorted(places, reverse=True):
        text = text[:start] + new + text[end:]
    if _said(read(Source(text, source.name))) != _said(document):
        raise RuntimeError(f"{source.name} would say something else if it were formatted")
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


def _said(document: Value) -> str:
    """What a document says: data, and expressions however they are written."""
    waiting = {id(one) for one in expressions(document) if "${" not in one.data}

    def said(value: Value) -> Any:
        if isinstance(value.data, dict):
            return {name: said(one) for name, one in value.data.items()}
        if isinstance(value.data, tuple):
            return [said(one) for one in value.data]
        return parse_tree(value.data) if id(value) in waiting else value.data

    return repr(said(document))


def _tidied(value: Value) -> str:
    if "${" in value.data:
        return value.span.text
    if value.style in ("|", ">"):
        return _block(value)
    text = formatted(value.source(), sys.maxsize)
    if value.style == "'" and text.isprintable():
        return single_quoted(text)
    return quote(text) if value.style else as_scalar(text)


def _block(value: Value) -> str:
    """A block with the line ends and the indent that it has; one that was folded is no more."""
    header, line_end, body = _LINE_END.split(value.span.text, maxsplit=1)
    indent = _INDENT.search(body)
    assert indent is not None
    lines = formatted(value.source(), WIDTH - len(indent[0]))
    return f"|{header[1:]}" + _LINE_START.sub(rf"\1{indent[0]}", f"\n{lines}").replace(
        "\n", line_end
    )
