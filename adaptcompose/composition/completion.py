"""Completion of an expression: operators, methods, arguments, and names of the catalogue.

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
    """A call without its closing bracket: its word and the arguments before the cursor."""

    word: str
    key: str | None = None
    used_keys: tuple[str, ...] = ()


def complete(text: str, catalogue: Catalogue) -> list[str]:
    """The texts that continue `text` by one word of the language."""
    return [completed for completed in _completions(text, catalogue) if completed != text]


def _completions(text: str, catalogue: Catalogue) -> list[str]:
    """The texts that complete the last word of `text`; `text` itself if that word is complete."""
    start, call, names, at_stage_start = _cursor_state(text)
    words = _candidates(text[start:], call, names, at_stage_start, catalogue)
    return [text[:start] + word for word in words]


def complete_for_shell(text: str, catalogue: Catalogue) -> list[str]:
    """Complete a text like `complete`, but add continuations to a single completion.

    A shell that gets one completion only closes the quotes and starts the next argument.
    """
    completions = _completions(text, catalogue)
    if len(completions) != 1:
        return [completed for completed in completions if completed != text]
    (only,) = completions
    if only.endswith("| "):
        return [only]
    if only.endswith(("(", "=", "/")):
        further = complete(only, catalogue) or [only + (")" if only.endswith("(") else "…")]
        return further if len(further) > 1 else [only, *further]
    inside = _cursor_state(f"{only} ")[1] is not None
    return [f"{only},", f"{only})"] if inside else [only, f"{only} |"]


def _cursor_state(text: str) -> tuple[int, _OpenCall | None, list[str], bool]:
    """Read the text up to the cursor.

    Returns the start of the last word, the call around it, the `let` names, and True if a
    composition can start there.
    """
    open_calls: list[_OpenCall] = []
    names: list[str] = []
    start, at_stage_start, binding = 0, True, False
    for match in _TOKEN.finditer(text):
        kind, end = match.lastgroup, match.end()
        if kind == "word" and end == len(text):
            return match.start(), open_calls[-1] if open_calls else None, names, at_stage_start
        start = end
        if kind == "call":
            open_calls.append(_OpenCall(match["call"]))
            at_stage_start = False
        elif kind == "key" and binding:
            names.append(match["key"])
            binding, at_stage_start = False, True
        elif kind == "key" and open_calls:
            open_calls[-1].key = match["key"]
            open_calls[-1].used_keys += (match["key"],)
        elif kind == "let":
            binding = True
        elif kind == "mark":
            at_stage_start = _read_mark(match["mark"], open_calls)
        elif kind in ("word", "text"):
            at_stage_start = False
    return start, open_calls[-1] if open_calls else None, names, at_stage_start


def _read_mark(mark: str, open_calls: list[_OpenCall]) -> bool:
    """Update the open calls for a mark; returns True if a composition can start after it."""
    if mark == "(":
        open_calls.append(_OpenCall(""))
    elif mark == ")" and open_calls:
        open_calls.pop()
    elif mark == "," and open_calls:
        open_calls[-1].key = None
    return mark in "|;(" and not (mark == "|" and open_calls and open_calls[-1].word)


def _candidates(
    word: str, call: _OpenCall | None, names: list[str], at_stage_start: bool, catalogue: Catalogue
) -> list[str]:
    known = describe_word(call.word) if call else None
    if call is not None and call.word and known is None:
        return []
    if call is None or known is None or not call.word:
        candidates = _stages(catalogue, names) if at_stage_start or word else iter(["| "])
    elif call.key is not None:
        candidates = _values(known, call.key, catalogue, names)
    else:
        candidates = _arguments(known, call, catalogue, names)
    if "/" in word:
        space = word.partition("/")[0].lstrip("!")
        mark = "!" if word.startswith("!") else ""
        candidates = (f"{mark}{space}/{name}" for name in catalogue.names(space))
    return sorted({candidate for candidate in candidates if candidate.startswith(word)})


def _stages(catalogue: Catalogue, names: list[str]) -> Iterator[str]:
    yield from (f"{word}(" for word in registered_operators())
    yield from _blocks(catalogue, names)


def _blocks(catalogue: Catalogue, names: list[str]) -> Iterator[str]:
    yield from (f"{word}(" for word in registered_methods())
    operators = registered_operators().items()
    yield from (f"{word}(" for word, operator in operators if not operator.is_modifier)
    yield from (f"{space}/" for space in catalogue.spaces())
    yield from names


def _arguments(
    known: WordDoc, call: _OpenCall, catalogue: Catalogue, names: list[str]
) -> Iterator[str]:
    keys = [parameter.name for parameter in known.arguments]
    if known.takes.startswith("slots"):
        keys += catalogue.spaces()
    yield from (f"{key}=" for key in keys if key not in call.used_keys)
    if known.takes and known.kind == "block":
        yield from _blocks(catalogue, names)


def _values(known: WordDoc, name: str, catalogue: Catalogue, names: list[str]) -> Iterator[str]:
    parameters: dict[str, Parameter] = {parameter.name: parameter for parameter in known.arguments}
    if name in parameters:
        parameter = parameters[name]
        yield from parameter.choices
        yield from ("true", "false") if "true or false" in parameter.expected else ()
        has_default = parameter.default or type(parameter.default) in (int, float)
        if not parameter.choices and has_default:
            yield format_value(parameter.default)
        return
    yield from catalogue.names(name)
    yield "none"
    yield from _blocks(catalogue, names)
