"""`--set train.lr=5e-5`: another value for a key of a spec, with the types and errors of the file.

>>> from adaptcompose.storage.yaml_source import read
>>> document = read(Source("train: {lr: 1e-4, seeds: [0, 1]}"))
>>> override(document, ["train.lr=5e-5", "train.seeds[1]=7"]).plain()
{'train': {'lr': 5e-05, 'seeds': [0, 7]}}
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from adaptcompose.diagnostics.codes import AC605
from adaptcompose.diagnostics.diagnostic import Failed, Source, Span
from adaptcompose.experiment.spec.section_reader import Section, entries, inner_section, kinds
from adaptcompose.experiment.spec.sections import Spec
from adaptcompose.storage.yaml_source import Value, read

NAME = "--set"
_STEP = re.compile(r"(?:^|\.)([A-Za-z_][\w-]*)|\[(\d+)\]|\.(\d+)(?=\.|\[|$)")


@dataclass(frozen=True)
class Assignment:
    """`a.b[0]=value`, with the places of its parts; without a value the key is taken away."""

    steps: tuple[tuple[str | int, Span], ...]
    value: Value | None


def override(document: Value, written: Sequence[str]) -> Value:
    """The document with other values; what is wrong with an assignment is told at its place."""
    for text in written:
        one = parse(text)
        document = _put(document, one.steps, one.value, Spec)
    return document


def parse(text: str) -> Assignment:
    """The parts of an assignment."""
    source = Source(text, NAME)
    path, mark, value = text.partition("=")
    steps: list[tuple[str | int, Span]] = []
    at = 0
    while mark and (found := _STEP.match(path, at)):
        name, *numbers = found.groups()
        number = next((n for n in numbers if n is not None), None)
        start = found.start(found.lastindex or 0)
        step = name if number is None else int(number)
        steps.append((step, source.span(start, found.end(found.lastindex or 0))))
        at = found.end()
    if not steps or at != len(path) or isinstance(steps[0][0], int):
        expected = "a key and its value, such as train.lr=5e-5"
        raise Failed(AC605.at(source.span(), name=NAME, expected=expected, got=text or "nothing"))
    start = len(path) + 1
    if not value.strip():
        return Assignment(tuple(steps), None)
    places = tuple(range(start, len(text) + 1))
    return Assignment(tuple(steps), read(Source(value, NAME, source, places)))


def _put(
    value: Value,
    steps: tuple[tuple[str | int, Span], ...],
    new: Value | None,
    section: type[Section] | None,
) -> Value:
    (step, place), rest = steps[0], steps[1:]
    if isinstance(step, int):
        return _put_item(value, steps, new, section)
    value = _mapping(value, section, place)
    data, keys = dict(value.data), dict(value.keys)
    if not rest and new is None:
        data.pop(step, None)
        keys.pop(step, None)
    elif not rest:
        assert new is not None
        data[step], keys[step] = new, place
    else:
        keys.setdefault(step, place)
        inner = data.get(step, Value({}, place))
        data[step] = _put(inner, rest, new, _inside(section, step))
    return replace(value, data=data, keys=keys)


def _put_item(
    value: Value,
    steps: tuple[tuple[str | int, Span], ...],
    new: Value | None,
    section: type[Section] | None,
) -> Value:
    (step, place), rest = steps[0], steps[1:]
    count = len(value.data) if isinstance(value.data, tuple) else 0
    if not isinstance(step, int) or step >= count:
        expected = f"an item of a list of {count}" if count else "a key"
        raise Failed(AC605.at(place, name=NAME, expected=expected, got=step))
    items = list(value.data)
    if rest:
        items[step] = _put(items[step], rest, new, section)
    elif new is None:
        del items[step]
    else:
        items[step] = new
    return replace(value, data=tuple(items))


def _mapping(value: Value, section: type[Section] | None, place: Span) -> Value:
    """The mapping that a text stands for, where the section has a short form."""
    if isinstance(value.data, dict):
        return value
    short = section.shorthand if section else None
    if short and isinstance(value.data, str):
        return Value({short: value}, value.span, {short: value.span})
    if value.data is None:
        return Value({}, value.span)
    got = value.span.text.split("\n")[0]
    raise Failed(AC605.at(place, name=NAME, expected="a key inside a mapping", got=got))


def _inside(section: type[Section] | None, name: str) -> type[Section] | None:
    """The section that stands under a key, or under any name of a mapping of sections."""
    if section is None:
        return None
    known: dict[str, Any] = entries(section)
    if name not in known:
        return None
    kind = kinds(section)[known[name].name]
    return inner_section(kind)
