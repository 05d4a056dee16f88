"""Diagnostics: what a user did wrong, where, and what to do about it.

>>> from adaptcompose.diagnostics.codes import AC201
>>> source = Source("stack(sw) | drop(botom=5)")
>>> place = source.span(17, 22)
>>> print(AC201.at(place, operator="drop", name="botom", help="did you mean `bottom`?"))
error[AC201]: `drop` has no argument `botom`
  --> <expression>:1:18
  |
1 | stack(sw) | drop(botom=5)
  |                  ^^^^^
  = help: did you mean `bottom`?
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
_LINE_END = re.compile(r"\r\n?|\n")


@dataclass(frozen=True)
class Source:
    """A text that a user wrote.

    A text cut out of a file (an expression inside spec.yaml) keeps its `host` and, for each of its
    characters and its end, the `offsets` in the host, so that a caret points into the file.
    """

    text: str
    name: str = "<expression>"
    host: Source | None = field(default=None, repr=False, compare=False)
    offsets: tuple[int, ...] = field(default=(), repr=False, compare=False)

    def span(self, start: int = 0, end: int | None = None) -> Span:
        return Span(self, start, len(self.text) if end is None else end)

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *(found.end() for found in _LINE_END.finditer(self.text))]

    def line_and_column(self, offset: int) -> tuple[int, int]:
        """Both counted from 1."""
        from bisect import bisect_right

        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    def line(self, number: int) -> str:
        start = self._starts[number - 1]
        end = _LINE_END.search(self.text, start)
        return self.text[start : end.start() if end else len(self.text)]


@dataclass(frozen=True)
class Span:
    """The characters `start` to `end` (exclusive) of a source."""

    source: Source
    start: int
    end: int

    @property
    def text(self) -> str:
        return self.source.text[self.start : self.end]

    def origin(self) -> Span:
        """The same characters in the file that the source was cut out of."""
        if self.source.host is None:
            return self
        offsets = self.source.offsets
        start = offsets[min(self.start, len(offsets) - 1)]
        end = offsets[min(self.end - 1, len(offsets) - 1)] + 1 if self.end > self.start else start
        return Span(self.source.host, start, max(start, end)).origin()

    def to(self, other: Span) -> Span:
        return Span(self.source, self.start, other.end)

    def first_line(self) -> Span:
        """As much of it as stands on the first of its lines."""
        text = self.text.split("\n")[0].rstrip()
        return Span(self.source, self.start, self.start + len(text))


@dataclass(frozen=True)
class Diagnostic:
    """One message with its stable code, its place and its remedy."""

    code: str
    message: str
    span: Span | None = None
    help: str | None = None
    severity: Severity = "error"
    subject: str = field(default="", repr=False, compare=False)
    """The name in the message: of an argument, a slot, a key."""

    def __str__(self) -> str:
        return "\n".join(
            [f"{self.severity}[{self.code}]: {self.message}", *self._place(), *self._help()]
        )

    def _place(self) -> list[str]:
        if self.span is None:
            return []
        span = self.span.origin()
        line, column = span.source.line_and_column(span.start)
        gutter = " " * len(str(line))
        text, margin, marks = _excerpt(span.source.line(line), column - 1, span.end - span.start)
        return [
            f"{gutter} --> {escape_unprintable(span.source.name)}:{line}:{column}",
            f"{gutter} |",
            f"{line} | {text}",
            f"{gutter} | {margin}{marks}",
        ]

    def _help(self) -> list[str]:
        if self.help is None:
            return []
        gutter = " " if self.span is None else " " * len(str(self._line))
        return [f"{gutter} = help: {self.help}"]

    @property
    def _line(self) -> int:
        assert self.span is not None
        span = self.span.origin()
        return span.source.line_and_column(span.start)[0]

    def position(self) -> tuple[str, int]:
        """Sorts diagnostics by place; those without one come last."""
        if self.span is None:
            return ("￿", 0)
        span = self.span.origin()
        return (span.source.name, span.start)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form: positions counted from 1, `end_column` exclusive."""
        record: dict[str, Any] = {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
        }
        if self.span is not None:
            span = self.span.origin()
            line, column = span.source.line_and_column(span.start)
            end_line, end_column = span.source.line_and_column(span.end)
            record |= {"file": span.source.name, "line": line, "column": column}
            record |= {"end_line": end_line, "end_column": end_column}
        return record | ({"help": self.help} if self.help else {})


def escape_unprintable(text: str) -> str:
    r"""The text on one line of a terminal: what would move the cursor, or hide, is spelt out.

    >>> print(escape_unprintable('a\x1b[2J\u200fb'))
    a\x1b[2J\u200fb
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _spelt(char) for char in text)


def _spelt(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def _excerpt(line: str, column: int, length: int) -> tuple[str, str, str]:
    """A line as it is shown, the blanks up to a place in it, and the marks below that place.

    Of a long line the part around the place is shown; a character without a form of its own
    takes the place of one.
    """
    start = max(0, column - _BEFORE) if len(line) > _LONGEST else 0
    shown = line[start : start + _LONGEST]
    offset = column - start
    margin = "".join("\t" if char == "\t" else " " * _cells(char) for char in shown[:offset])
    marked = sum(map(_cells, shown[offset : offset + length]))
    before, after = "…" if start else "", "…" if start + len(shown) < len(line) else ""
    text = "".join(map(_glyph, shown))
    return f"{before}{text}{after}", " " * len(before) + margin, "^" * max(1, marked)


def _glyph(char: str) -> str:
    if char.isprintable() or char == "\t":
        return char
    return " " if char.isspace() else "\N{REPLACEMENT CHARACTER}"


def _cells(char: str) -> int:
    """How many columns of a terminal a character takes."""
    if char.isascii():
        return 1
    import unicodedata

    if not char.isprintable():
        return 1
    return 0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF")


_LONGEST, _BEFORE = 160, 60


class Failed(Exception):
    """The one exception for users' mistakes. Its text is what the command line prints."""

    def __init__(self, diagnostics: Diagnostic | Iterable[Diagnostic]):
        found = [diagnostics] if isinstance(diagnostics, Diagnostic) else diagnostics
        self.diagnostics = tuple(sorted(found, key=Diagnostic.position))
        super().__init__(self.diagnostics)

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.diagnostics))

    def with_default_span(self, span: Span | None) -> Failed:
        """The same; what has no place of its own stands here."""
        return Failed(replace(one, span=one.span or span) for one in self.diagnostics)


@contextmanager
def default_span(span: Span | None) -> Iterator[None]:
    """What fails inside stands at a place, unless it has one of its own."""
    try:
        yield
    except Failed as failed:
        raise failed.with_default_span(span) from None


@dataclass(frozen=True)
class Code:
    """A kind of diagnostic: its stable name, its message and, where one fits all, its remedy."""

    id: str
    message: str
    help: str | None = None
    severity: Severity = "error"

    def at(self, span: Span | None = None, *, help: str | None = None, **values: Any) -> Diagnostic:
        given = {name: _bounded(value) for name, value in values.items()}
        remedy = help
        if help is None and self.help is not None:
            remedy = self.help.format(**given)
        message = escape_unprintable(self.message.format(**given))
        remedy = remedy and escape_unprintable(remedy)
        about = str(values.get("name", ""))
        return Diagnostic(self.id, message, span, remedy, self.severity, about)


def _bounded(value: object) -> object:
    """What is filled into a message: a text of any length has to end some time."""
    text = value if isinstance(value, int | float) else str(value)
    return f"{text[:_WORDY]}…" if isinstance(text, str) and len(text) > _WORDY else text


_WORDY = 500


def select_errors(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    return [found for found in diagnostics if found.severity == "error"]


def deduplicate(found: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Each message once at its place, though what it is about was read for several runs or rows."""
    return list({(one.code, one.message, one.position()): one for one in found}.values())


def counted(number: int, noun: str) -> str:
    """A number with its noun, which is in the plural unless the number is 1.

    >>> counted(1, "adapter"), counted(3, "adapter")
    ('1 adapter', '3 adapters')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def either(words: Sequence[str]) -> str:
    """Alternatives in a sentence.

    >>> either(["linear", "ties", "dare"])
    'linear, ties or dare'
    """
    return " or ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def suggest(word: str, known: Iterable[str]) -> str | None:
    """`did you mean …?` for the nearest known word, or None if none is near.

    >>> suggest("lang/SW", ["lang/zh", "lang/sw"])
    'did you mean `lang/sw`?'
    """
    import difflib

    words = {one.casefold(): one for one in known}
    near = difflib.get_close_matches(word.casefold(), words, n=1, cutoff=0.6)
    return f"did you mean `{words[near[0]]}`?" if near else None


def render(diagnostics: Sequence[Diagnostic], form: str = "text") -> str:
    """`text` with carets, `json` (one array) or `github` (workflow annotations)."""
    ordered = sorted(diagnostics, key=Diagnostic.position)
    if form == "json":
        return json.dumps([found.as_dict() for found in ordered], indent=2, ensure_ascii=False)
    if form == "github":
        return "\n".join(map(_annotation, ordered))
    return "\n\n".join(map(str, ordered))


def _annotation(found: Diagnostic) -> str:
    record = found.as_dict()
    level = {"error": "error", "warning": "warning", "note": "notice"}[found.severity]
    fields = [f"{key}={_property(record[name])}" for key, name in _ANNOTATION if name in record]
    text = found.message + (f" (help: {found.help})" if found.help else "")
    return f"::{level} {','.join([*fields, f'title={found.code}'])}::{_data(text)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: object) -> str:
    return _data(str(value)).replace(":", "%3A").replace(",", "%2C")


_ANNOTATION = (("file", "file"), ("line", "line"), ("col", "column"), ("endColumn", "end_column"))
