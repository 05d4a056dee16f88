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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from adaptcompose.diagnostics.style import PLAIN, Style

Severity = Literal["error", "warning", "note"]
Cause = Literal["input", "hub", "internal"]
"""Whose fault it is: the user's input, a hub that does not answer or refuses, or adaptcompose."""
OutputForm = Literal["text", "json", "github"]
_LINE_END = re.compile(r"\r\n?|\n")


@dataclass(frozen=True)
class Source:
    """A text that a user wrote.

    If the text was cut out of a file (an expression inside spec.yaml), `host` is that file.
    `offsets` then has one entry per character of the text, and one for its end: the offset of that
    character in the host. With them, a caret points into the file.
    """

    text: str
    name: str = "<expression>"
    host: Source | None = field(default=None, repr=False, compare=False)
    offsets: tuple[int, ...] = field(default=(), repr=False, compare=False)

    def span(self, start: int = 0, end: int | None = None) -> Span:
        return Span(self, start, len(self.text) if end is None else end)

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *(line_end.end() for line_end in _LINE_END.finditer(self.text))]

    def line_and_column(self, offset: int) -> tuple[int, int]:
        """The line and the column of a character, both counted from 1."""
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
        """The same characters in the outermost file that the source was cut out of."""
        if self.source.host is None:
            return self
        offsets = self.source.offsets
        start = offsets[min(self.start, len(offsets) - 1)]
        end = offsets[min(self.end - 1, len(offsets) - 1)] + 1 if self.end > self.start else start
        return Span(self.source.host, start, max(start, end)).origin()

    def to(self, other: Span) -> Span:
        return Span(self.source, self.start, other.end)

    def first_line(self) -> Span:
        """The part of the span on its first line, without trailing blanks."""
        text = self.text.split("\n")[0].rstrip()
        return Span(self.source, self.start, self.start + len(text))


@dataclass(frozen=True)
class Diagnostic:
    """One message with its stable code, its position and its remedy.

    `values` are the arguments of the message by name, as the code that found the problem passed
    them to `Code.at`. Use them to tell diagnostics of one code apart; the wording of a message may
    change at any time. They take no part in comparisons and in the JSON form.
    """

    code: str
    message: str
    span: Span | None = None
    help: str | None = None
    severity: Severity = "error"
    values: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def subject(self) -> str:
        """The name in the message, of an argument, a slot or a key; empty if it has none."""
        return str(self.values.get("name", ""))

    def __str__(self) -> str:
        return self.render()

    def render(self, style: Style = PLAIN) -> str:
        """The text for a terminal: title, excerpt with carets, and remedy."""
        title = style.paint(f"{self.severity}[{self.code}]", self.severity)
        lines = [f"{title}: {self.message}"]
        gutter = " "
        if self.span is not None:
            span = self.span.origin()
            number, column = span.source.line_and_column(span.start)
            gutter = " " * len(str(number))
            line = span.source.line(number)
            excerpt, margin, carets = _excerpt(line, column - 1, span.end - span.start)
            lines += [
                f"{gutter} --> {escape_unprintable(span.source.name)}:{number}:{column}",
                f"{gutter} |",
                f"{number} | {excerpt}",
                f"{gutter} | {margin}{style.paint(carets, 'caret')}",
            ]
        if self.help is not None:
            lines.append(f"{gutter} = {style.paint('help', 'help')}: {self.help}")
        return "\n".join(lines)

    def position(self) -> tuple[str, int]:
        """The key to sort diagnostics by: file and offset. Those without a span come last."""
        if self.span is None:
            return ("\uffff", 0)
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
    r"""Text that is safe to print: characters that move the cursor or are invisible are escaped.

    >>> print(escape_unprintable('a\x1b[2J\u200fb'))
    a\x1b[2J\u200fb
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def _excerpt(line: str, column: int, length: int) -> tuple[str, str, str]:
    """A line as a terminal shows it, the blanks below it up to `column`, and carets for `length`.

    Of a long line only the part around the column is shown. An unprintable character is replaced
    by one that takes one column.
    """
    start = max(0, column - _CONTEXT_BEFORE) if len(line) > _EXCERPT_LIMIT else 0
    window = line[start : start + _EXCERPT_LIMIT]
    offset = column - start
    margin = "".join("\t" if char == "\t" else " " * _cells(char) for char in window[:offset])
    width = sum(map(_cells, window[offset : offset + length]))
    before, after = "…" if start else "", "…" if start + len(window) < len(line) else ""
    text = "".join(map(_glyph, window))
    return f"{before}{text}{after}", " " * len(before) + margin, "^" * max(1, width)


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


_EXCERPT_LIMIT, _CONTEXT_BEFORE = 160, 60  # characters


class Failed(Exception):
    """The exception for mistakes of users. It carries one or more diagnostics."""

    def __init__(self, diagnostics: Diagnostic | Iterable[Diagnostic]):
        several = [diagnostics] if isinstance(diagnostics, Diagnostic) else diagnostics
        self.diagnostics = tuple(sorted(several, key=Diagnostic.position))
        super().__init__(self.diagnostics)

    def __str__(self) -> str:
        return render(self.diagnostics)

    def with_default_span(self, span: Span | None) -> Failed:
        """The same diagnostics; those without a span get this one."""
        return Failed(replace(each, span=each.span or span) for each in self.diagnostics)


@contextmanager
def default_span(span: Span | None) -> Iterator[None]:
    """Give `span` to every diagnostic that is raised in the block and has none of its own."""
    try:
        yield
    except Failed as failed:
        raise failed.with_default_span(span) from None


@dataclass(frozen=True)
class Code:
    """A kind of diagnostic: its stable name, its message and, if one fits all cases, its remedy.

    Message and remedy are format strings over the values that `at` gets. `cause` says whose fault
    it is; the command line chooses its exit code by it.
    """

    id: str
    message: str
    help: str | None = None
    severity: Severity = "error"
    cause: Cause = "input"

    def at(self, span: Span | None = None, *, help: str | None = None, **values: Any) -> Diagnostic:
        """A diagnostic of this kind; `help` replaces the remedy of the code."""
        texts = {name: _shorten(value) for name, value in values.items()}
        if help is None and self.help is not None:
            help = self.help.format(**texts)
        message = escape_unprintable(self.message.format(**texts))
        help = help and escape_unprintable(help)
        return Diagnostic(self.id, message, span, help, self.severity, values)


def _shorten(value: object) -> object:
    """A value as a message shows it: a number, or text of bounded length."""
    if isinstance(value, int | float):
        return value
    text = str(value)
    return f"{text[:_VALUE_LIMIT]}…" if len(text) > _VALUE_LIMIT else text


_VALUE_LIMIT = 500  # characters


def select_errors(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """The diagnostics of severity `error`."""
    return [diagnostic for diagnostic in diagnostics if diagnostic.severity == "error"]


def deduplicate(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """One diagnostic per code, message and position.

    Several runs of a sweep, or several rows of a file, can find the same mistake.
    """
    unique = {(each.code, each.message, each.position()): each for each in diagnostics}
    return list(unique.values())


def counted(number: int, noun: str) -> str:
    """A number with its noun, which is in the plural unless the number is 1.

    >>> counted(1, "adapter"), counted(3, "adapter")
    ('1 adapter', '3 adapters')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def either(words: Sequence[str]) -> str:
    """A list of alternatives, as in a sentence.

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

    words = {candidate.casefold(): candidate for candidate in known}
    nearest = difflib.get_close_matches(word.casefold(), words, n=1, cutoff=0.6)
    return f"did you mean `{words[nearest[0]]}`?" if nearest else None


def render(
    diagnostics: Iterable[Diagnostic], form: OutputForm = "text", style: Style = PLAIN
) -> str:
    """Diagnostics in the order of their positions.

    `text` is for a terminal, and the only form with a style; `json` is one array, and `github` one
    workflow annotation per line.
    """
    ordered = sorted(diagnostics, key=Diagnostic.position)
    if form == "json":
        records = [diagnostic.as_dict() for diagnostic in ordered]
        return json.dumps(records, indent=2, ensure_ascii=False)
    if form == "github":
        return "\n".join(map(_annotation, ordered))
    return "\n\n".join(diagnostic.render(style) for diagnostic in ordered)


def _annotation(diagnostic: Diagnostic) -> str:
    record = diagnostic.as_dict()
    level = "notice" if diagnostic.severity == "note" else diagnostic.severity
    fields = [f"{key}={_property(record[name])}" for key, name in _ANNOTATION if name in record]
    remedy = f" (help: {diagnostic.help})" if diagnostic.help else ""
    title = f"title={diagnostic.code}"
    return f"::{level} {','.join([*fields, title])}::{_data(diagnostic.message + remedy)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: object) -> str:
    return _data(str(value)).replace(":", "%3A").replace(",", "%2C")


_ANNOTATION = (("file", "file"), ("line", "line"), ("col", "column"), ("endColumn", "end_column"))
