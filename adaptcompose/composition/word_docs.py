"""What operators and methods say of themselves: for help, docs, schema and completion.

Nothing is listed here: words, arguments, laws and examples come from the classes, their fields and
their docstrings, wherever they are installed.

>>> page("drop").laws[0]
'drop(bottom=0) = identity'
>>> page("drop").signature
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
from adaptcompose.composition.operator import Operator, operators
from adaptcompose.methods import Method, calls
from adaptcompose.syntax.signature import Parameter, parameters, spell

Kind = Literal["block", "modifier", "method", "setting"]
WIDTH = 92

_LAWS = re.compile(r"\bLaws?: (.+?)(?:\.(?= [A-Z]|$)|$)", re.S)
_EXAMPLES = re.compile(r"^(?:For e|E)xamples?:\n((?:\n| +\S.*\n?)+)", re.M)


@dataclass(frozen=True)
class Page:
    """One word of the language that is called."""

    word: str
    kind: Kind
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
        members = _MEMBERS.get(self.takes, [])
        return f"{self.word}({', '.join([*members, *map(str, self.arguments)])})"

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        arguments = {
            one.name: {"is": expected(one), "default": spell(one.default), "about": one.doc}
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
                said = f"{one}  {expected(one)}; {one.doc}"
                yield from textwrap.wrap(
                    said, WIDTH, initial_indent="    ", subsequent_indent=" " * 8
                )


def page(word: str) -> Page | None:
    """What there is to say about a word, if the language has it."""
    if word in operators():
        return _operator_page(operators()[word])
    if word in calls():
        return _method_page(word, calls()[word])
    return None


def words() -> list[str]:
    """Everything that can be called."""
    return [*operators(), *calls()]


def pages() -> list[Page]:
    """Every word: blocks, then modifiers, then methods, each with its settings."""
    found = [_operator_page(one) for one in operators().values()]
    found.sort(key=lambda one: (one.kind != "block", one.word))
    order = {type(one): number for number, one in enumerate(calls().values())}
    methods = sorted(calls().items(), key=lambda one: list(order).index(type(one[1])))
    return [*found, *(_method_page(word, one) for word, one in methods)]


def expected(one: Parameter) -> str:
    """The type of an argument in the user's words, with its bounds.

    >>> expected(page("drop").arguments[0])
    'a whole number, at least 0'
    """
    bounds = [("at least", one.least), ("below", one.below)]
    return ", ".join([one.expected, *(f"{w} {spell(n)}" for w, n in bounds if n is not None)])


def _operator_page(operator: type[Operator]) -> Page:
    kind: Kind = "modifier" if operator.modifier else "block"
    takes = _TAKES.get((operator.takes, operator.modifier), operator.takes)
    takes = f"{takes} with weights" if operator.weighted else takes
    return _page(operator, operator.word, kind, takes)


def _method_page(word: str, settings: Method) -> Page:
    means = None if word == settings.word else meaning(word)
    return _page(type(settings), word, "setting" if means else "method", "", means)


def meaning(word: str) -> str:
    """What a named setting says, in the arguments of its family.

    >>> meaning("language")
    'bottleneck(reduction=2, invertible=nice)'
    """
    settings = calls()[word]
    family = type(settings)()
    given = [(one, getattr(settings, one.field)) for one in parameters(type(settings))]
    changed = [f"{p.name}={spell(v)}" for p, v in given if v != getattr(family, p.field)]
    return f"{settings.word}({', '.join(changed)})"


def _page(cls: type[Any], word: str, kind: Kind, takes: str, means: str | None = None) -> Page:
    said = inspect.cleandoc(cls.__doc__ or "")
    examples = tuple(
        line.strip()
        for block in _EXAMPLES.findall(said)
        for line in block.splitlines()
        if line.strip()
    )
    said = _EXAMPLES.sub("", said)
    paragraphs = [" ".join(part.split()) for part in said.split("\n\n") if part.strip()]
    laws = tuple(law for one in paragraphs for law in _laws(one))
    rest = (" ".join(_LAWS.sub("", one).split()) for one in paragraphs)
    summary, *text = [one for one in rest if one] or [""]
    return Page(word, kind, takes, summary, tuple(text), laws, examples, parameters(cls), means)


def _laws(paragraph: str) -> list[str]:
    return [law.strip(" .") for found in _LAWS.findall(paragraph) for law in found.split("; ")]


_TAKES = {
    ("nothing", True): "",
    ("nothing", False): "",
    ("slots", True): "slots",
    ("slots", False): "slots or blocks",
    ("adapters", False): "blocks",
    ("names", True): "names of slots and parts",
}
_MEMBERS = {
    "names of slots and parts": ["name", "…"],
    "slots or blocks": ["slot=block", "…"],
    "slots": ["slot=block", "…"],
    "blocks": ["block", "…"],
    "blocks with weights": ["block:weight", "…"],
}
