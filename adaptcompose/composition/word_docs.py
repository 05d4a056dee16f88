"""What operators and methods say of themselves: for help, docs, schema and completion.

Nothing is listed here: words, arguments, laws and examples come from the classes, their fields and
their docstrings, wherever they are installed.

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
    """One word of the language that is called."""

    word: str
    kind: WordKind
    takes: str
    summary: str
    text: tuple[str, ...]
    laws: tuple[str, ...]
    examples: tuple[str, ...]
    arguments: tuple[Parameter, ...]
    means: str | None = None
    """For a setting with a name of its own: the call that it stands for."""

    @property
    def signature(self) -> str:
        """A call with every argument at its default."""
        members = _MEMBER_PLACEHOLDERS.get(self.takes, [])
        return f"{self.word}({', '.join([*members, *map(str, self.arguments)])})"

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        arguments = {
            one.name: {
                "is": describe_type(one),
                "default": format_value(one.default),
                "about": one.doc,
            }
            for one in self.arguments
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
            for one in self.arguments:
                said = f"{one}  {describe_type(one)}; {one.doc}"
                yield from textwrap.wrap(
                    said, WIDTH, initial_indent="    ", subsequent_indent=" " * 8
                )


def describe_word(word: str) -> WordDoc | None:
    """What there is to say about a word, if the language has it."""
    if word in registered_operators():
        return _describe_operator(registered_operators()[word])
    if word in registered_methods():
        return _describe_method(word, registered_methods()[word])
    return None


def list_words() -> list[str]:
    """Everything that can be called."""
    return [*registered_operators(), *registered_methods()]


def describe_all_words() -> list[WordDoc]:
    """Every word: blocks, then modifiers, then methods, each with its settings."""
    found = [_describe_operator(one) for one in registered_operators().values()]
    found.sort(key=lambda one: (one.kind != "block", one.word))
    order = {type(one): number for number, one in enumerate(registered_methods().values())}
    methods = sorted(registered_methods().items(), key=lambda one: list(order).index(type(one[1])))
    return [*found, *(_describe_method(word, one) for word, one in methods)]


def describe_type(one: Parameter) -> str:
    """The type of an argument in the user's words, with its bounds.

    >>> describe_type(describe_word("drop").arguments[0])
    'a whole number, at least 0'
    """
    bounds = [("at least", one.minimum), ("below", one.exclusive_maximum)]
    return ", ".join(
        [one.expected, *(f"{w} {format_value(n)}" for w, n in bounds if n is not None)]
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
    """What a named setting says, in the arguments of its family.

    >>> expand_setting("language")
    'bottleneck(reduction=2, invertible=nice)'
    """
    settings = registered_methods()[word]
    family = type(settings)()
    given = [(one, getattr(settings, one.field_name)) for one in parameters(type(settings))]
    changed = [
        f"{p.name}={format_value(v)}" for p, v in given if v != getattr(family, p.field_name)
    ]
    return f"{settings.word}({', '.join(changed)})"


def _read_docstring(
    cls: type[Any], word: str, kind: WordKind, takes: str, means: str | None = None
) -> WordDoc:
    said = inspect.cleandoc(cls.__doc__ or "")
    examples = tuple(
        line.strip()
        for block in _EXAMPLES.findall(said)
        for line in block.splitlines()
        if line.strip()
    )
    said = _EXAMPLES.sub("", said)
    paragraphs = [" ".join(part.split()) for part in said.split("\n\n") if part.strip()]
    laws = tuple(law for one in paragraphs for law in _extract_laws(one))
    rest = (" ".join(_LAWS.sub("", one).split()) for one in paragraphs)
    summary, *text = [one for one in rest if one] or [""]
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
