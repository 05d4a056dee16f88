"""Format the expressions of a spec. The rest of the file does not change."""

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

    An expression in a YAML block stays in a block, one in quotes stays in quotes, and one with
    variables of `each` stays as it is. Raises RuntimeError instead of changing the meaning.
    """
    document = parse_yaml(source)
    text, problems = source.text, list[Diagnostic]()
    edits: list[tuple[int, int, str]] = []
    for node in expression_nodes(document):
        try:
            edits.append((node.span.start, node.span.end, _format_node(node)))
        except Failed as failed:
            problems += failed.diagnostics
    if problems:
        raise Failed(problems)
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    if _content_of(parse_yaml(Source(text, source.name))) != _content_of(document):
        raise RuntimeError(f"formatting {source.name} would change its meaning")
    return text


def expression_nodes(document: YamlNode) -> Iterator[YamlNode]:
    """Yield the nodes of a spec that are expressions."""
    if not isinstance(document.data, dict):
        return
    top = document.data
    sections = [document, *(top[name] for name in ("publish",) if name in top)]
    for name in _ROW_KEYS:
        if name in top and isinstance(top[name].data, tuple):
            sections += top[name].data
    nodes = [_child(section, name) for section in sections for name in _EXPRESSION_KEYS]
    for names in (("adapters",), ("serve", "allow")):
        inner: YamlNode | None = document
        for name in names:
            inner = _child(inner, name)
        if inner is not None and isinstance(inner.data, dict):
            nodes += inner.data.values()
    yield from (node for node in nodes if node is not None and isinstance(node.data, str))


def _child(value: YamlNode | None, name: str) -> YamlNode | None:
    return value.data.get(name) if value is not None and isinstance(value.data, dict) else None


def _content_of(document: YamlNode) -> str:
    """The meaning of a document: its data, with expressions as syntax trees."""
    expressions = {id(node) for node in expression_nodes(document) if "${" not in node.data}

    def content(node: YamlNode) -> Any:
        if isinstance(node.data, dict):
            return {name: content(child) for name, child in node.data.items()}
        if isinstance(node.data, tuple):
            return [content(child) for child in node.data]
        return parse_tree(node.data) if id(node) in expressions else node.data

    return repr(content(document))


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
    """A block with its own line ends and indent. A folded block (`>`) becomes a literal one."""
    header, line_end, body = _LINE_END.split(value.span.text, maxsplit=1)
    indent = _INDENT.search(body)
    assert indent is not None
    lines = format_expression(value.source(), WIDTH - len(indent[0]))
    return f"|{header[1:]}" + _LINE_START.sub(rf"\1{indent[0]}", f"\n{lines}").replace(
        "\n", line_end
    )
