"""How an expression may go on: operators, methods, arguments, and names of the catalogue.

>>> from adaptcompose.catalogue.cards import Catalogue
>>> from adaptcompose.resources import resource_folder
>>> cards = Catalogue.open(resource_folder("hub_cards"))
>>> complete("stack(lang=sw) | dr", cards)
['stack(lang=sw) | drop(']
>>> complete("drop(bot", cards)
['drop(bottom=']
>>> complete("stack(lang=mh", cards)
['stack(lang=mhr']
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from adaptcompose.catalogue.cards import Catalogue
from adaptcompose.composition.operator import registered_operators
from adaptcompose.composition.word_docs import WordDoc, describe_word
from adaptcompose.methods import registered_methods
from adaptcompose.syntax.signature import Parameter, format_value

_TOKEN = re.compile(
    r"""(?P<text>"[^"]*"|'[^']*')|(?P<call>[a-z]\w*)\s*\(|(?P<key>[a-z]\w*)\s*=|"""
    r"(?P<let>let)\s+|(?P<mark>[()\[\],|;:!])|(?P<word>[^\s()\[\],|;:!=]+)|\s+|."
)


@dataclass
class _OpenCall:
    """A call that is not closed yet: what is called, and what it was given."""

    word: str
    key: str | None = None
    used_keys: tuple[str, ...] = ()


def complete(text: str, catalogue: Catalogue) -> list[str]:
    """Texts that begin with `text` and go on with one more word of the language."""
    return [one for one in _completions(text, catalogue) if one != text]


def _completions(text: str, catalogue: Catalogue) -> list[str]:
    """Texts that begin with `text`, itself among them if it ends with a whole word."""
    start, calling, names, first = _cursor_state(text)
    found = _candidates(text[start:], calling, names, first, catalogue)
    return [text[:start] + one for one in found]


def complete_for_shell(text: str, catalogue: Catalogue) -> list[str]:
    """The same; a single answer comes with what may follow it.

    A shell that has only one answer closes the quotes and goes on with the next argument.
    """
    found = _completions(text, catalogue)
    if len(found) != 1:
        return [one for one in found if one != text]
    (only,) = found
    if only.endswith("| "):
        return [only]
    if only.endswith(("(", "=", "/")):
        further = complete(only, catalogue) or [only + (")" if only.endswith("(") else "…")]
        return further if len(further) > 1 else [only, *further]
    inside = _cursor_state(f"{only} ")[1] is not None
    return [f"{only},", f"{only})"] if inside else [only, f"{only} |"]


def _cursor_state(text: str) -> tuple[int, _OpenCall | None, list[str], bool]:
    """Where the last word starts, the call around it, the names bound, and if a stage starts."""
    calling: list[_OpenCall] = []
    names: list[str] = []
    start, first, binding = 0, True, False
    for found in _TOKEN.finditer(text):
        kind, end = found.lastgroup, found.end()
        if kind == "word" and end == len(text):
            return found.start(), calling[-1] if calling else None, names, first
        start = end
        if kind == "call":
            calling.append(_OpenCall(found["call"]))
            first = False
        elif kind == "key" and binding:
            names.append(found["key"])
            binding, first = False, True
        elif kind == "key" and calling:
            calling[-1].key, calling[-1].used_keys = (
                found["key"],
                (*calling[-1].used_keys, found["key"]),
            )
        elif kind == "let":
            binding = True
        elif kind == "mark":
            first = _read_mark(found["mark"], calling)
        elif kind in ("word", "text"):
            first = False
    return start, calling[-1] if calling else None, names, first


def _read_mark(mark: str, calls_stack: list[_OpenCall]) -> bool:
    """Take note of a mark; whether a composition may start behind it."""
    if mark == "(":
        calls_stack.append(_OpenCall(""))
    elif mark == ")" and calls_stack:
        calls_stack.pop()
    elif mark == "," and calls_stack:
        calls_stack[-1].key = None
    return mark in "|;(" and not (mark == "|" and calls_stack and calls_stack[-1].word)


def _candidates(
    word: str, call: _OpenCall | None, names: list[str], at_stage_start: bool, catalogue: Catalogue
) -> list[str]:
    known = describe_word(call.word) if call else None
    if call is not None and call.word and known is None:
        return []
    if call is None or known is None or not call.word:
        found = _stages(catalogue, names) if at_stage_start or word else iter(["| "])
    elif call.key is not None:
        found = _values(known, call.key, catalogue, names)
    else:
        found = _arguments(known, call, catalogue, names)
    if "/" in word:
        space = word.partition("/")[0].lstrip("!")
        mark = "!" if word.startswith("!") else ""
        found = (f"{mark}{space}/{name}" for name in catalogue.names(space))
    return sorted({one for one in found if one.startswith(word)})


def _stages(catalogue: Catalogue, names: list[str]) -> Iterator[str]:
    yield from (f"{word}(" for word in registered_operators())
    yield from _blocks(catalogue, names)


def _blocks(catalogue: Catalogue, names: list[str]) -> Iterator[str]:
    yield from (f"{word}(" for word in registered_methods())
    yield from (f"{word}(" for word, one in registered_operators().items() if not one.is_modifier)
    yield from (f"{space}/" for space in catalogue.spaces())
    yield from names


def _arguments(
    known: WordDoc, calling: _OpenCall, catalogue: Catalogue, names: list[str]
) -> Iterator[str]:
    yield from (f"{one.name}=" for one in known.arguments if one.name not in calling.used_keys)
    if known.takes.startswith("slots"):
        yield from (f"{s}=" for s in catalogue.spaces() if s not in calling.used_keys)
    if known.takes and known.kind == "block":
        yield from _blocks(catalogue, names)


def _values(known: WordDoc, name: str, catalogue: Catalogue, names: list[str]) -> Iterator[str]:
    arguments: dict[str, Parameter] = {one.name: one for one in known.arguments}
    if name in arguments:
        one = arguments[name]
        yield from one.choices
        yield from ("true", "false") if "true or false" in one.expected else ()
        if not one.choices and (one.default or type(one.default) in (int, float)):
            yield format_value(one.default)
        return
    yield from catalogue.names(name)
    yield "none"
    yield from _blocks(catalogue, names)
