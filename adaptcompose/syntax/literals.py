"""Numbers, ranges and quoted strings: their text and their value."""

from __future__ import annotations

import math
import re

from adaptcompose.diagnostics.codes import AC014, AC015, AC016, AC903
from adaptcompose.diagnostics.diagnostic import Diagnostic, Span

_DIGIT_LIMIT = 18
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "'": "'"}
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U(000[0-9a-fA-F]{5}|0010[0-9a-fA-F]{4})|(.))")
_POINT = re.compile(r"([+-]?)(?:(\.[0-9]+)|([0-9]+\.))([eE][+-]?[0-9]+)?")
_RANGE = re.compile(r"[+-]?[0-9]+\.\.[\w.+-]*|[0-9]*\.{2,}[0-9]+\.*")


def quote(value: str) -> str:
    """The text between double quotes, on one line; unprintable characters are escaped.

    >>> print(quote('a "b"'))
    "a \\"b\\""
    """
    return '"' + "".join(map(_escape, value)) + '"'


def _escape(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char.isprintable():
        return char
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char)
    return short or (f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}")


def unquote(text: str) -> str:
    """The value of a quoted text, in double or single quotes; the inverse of `quote`.

    >>> unquote("'it\\\\'s'")
    "it's"
    """
    return _ESCAPE.sub(_unescape, text[1:-1])


def _unescape(match: re.Match[str]) -> str:
    digits = match[1] or match[2]
    return chr(int(digits, 16)) if digits else _ESCAPES.get(match[3], match[0])


def parse_number(text: str) -> int | float:
    """The value of `5` or `0.3`.

    >>> parse_number("1e-4"), parse_number("+5")
    (0.0001, 5)
    """
    return int(text) if text.lstrip("+-").isdigit() else float(text)


def parse_range(text: str) -> tuple[int, int]:
    """The first and the last number of `0..4`."""
    first, last = text.split("..")
    return int(first), int(last)


def literal_problem(kind: str, span: Span) -> Diagnostic | None:
    """The diagnostic for a token that fits the grammar but has no valid value, or None."""
    text = span.text
    if kind in ("INT", "FLOAT", "RANGE"):
        help = "write a number below 1.8e308" if kind == "FLOAT" else None
        return AC903.at(span, text=_shorten(text), help=help) if _is_too_large(kind, text) else None
    if kind == "STRING":
        return _escape_problem(span)
    if kind == "REF":
        return _number_problem(span)
    return None


def _is_too_large(kind: str, text: str) -> bool:
    if kind == "FLOAT":
        return not math.isfinite(float(text))
    return any(len(part.lstrip("+-0")) > _DIGIT_LIMIT for part in text.split(".."))


def _escape_problem(span: Span) -> Diagnostic | None:
    for match in _ESCAPE.finditer(span.text):
        if match[3] is not None and match[3] not in _ESCAPES:
            escape = Span(span.source, span.start + match.start(), span.start + match.end())
            return AC016.at(escape, escape=match[0], char=match[3])
    return None


def _number_problem(span: Span) -> Diagnostic | None:
    if match := _POINT.fullmatch(span.text):
        return AC014.at(span, text=_shorten(span.text), remedy=_shorten(_with_digits(match)))
    if _RANGE.fullmatch(span.text):
        return AC015.at(span, text=_shorten(span.text))
    return None


def with_digits(text: str) -> str | None:
    """`.3` as `0.3` and `5.` as `5.0`; None if the text is not such a number.

    >>> with_digits(".3"), with_digits("5."), with_digits("five")
    ('0.3', '5.0', None)
    """
    match = _POINT.fullmatch(text)
    return _with_digits(match) if match else None


def _with_digits(match: re.Match[str]) -> str:
    sign, after, before, exponent = match.groups(default="")
    return f"{sign}0{after}{exponent}" if after else f"{sign}{before}0{exponent}"


def _shorten(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}…"
