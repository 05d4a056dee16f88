"""The texts of numbers, ranges and quoted strings, and what they stand for."""

from __future__ import annotations

import math
import re

from adaptcompose.diagnostics.codes import AC014, AC015, AC016, AC903
from adaptcompose.diagnostics.diagnostic import Diagnostic, Span

_DIGITS = 18
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "'": "'"}
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U(000[0-9a-fA-F]{5}|0010[0-9a-fA-F]{4})|(.))")
_POINT = re.compile(r"([+-]?)(?:(\.[0-9]+)|([0-9]+\.))([eE][+-]?[0-9]+)?")
_RANGE = re.compile(r"[+-]?[0-9]+\.\.[\w.+-]*|[0-9]*\.{2,}[0-9]+\.*")


def quote(value: str) -> str:
    """The text between double quotes, on one line, with only printable characters.

    >>> print(quote('a "b"'))
    "a \\"b\\""
    """
    return '"' + "".join(map(_escaped, value)) + '"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char.isprintable():
        return char
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char)
    return short or (f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}")


def unquote(text: str) -> str:
    """What a quoted text says; the inverse of `quote`, for single quotes too.

    >>> unquote("'it\\\\'s'")
    "it's"
    """
    return _ESCAPE.sub(_meaning, text[1:-1])


def _meaning(found: re.Match[str]) -> str:
    digits = found[1] or found[2]
    return chr(int(digits, 16)) if digits else _ESCAPES.get(found[3], found[0])


def parse_number(text: str) -> int | float:
    """`5` or `0.3`.

    >>> parse_number("1e-4"), parse_number("+5")
    (0.0001, 5)
    """
    return int(text) if text.lstrip("+-").isdigit() else float(text)


def parse_range(text: str) -> tuple[int, int]:
    """The two ends of `0..4`."""
    first, last = text.split("..")
    return int(first), int(last)


def literal_problem(kind: str, span: Span) -> Diagnostic | None:
    """What is wrong with a token that has the right form, if anything is."""
    text = span.text
    if kind in ("INT", "FLOAT", "RANGE"):
        help = "write a number below 1.8e308" if kind == "FLOAT" else None
        return AC903.at(span, text=_short(text), help=help) if _too_large(kind, text) else None
    if kind == "STRING":
        return _wrong_escape(span)
    if kind == "REF":
        return _almost_number(span)
    return None


def _too_large(kind: str, text: str) -> bool:
    if kind == "FLOAT":
        return not math.isfinite(float(text))
    return any(len(part.lstrip("+-0")) > _DIGITS for part in text.split(".."))


def _wrong_escape(span: Span) -> Diagnostic | None:
    for found in _ESCAPE.finditer(span.text):
        if found[3] is not None and found[3] not in _ESCAPES:
            start = span.start + found.start()
            place = Span(span.source, start, span.start + found.end())
            return AC016.at(place, escape=found[0], char=found[3])
    return None


def _almost_number(span: Span) -> Diagnostic | None:
    if found := _POINT.fullmatch(span.text):
        return AC014.at(span, text=_short(span.text), remedy=_short(_with_digits(found)))
    if _RANGE.fullmatch(span.text):
        return AC015.at(span, text=_short(span.text))
    return None


def with_digits(text: str) -> str | None:
    """`.3` as `0.3` and `5.` as `5.0`; None for what is no such number.

    >>> with_digits(".3"), with_digits("5."), with_digits("five")
    ('0.3', '5.0', None)
    """
    found = _POINT.fullmatch(text)
    return _with_digits(found) if found else None


def _with_digits(found: re.Match[str]) -> str:
    sign, after, before, exponent = found.groups(default="")
    return f"{sign}0{after}{exponent}" if after else f"{sign}{before}0{exponent}"


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}…"
