"""How an expression may go on: operators, methods, arguments, and names of the catalogue.

>>> from adaptcompose.catalogue.cards import Catalogue
>>> from adaptcompose.resources import resource
>>> cards = Catalogue.open(resource("hub_cards"))
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
from adaptcompose.composition.operator import operators
from adaptcompose.composition.word_docs import Page, page
from adaptcompose.methods import calls
from adaptcompose.syntax.signature import Parameter, spell

_TOKEN = re.compile(
    r"""(?P<text>"[^"]*"|'[^']*')|(?P<call>[a-z]\w*)\s*\(|(?P<key>[a-z]\w*)\s*=|"""
    r"(?P<let>let)\s+|(?P<mark>[()\[\],|;:!])|(?P<word>[^\s()\[\],|;:!=]+)|\s+|."
)


@dataclass
class _Call:
    """A call that is not closed yet: what is called, and what it was given."""

    word: str
    key: str | None = None
    given: tuple[str, ...] = ()


def complete(text: str, catalogue: Catalogue) -> list[str]:
    """Texts that begin with `text` and go on with one more word of the language."""
    return [one for one in _texts(text, catalogue) if one != text]


def _texts(text: str, catalogue: Catalogue) -> list[str]:
    """Texts that begin with `text`, itself among them if it ends with a whole word."""
    start, calling, names, first = _place(text)
    found = _candidates(text[start:], calling, names, first, catalogue)
    return [text[:start] + one for one in found]


def continued(text: str, catalogue: Catalogue) -> list[str]:
    """The same; a single answer comes with what may follow it.

    A shell that has only one answer closes the quotes and goes on with the next argument.
    """
    found = _texts(text, catalogue)
    if len(found) != 1:
        return [one for one in found if one != text]
    (only,) = found
    if only.endswith("| "):
        return [only]
    if only.endswith(("(", "=", "/")):
        further = complete(only, catalogue) or [only + (")" if only.endswith("(") else "…")]
        return further if len(further) > 1 else [only, *further]
    inside = _place(f"{only} ")[1] is not None
    return [f"{only},", f"{only})"] if inside else [only, f"{only} |"]


def _place(text: str) -> tuple[int, _Call | None, list[str], bool]:
    """Where the last word starts, the call around it, the names bound, and if a stage starts."""
    calling: list[_Call] = []
    names: list[str] = []
    start, first, binding = 0, True, False
    for found in _TOKEN.finditer(text):
        kind, end = found.lastgroup, found.end()
        if kind == "word" and end == len(text):
            return found.start(), calling[-1] if calling else None, names, first
        start = end
        if kind == "call":
            calling.append(_Call(found["call"]))
            first = False
        elif kind == "key" and binding:
            names.append(found["key"])
            binding, first = False, True
        elif kind == "key" and calling:
            calling[-1].key, calling[-1].given = found["key"], (*calling[-1].given, found["key"])
        elif kind == "let":
            binding = True
        elif kind == "mark":
            first = _mark(found["mark"], calling)
        elif kind in ("word", "text"):
            first = False
    return start, calling[-1] if calling else None, names, first


def _mark(mark: str, calling: list[_Call]) -> bool:
    """Take note of a mark; whether a composition may start behind it."""
    if mark == "(":
        calling.append(_Call(""))
    elif mark == ")" and calling:
        calling.pop()
    elif mark == "," and calling:
        calling[-1].key = None
    return mark in "|;(" and not (mark == "|" and calling and calling[-1].word)


def _candidates(
    word: str, calling: _Call | None, names: list[str], first: bool, catalogue: Catalogue
) -> list[str]:
    known = page(calling.word) if calling else None
    if calling is not None and calling.word and known is None:
        return []
    if calling is None or known is None or not calling.word:
        found = _stages(catalogue, names) if first or word else iter(["| "])
    elif calling.key is not None:
        found = _values(known, calling.key, catalogue, names)
    else:
        found = _arguments(known, calling, catalogue, names)
    if "/" in word:
        space = word.partition("/")[0].lstrip("!")
        mark = "!" if word.startswith("!") else ""
        found = (f"{mark}{space}/{name}" for name in catalogue.names(space))
    return sorted({one for one in found if one.startswith(word)})


def _stages(catalogue: Catalogue, names: list[str]) -> Iterator[str]:
    yield from (f"{word}(" for word in operators())
    yield from _blocks(catalogue, names)


def _blocks(catalogue: Catalogue, names: list[str]) -> Iterator[str]:
    yield from (f"{word}(" for word in calls())
    yield from (f"{word}(" for word, one in operators().items() if not one.modifier)
    yield from (f"{space}/" for space in catalogue.spaces())
    yield from names


def _arguments(
    known: Page, calling: _Call, catalogue: Catalogue, names: list[str]
) -> Iterator[str]:
    yield from (f"{one.name}=" for one in known.arguments if one.name not in calling.given)
    if known.takes.startswith("slots"):
        yield from (f"{s}=" for s in catalogue.spaces() if s not in calling.given)
    if known.takes and known.kind == "block":
        yield from _blocks(catalogue, names)


def _values(known: Page, name: str, catalogue: Catalogue, names: list[str]) -> Iterator[str]:
    arguments: dict[str, Parameter] = {one.name: one for one in known.arguments}
    if name in arguments:
        one = arguments[name]
        yield from one.choices
        yield from ("true", "false") if "true or false" in one.expected else ()
        if not one.choices and (one.default or type(one.default) in (int, float)):
            yield spell(one.default)
        return
    yield from catalogue.names(name)
    yield "none"
    yield from _blocks(catalogue, names)
