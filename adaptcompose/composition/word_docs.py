"""Documentation of the words of the language, for help, docs, schema and completion.

It is read from the classes of operators and methods, including those of installed packages: the
arguments from their fields; summary, text, laws and examples from their docstrings.

>>> describe_word("drop").laws[0]
'drop(bottom=0) = identity'
>>> describe_word("drop").signature
'drop(bottom=0, top=0, layers=[], part=none)'
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import adaptcompose.composition.operators  # noqa: F401 - they register themselves
from adaptcompose.composition.operator import Operator, registered_operators
from adaptcompose.methods import Method, registered_methods
from adaptcompose.syntax.signature import Parameter, format_value, parameters

WordKind = Literal["block", "modifier", "method", "setting"]
WIDTH = 92

_LAWS = re.compile(r"\bLaws?: (.+?)(?:\.(?= [A-Z]|$)|$)", re.S)
_EXAMPLES = re.compile(r"^(?:For e|E)xamples?:\n((?:\n| +\S.*\n?)+)", re.M)


@dataclass(frozen=True)
class WordDoc:
    """The documentation of one operator, method, or setting of a method."""

    word: str
    kind: WordKind
    takes: str
    summary: str
    text: tuple[str, ...]
    laws: tuple[str, ...]
    examples: tuple[str, ...]
    arguments: tuple[Parameter, ...]
    means: str | None = None
    """The call that a setting is short for; None for other words."""

    @property
    def signature(self) -> str:
        """A call with every argument at its default."""
        members = _MEMBER_PLACEHOLDERS.get(self.takes, [])
        return f"{self.word}({', '.join([*members, *map(str, self.arguments)])})"

    def as_dict(self) -> dict[str, Any]:
        """The JSON representation."""
        arguments = {
            parameter.name: {
                "is": describe_type(parameter),
                "default": format_value(parameter.default),
                "about": parameter.doc,
            }
            for parameter in self.arguments
        }
        names = ("word", "kind", "takes", "summary", "text", "laws", "examples", "means")
        return {name: getattr(self, name) for name in names} | {"arguments": arguments}

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield from textwrap.wrap(f"{self.word}: {self.summary}", WIDTH)
        yield ""
        takes = f", takes {self.takes}" if self.takes else ""
        yield f"{self.kind}{takes}" if self.means is None else f"the same as {self.means}"
        for paragraph in self.text:
            yield ""
            yield from textwrap.wrap(paragraph, WIDTH)
        for title, lines in (("laws", self.laws), ("examples", self.examples)):
            if lines:
                yield from ("", title, *(f"    {line}" for line in lines))
        if self.arguments and self.means is None:
            yield from ("", "arguments")
            for parameter in self.arguments:
                line = f"{parameter}  {describe_type(parameter)}; {parameter.doc}"
                yield from textwrap.wrap(
                    line, WIDTH, initial_indent="    ", subsequent_indent=" " * 8
                )


def describe_word(word: str) -> WordDoc | None:
    """The documentation of a word, or None if the language does not have it."""
    if word in registered_operators():
        return _describe_operator(registered_operators()[word])
    if word in registered_methods():
        return _describe_method(word, registered_methods()[word])
    return None


def list_words() -> list[str]:
    """All words that can be called."""
    return [*registered_operators(), *registered_methods()]


def describe_all_words() -> list[WordDoc]:
    """The documentation of every word: blocks, modifiers, then methods, each with its settings."""
    operators = [_describe_operator(operator) for operator in registered_operators().values()]
    operators.sort(key=lambda doc: (doc.kind != "block", doc.word))
    families = list(dict.fromkeys(map(type, registered_methods().values())))
    methods = sorted(registered_methods().items(), key=lambda item: families.index(type(item[1])))
    return [*operators, *(_describe_method(word, method) for word, method in methods)]


def describe_type(parameter: Parameter) -> str:
    """The type of an argument in words, with its bounds.

    >>> describe_type(describe_word("drop").arguments[0])
    'a whole number, at least 0'
    """
    bounds = [("at least", parameter.minimum), ("below", parameter.exclusive_maximum)]
    return ", ".join(
        [parameter.expected, *(f"{w} {format_value(n)}" for w, n in bounds if n is not None)]
    )


def _describe_operator(operator: type[Operator]) -> WordDoc:
    kind: WordKind = "modifier" if operator.is_modifier else "block"
    takes = _TAKES_PHRASES.get((operator.takes, operator.is_modifier), operator.takes)
    takes = f"{takes} with weights" if operator.accepts_weights else takes
    return _read_docstring(operator, operator.word, kind, takes)


def _describe_method(word: str, settings: Method) -> WordDoc:
    means = None if word == settings.word else expand_setting(word)
    return _read_docstring(type(settings), word, "setting" if means else "method", "", means)


def expand_setting(word: str) -> str:
    """The call of a method that a setting is short for.

    >>> expand_setting("language")
    'bottleneck(reduction=2, invertible=nice)'
    """
    settings = registered_methods()[word]
    family = type(settings)()
    values = [(p, getattr(settings, p.field_name)) for p in parameters(type(settings))]
    changed = [
        f"{p.name}={format_value(v)}" for p, v in values if v != getattr(family, p.field_name)
    ]
    return f"{settings.word}({', '.join(changed)})"


def _read_docstring(
    cls: type[Any], word: str, kind: WordKind, takes: str, means: str | None = None
) -> WordDoc:
    docstring = inspect.cleandoc(cls.__doc__ or "")
    examples = tuple(
        line.strip()
        for block in _EXAMPLES.findall(docstring)
        for line in block.splitlines()
        if line.strip()
    )
    prose = _EXAMPLES.sub("", docstring)
    paragraphs = [" ".join(part.split()) for part in prose.split("\n\n") if part.strip()]
    laws = tuple(law for paragraph in paragraphs for law in _extract_laws(paragraph))
    without_laws = (" ".join(_LAWS.sub("", paragraph).split()) for paragraph in paragraphs)
    summary, *text = [paragraph for paragraph in without_laws if paragraph] or [""]
    return WordDoc(word, kind, takes, summary, tuple(text), laws, examples, parameters(cls), means)


def _extract_laws(paragraph: str) -> list[str]:
    return [law.strip(" .") for found in _LAWS.findall(paragraph) for law in found.split("; ")]


_TAKES_PHRASES = {
    ("nothing", True): "",
    ("nothing", False): "",
    ("slots", True): "slots",
    ("slots", False): "slots or blocks",
    ("adapters", False): "blocks",
    ("names", True): "names of slots and parts",
}
_MEMBER_PLACEHOLDERS = {
    "names of slots and parts": ["name", "…"],
    "slots or blocks": ["slot=block", "…"],
    "slots": ["slot=block", "…"],
    "blocks": ["block", "…"],
    "blocks with weights": ["block:weight", "…"],
}
