"""Expand `each` in spec.yaml: one copy per combination of its values, with `${name}` replaced.

At the top of a spec, `each` makes a sweep: one spec per combination. In a row of `evaluate`, it
makes one row per combination.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from adaptcompose.diagnostics.codes import AC602, AC603, AC605
from adaptcompose.diagnostics.diagnostic import Diagnostic, Source
from adaptcompose.experiment.spec.section_reader import SectionReader
from adaptcompose.experiment.spec.value_types import ScalarText
from adaptcompose.storage.yaml_source import YamlNode, parse_scalar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

COMBINATION_LIMIT = 1000
_VARIABLE = re.compile(r"\$\{([^{}]*)\}")
_WITH_VARIABLE = re.compile(r"""["']?[\w./@-]*(?:\$\{[^{}]*\}[\w./@-]*)+["']?""")
_PLACEHOLDER = "unknown"
_FREE_TEXT = {"description", "text", "message"}
_UNSWEPT_KEYS = ("spec", "name", "hub", "backbone")  # the same in all runs of a sweep


def expand_sweep(document: YamlNode, reading: SectionReader) -> list[YamlNode]:
    """The documents of a sweep, one per combination; the document itself without `each`."""
    if not isinstance(document.data, dict) or "each" not in document.data:
        return [document]
    for name in _UNSWEPT_KEYS:
        if name in document.data:
            _fill_unknown_variables(document.data[name], reading, name)
    _check_shadows(document, reading)
    return list(_combinations(document, reading, "each")) or [document]


def expand_rows(document: YamlNode, reading: SectionReader) -> YamlNode:
    """The document with the rows of `evaluate` that have `each` expanded."""
    if not isinstance(document.data, dict):
        return document
    expanded = dict(document.data)
    items = expanded.get("evaluate")
    if items is not None and isinstance(items.data, tuple):
        where = "evaluate.each"
        rows = [row for item in items.data for row in _combinations(item, reading, where)]
        expanded["evaluate"] = replace(items, data=tuple(rows))
        if items.data and not rows:
            del expanded["evaluate"]
    return _fill_unknown_variables(replace(document, data=expanded), reading)


def _check_shadows(document: YamlNode, reading: SectionReader) -> None:
    """Report AC602 for a variable of a row that is also a variable of the sweep."""
    items = document.data.get("evaluate")
    outer = document.data["each"].data
    for item in items.data if items is not None and isinstance(items.data, tuple) else ():
        each = item.data.get("each") if isinstance(item.data, dict) else None
        for name, span in each.key_spans.items() if each is not None else ():
            if isinstance(outer, dict) and name in outer:
                help = "give one of them another name; the sweep already has this variable"
                reading.problems.append(AC602.at(span, name=name, help=help))


def _combinations(item: YamlNode, reading: SectionReader, where: str) -> Iterator[YamlNode]:
    if not isinstance(item.data, dict) or "each" not in item.data:
        yield item
        return
    each = item.data["each"]
    variables = reading.read_value(dict[str, tuple[ScalarText, ...]], each, where)
    if variables is None or len(variables) < len(each.data):
        return
    values = {name: node.data for name, node in each.data.items()}
    count = 1
    for options in values.values():
        count *= len(options)
    if not values or count > COMBINATION_LIMIT:
        expected = f"a mapping with 1 to {COMBINATION_LIMIT:,} combinations"
        got = f"one with {count if values else 0:,}"
        reading.problems.append(AC605.at(each.span, name="each", expected=expected, got=got))
        return
    body = {name: node for name, node in item.data.items() if name != "each"}
    for combination in itertools.product(*values.values()):
        chosen = dict(zip(values, combination, strict=True))
        texts = {name: node.text for name, node in chosen.items()}
        filled = {name: _fill(node, texts) for name, node in body.items()}
        singles = {name: replace(each.data[name], data=(node,)) for name, node in chosen.items()}
        filled["each"] = replace(each, data=singles)
        yield replace(item, data=filled)


def _fill(node: YamlNode, texts: Mapping[str, str]) -> YamlNode:
    """The node with its variables replaced; its offsets still point into the file."""
    if isinstance(node.data, dict):
        return replace(node, data={name: _fill(one, texts) for name, one in node.data.items()})
    if isinstance(node.data, tuple):
        return replace(node, data=tuple(_fill(one, texts) for one in node.data))
    if not isinstance(node.data, str) or not _VARIABLE.search(node.data):
        return node
    text = ""
    offsets: list[int] = []
    at = 0
    for variable in _VARIABLE.finditer(node.data):
        if variable[1] not in texts:
            continue
        start, end, new = variable.start(), variable.end(), texts[variable[1]]
        text += node.data[at:start] + new
        offsets += node.offsets[at:start]
        # All characters but the last map to `$`, the last one to `}`, so that a caret under the
        # value covers all of `${name}`.
        offsets += [node.offsets[start]] * (len(new) - 1)
        offsets += [node.offsets[end - 1 if len(new) > 1 else start]] * bool(new)
        at = end
    text += node.data[at:]
    known_offsets = (*offsets, *node.offsets[at:])
    # A variable in a flow mapping has to be quoted, but its value may be a number.
    may_be_number = not node.style or _VARIABLE.fullmatch(node.data)
    data: Any = parse_scalar(text) if may_be_number else text
    if not isinstance(data, (int, float)):
        return replace(node, data=text, known_offsets=known_offsets)
    source = Source(text, node.span.source.name, node.span.source, known_offsets)
    return replace(node, data=data, known_offsets=known_offsets, span=source.span())


def _fill_unknown_variables(value: YamlNode, reading: SectionReader, name: str = "") -> YamlNode:
    """Report AC603 for undefined variables, and put a placeholder in so that reading goes on."""
    if isinstance(value.data, dict):
        inner = {key: _fill_unknown_variables(one, reading, key) for key, one in value.data.items()}
        return replace(value, data=inner)
    if isinstance(value.data, tuple):
        return replace(
            value, data=tuple(_fill_unknown_variables(one, reading, name) for one in value.data)
        )
    if not isinstance(value.data, str) or name in _FREE_TEXT:
        return value
    source = value.source()
    unknown = list(_VARIABLE.finditer(value.data))
    for variable in unknown:
        span = source.span(*variable.span()).origin()
        reading.problems.append(AC603.at(span, name=variable[1]))
    return _fill(value, {variable[1]: _PLACEHOLDER for variable in unknown}) if unknown else value


def mentions_placeholder(diagnostic: Diagnostic) -> bool:
    """Whether a diagnostic only follows from an undefined variable, which AC603 reports."""
    text = diagnostic.span.origin().text if diagnostic.span is not None else ""
    return diagnostic.code != AC603.id and _WITH_VARIABLE.fullmatch(text) is not None
