"""What is said about a token that does not fit, given what came before it."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Span
from adaptcompose.syntax import literals
from adaptcompose.syntax.scanner import END, UNCLOSED, Token, shorten

if TYPE_CHECKING:
    from adaptcompose.diagnostics.diagnostic import Diagnostic

PART = "an adapter or a block"
ITEM = "a name or a number in the list"
CLOSING = {"(": ")", "[": "]"}


class Phase(Enum):
    """What the reader has just seen, and so what may come."""

    START = auto()  # the start of an expression, an argument, an item
    VALUE = auto()  # behind `name=`
    STAGE = auto()  # behind `|`
    WEIGHT = auto()  # behind `:`
    REFERENCE = auto()  # behind `!`
    LET_NAME = auto()  # behind `let`
    EQUALS = auto()  # behind a name that is given a value
    CALL = auto()  # behind a name that is called
    COMPLETE_STAGE = auto()  # a stage is complete
    COMPLETE_ARGUMENT = auto()  # an argument is complete, and no `|` can follow


WANTING = set(Phase) - {Phase.COMPLETE_STAGE, Phase.COMPLETE_ARGUMENT}


@dataclass(frozen=True)
class Bracket:
    """An open bracket: of a `call`, a `group` or a `list`."""

    kind: str
    token: Token
    closing: str

    def unclosed(self) -> Diagnostic:
        return codes.AC004.at(self.token.span, bracket=self.token.text, closing=self.closing)


def unexpected(token: Token, expected: str, help: str | None = None) -> Diagnostic:
    """`expected …, found …` at the token."""
    return codes.AC013.at(token.span, expected=expected, got=token.shown, help=help)


def missing(phase: Phase, last: Token | None, token: Token, expected: str) -> Diagnostic:
    """A mark, or the end, stands where a value should be; `last` is the token before it."""
    if phase is Phase.STAGE and last:
        return codes.AC010.at(last.span, mark="|")
    if phase is Phase.WEIGHT and last:
        return codes.AC007.at(last.span)
    if phase is Phase.START and token.kind == "|":
        return codes.AC009.at(token.span, problem="the composition starts with `|`")
    if phase is Phase.START and token.kind == END and last and last.kind == ";":
        return codes.AC010.at(last.span, mark=";")
    place = last if token.kind == END and last else token
    help = "remove it" if token.kind in (",", ";") and phase is Phase.START else None
    return codes.AC013.at(place.span, expected=expected, got=token.shown, help=help)


def bad_weight(token: Token) -> Diagnostic | None:
    """What is wrong with a value behind `:`."""
    if token.kind in ("INT", "FLOAT"):
        return literals.literal_problem(token.kind, token.span)
    if token.kind == UNCLOSED:
        return None
    remedy = literals.with_digits(token.text)
    return codes.AC007.at(token.span, help=f"write `{remedy}`" if remedy else None)


_LATIN = dict(zip("асеорхуіѕјԁһкмтнвѵοαυνιρκ", "aceopxyisjdhkmthbvoauvipk", strict=True))


def look_alike(token: Token) -> Diagnostic | None:
    """A letter of another script in a word that is called, and the Latin one that is meant."""
    for place, char in enumerate(token.text):
        latin = _LATIN.get(char.lower()) or unicodedata.normalize("NFKC", char)
        if not char.isascii() and latin.isascii():
            start = token.span.start + place
            span = Span(token.span.source, start, start + 1)
            name = unicodedata.name(char, f"U+{ord(char):04X}")
            return codes.AC003.at(
                span, char=char, help=f"replace this {name} with the Latin `{latin}`"
            )
    return None


def bad_name(token: Token) -> Diagnostic:
    """What is wrong with the name of an argument."""
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", token.text):
        return codes.AC006.at(token.span, name=shorten(token.text), lower=lower_case(token.text))
    expected = "an argument name made of a-z, 0-9 and _"
    name = lower_case(token.text)
    alike = len(name) == len(token.text)
    return unexpected(
        token, expected, f"write `{name}`" if alike else "write a name as in `lang=sw`"
    )


def lower_case(text: str) -> str:
    """The text as a name of the language.

    >>> lower_case("Lang-X")
    'lang_x'
    """
    name = re.sub(r"[^a-z0-9_]", "_", text.lower()).lstrip("_0123456789")
    return shorten(name) or "x"
