"""`each` in spec.yaml: one item, or one whole spec, for every combination, `${name}` filled in.

An item of `evaluate` with `each` is written out inside its spec. `each` at the top makes a sweep:
as many specs as there are combinations.
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
_UNSWEPT_KEYS = ("spec", "name", "hub", "backbone")  # what all runs of a sweep have in common


def expand_sweep(document: YamlNode, reading: SectionReader) -> list[YamlNode]:
    """The documents that a document with `each` at its top stands for; without, itself."""
    if not isinstance(document.data, dict) or "each" not in document.data:
        return [document]
    for name in _UNSWEPT_KEYS:
        if name in document.data:
            _fill_unknown_variables(document.data[name], reading, name)
    _check_shadows(document, reading)
    return list(_combinations(document, reading, "each")) or [document]


def expand_rows(document: YamlNode, reading: SectionReader) -> YamlNode:
    """The document with the items of `evaluate` that have `each` written out."""
    if not isinstance(document.data, dict):
        return document
    expanded = dict(document.data)
    items = expanded.get("evaluate")
    if items is not None and isinstance(items.data, tuple):
        where = "evaluate.each"
        written = [one for item in items.data for one in _combinations(item, reading, where)]
        expanded["evaluate"] = replace(items, data=tuple(written))
        if items.data and not written:
            del expanded["evaluate"]
    return _fill_unknown_variables(replace(document, data=expanded), reading)


def _check_shadows(document: YamlNode, reading: SectionReader) -> None:
    """A variable of the sweep is not one of an item as well."""
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
    found = reading.read_value(dict[str, tuple[ScalarText, ...]], each, where)
    if found is None or len(found) < len(each.data):
        return
    values = {name: one.data for name, one in each.data.items()}
    count = 1
    for options in values.values():
        count *= len(options)
    if not values or count > COMBINATION_LIMIT:
        expected = f"a mapping with 1 to {COMBINATION_LIMIT:,} combinations"
        got = f"one with {count if values else 0:,}"
        reading.problems.append(AC605.at(each.span, name="each", expected=expected, got=got))
        return
    body = {name: one for name, one in item.data.items() if name != "each"}
    for choice in itertools.product(*values.values()):
        chosen = dict(zip(values, choice, strict=True))
        texts = {name: one.text for name, one in chosen.items()}
        filled = {name: _fill(one, texts) for name, one in body.items()}
        singles = {name: replace(each.data[name], data=(one,)) for name, one in chosen.items()}
        filled["each"] = replace(each, data=singles)
        yield replace(item, data=filled)


def _fill(value: YamlNode, texts: Mapping[str, str]) -> YamlNode:
    if isinstance(value.data, dict):
        return replace(value, data={name: _fill(one, texts) for name, one in value.data.items()})
    if isinstance(value.data, tuple):
        return replace(value, data=tuple(_fill(one, texts) for one in value.data))
    if not isinstance(value.data, str) or not _VARIABLE.search(value.data):
        return value
    text = ""
    places: list[int] = []
    at = 0
    for found in _VARIABLE.finditer(value.data):
        if found[1] not in texts:
            continue
        new = texts[found[1]]
        text += value.data[at : found.start()] + new
        places += value.offsets[at : found.start()]
        # The first character stands at `$`, the last at `}`: a caret covers all of `${name}`.
        places += [value.offsets[found.start()]] * (len(new) - 1)
        places += [value.offsets[found.end() - 1 if len(new) > 1 else found.start()]] * bool(new)
        at = found.end()
    text += value.data[at:]
    given = (*places, *value.offsets[at:])
    # in a flow mapping a variable has to be quoted, and may still stand for a number
    whole = not value.style or _VARIABLE.fullmatch(value.data)
    data: Any = parse_scalar(text) if whole else text
    if not isinstance(data, (int, float)):
        return replace(value, data=text, known_offsets=given)
    written = Source(text, value.span.source.name, value.span.source, given)
    return replace(value, data=data, known_offsets=given, span=written.span())


def _fill_unknown_variables(value: YamlNode, reading: SectionReader, name: str = "") -> YamlNode:
    """The value with a word for every variable that nothing explains, so that it can be read."""
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
    for found in unknown:
        reading.problems.append(AC603.at(source.span(*found.span()).origin(), name=found[1]))
    return _fill(value, {found[1]: _PLACEHOLDER for found in unknown}) if unknown else value


def mentions_placeholder(found: Diagnostic) -> bool:
    """Whether it is about a word that stands for a variable, which was told already."""
    place = found.span.origin().text if found.span is not None else ""
    return found.code != AC603.id and _WITH_VARIABLE.fullmatch(place) is not None
