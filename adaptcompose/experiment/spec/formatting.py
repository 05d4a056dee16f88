"""The expressions of a spec in canonical form, everything else of the file as it is."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed, Source
from adaptcompose.storage.yaml_source import YamlNode, parse_yaml
from adaptcompose.syntax.formatting import WIDTH, as_yaml_scalar, format_expression, single_quoted
from adaptcompose.syntax.literals import quote
from adaptcompose.syntax.parser import parse_tree

_ROW_KEYS = ("evaluate", "predict")
_EXPRESSION_KEYS = ("compose", "pipe")
_LINE_END = re.compile("(\r\n|[\n\r\x85\u2028\u2029])")
_LINE_START = re.compile("([\n\u2028\u2029])")
_INDENT = re.compile(r"^ *(?=[^ \r\n])", re.M)


def format_spec(source: Source) -> str:
    """The text of a spec with its expressions formatted.

    One in a block keeps its lines, one in quotes its quotes, and one that waits for a variable
    stays as it is. Nobody gets a text that does not say the same.
    """
    document = parse_yaml(source)
    text, problems = source.text, list[Diagnostic]()
    places: list[tuple[int, int, str]] = []
    for value in expression_nodes(document):
        try:
            places.append((value.span.start, value.span.end, _format_node(value)))
        except Failed as failed:
            problems += failed.diagnostics
    if problems:
        raise Failed(problems)
    for start, end, new in sorted(places, reverse=True):
        text = text[:start] + new + text[end:]
    if _content_of(parse_yaml(Source(text, source.name))) != _content_of(document):
        raise RuntimeError(f"formatting {source.name} would change its meaning")
    return text


def expression_nodes(document: YamlNode) -> Iterator[YamlNode]:
    """The texts of a spec that are expressions, as they are written."""
    if not isinstance(document.data, dict):
        return
    top = document.data
    sections = [document, *(top[name] for name in ("publish",) if name in top)]
    for name in _ROW_KEYS:
        if name in top and isinstance(top[name].data, tuple):
            sections += top[name].data
    found = [_child(section, name) for section in sections for name in _EXPRESSION_KEYS]
    for names in (("adapters",), ("serve", "allow")):
        inner: YamlNode | None = document
        for name in names:
            inner = _child(inner, name)
        if inner is not None and isinstance(inner.data, dict):
            found += inner.data.values()
    yield from (one for one in found if one is not None and isinstance(one.data, str))


def _child(value: YamlNode | None, name: str) -> YamlNode | None:
    return value.data.get(name) if value is not None and isinstance(value.data, dict) else None


def _content_of(document: YamlNode) -> str:
    """What a document says: data, and expressions however they are written."""
    waiting = {id(one) for one in expression_nodes(document) if "${" not in one.data}

    def said(value: YamlNode) -> Any:
        if isinstance(value.data, dict):
            return {name: said(one) for name, one in value.data.items()}
        if isinstance(value.data, tuple):
            return [said(one) for one in value.data]
        return parse_tree(value.data) if id(value) in waiting else value.data

    return repr(said(document))


def _format_node(value: YamlNode) -> str:
    if "${" in value.data:
        return value.span.text
    if value.style in ("|", ">"):
        return _format_block(value)
    text = format_expression(value.source(), sys.maxsize)
    if value.style == "'" and text.isprintable():
        return single_quoted(text)
    return quote(text) if value.style else as_yaml_scalar(text)


def _format_block(value: YamlNode) -> str:
    """A block with the line ends and the indent that it has; one that was folded is no more."""
    header, line_end, body = _LINE_END.split(value.span.text, maxsplit=1)
    indent = _INDENT.search(body)
    assert indent is not None
    lines = format_expression(value.source(), WIDTH - len(indent[0]))
    return f"|{header[1:]}" + _LINE_START.sub(rf"\1{indent[0]}", f"\n{lines}").replace(
        "\n", line_end
    )
