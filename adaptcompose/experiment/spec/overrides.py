"""`--set train.lr=5e-5`: replace the value of a key, with the types and errors of the file.

>>> from adaptcompose.storage.yaml_source import parse_yaml
>>> document = parse_yaml(Source("train: {lr: 1e-4, seeds: [0, 1]}"))
>>> apply_overrides(document, ["train.lr=5e-5", "train.seeds[1]=7"]).as_plain()
{'train': {'lr': 5e-05, 'seeds': [0, 7]}}
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from adaptcompose.diagnostics.codes import AC605
from adaptcompose.diagnostics.diagnostic import Failed, Source, Span
from adaptcompose.experiment.spec.section_reader import (
    Section,
    field_types,
    fields_by_key,
    inner_section,
)
from adaptcompose.experiment.spec.sections import Spec
from adaptcompose.storage.yaml_source import YamlNode, parse_yaml

OPTION = "--set"
_STEP = re.compile(r"(?:^|\.)([A-Za-z_][\w-]*)|\[(\d+)\]|\.(\d+)(?=\.|\[|$)")


@dataclass(frozen=True)
class Assignment:
    """`a.b[0]=value`, with the span of each step. Without a value, the key is deleted."""

    steps: tuple[tuple[str | int, Span], ...]
    value: YamlNode | None


def apply_overrides(document: YamlNode, assignments: Sequence[str]) -> YamlNode:
    """The document with the assignments applied. Problems point into the assignment."""
    for text in assignments:
        assignment = parse_assignment(text)
        document = _assign(document, assignment.steps, assignment.value, Spec)
    return document


def parse_assignment(text: str) -> Assignment:
    """Parse `key=value`. Raises AC605 if the text has another form."""
    source = Source(text, OPTION)
    path, mark, value = text.partition("=")
    steps: list[tuple[str | int, Span]] = []
    at = 0
    while mark and (match := _STEP.match(path, at)):
        name, *indices = match.groups()
        index = next((digits for digits in indices if digits is not None), None)
        start, end = match.span(match.lastindex or 0)
        steps.append((name if index is None else int(index), source.span(start, end)))
        at = match.end()
    if not steps or at != len(path) or isinstance(steps[0][0], int):
        expected = "a key and its value, such as train.lr=5e-5"
        raise Failed(
            AC605.at(
                source.span(), name=OPTION, expected=expected, got=f"`{text}`" if text else "empty"
            )
        )
    start = len(path) + 1
    if not value.strip():
        return Assignment(tuple(steps), None)
    places = tuple(range(start, len(text) + 1))
    return Assignment(tuple(steps), parse_yaml(Source(value, OPTION, source, places)))


def _assign(
    value: YamlNode,
    steps: tuple[tuple[str | int, Span], ...],
    new: YamlNode | None,
    section: type[Section] | None,
) -> YamlNode:
    (step, span), rest = steps[0], steps[1:]
    if isinstance(step, int):
        return _assign_item(value, steps, new, section)
    value = _mapping(value, section, span)
    data, keys = dict(value.data), dict(value.key_spans)
    if not rest and new is None:
        data.pop(step, None)
        keys.pop(step, None)
    elif not rest:
        assert new is not None
        data[step], keys[step] = new, span
    else:
        keys.setdefault(step, span)
        inner = data.get(step, YamlNode({}, span))
        data[step] = _assign(inner, rest, new, _inner_section(section, step))
    return replace(value, data=data, key_spans=keys)


def _assign_item(
    value: YamlNode,
    steps: tuple[tuple[str | int, Span], ...],
    new: YamlNode | None,
    section: type[Section] | None,
) -> YamlNode:
    (step, span), rest = steps[0], steps[1:]
    count = len(value.data) if isinstance(value.data, tuple) else 0
    if not isinstance(step, int) or step >= count:
        expected = f"an index below {count}, the length of the list" if count else "a key"
        raise Failed(AC605.at(span, name=OPTION, expected=expected, got=f"`{step}`"))
    items = list(value.data)
    if rest:
        items[step] = _assign(items[step], rest, new, section)
    elif new is None:
        del items[step]
    else:
        items[step] = new
    return replace(value, data=tuple(items))


def _mapping(value: YamlNode, section: type[Section] | None, span: Span) -> YamlNode:
    """The node as a mapping. A text becomes one if the section has a shorthand."""
    if isinstance(value.data, dict):
        return value
    short = section.shorthand if section else None
    if short and isinstance(value.data, str):
        return YamlNode({short: value}, value.span, {short: value.span})
    if value.data is None:
        return YamlNode({}, value.span)
    got = value.span.text.split("\n")[0]
    raise Failed(
        AC605.at(span, name=OPTION, expected="a key inside a mapping", got=f"inside `{got}`")
    )


def _inner_section(section: type[Section] | None, name: str) -> type[Section] | None:
    """The section type of a key, or of the values of a mapping of sections."""
    if section is None:
        return None
    known: dict[str, Any] = fields_by_key(section)
    if name not in known:
        return None
    kind = field_types(section)[known[name].name]
    return inner_section(kind)
