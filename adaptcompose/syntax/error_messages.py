"""The diagnostics for a token that the grammar does not allow, by what comes before it."""

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
    """What the parser expects next."""

    START = auto()  # the start of an expression, an argument, an item
    VALUE = auto()  # after `name=`
    STAGE = auto()  # after `|`
    WEIGHT = auto()  # after `:`
    REFERENCE = auto()  # after `!`
    LET_NAME = auto()  # after `let`
    EQUALS = auto()  # after a name that gets a value
    CALL = auto()  # after a name that is called
    COMPLETE_STAGE = auto()  # after a complete stage
    COMPLETE_ARGUMENT = auto()  # after a complete argument, where no `|` can follow


WANTING = set(Phase) - {Phase.COMPLETE_STAGE, Phase.COMPLETE_ARGUMENT}


@dataclass(frozen=True)
class Bracket:
    """An open bracket; its kind is `call`, `group` or `list`."""

    kind: str
    token: Token
    closing: str

    def unclosed(self) -> Diagnostic:
        return codes.AC004.at(self.token.span, bracket=self.token.text, closing=self.closing)


def unexpected(token: Token, expected: str, help: str | None = None) -> Diagnostic:
    """AC013, `expected …, found …`, at a token."""
    return codes.AC013.at(token.span, expected=expected, got=token.shown, help=help)


def missing(phase: Phase, last: Token | None, token: Token, expected: str) -> Diagnostic:
    """The diagnostic for a mark, or the end, in place of a value; `last` is the token before it."""
    if phase is Phase.STAGE and last:
        return codes.AC010.at(last.span, mark="|")
    if phase is Phase.WEIGHT and last:
        return codes.AC007.at(last.span)
    if phase is Phase.START and token.kind == "|":
        return codes.AC009.at(token.span, problem="the composition starts with `|`")
    if phase is Phase.START and token.kind == END and last and last.kind == ";":
        return codes.AC010.at(last.span, mark=";")
    anchor = last if token.kind == END and last else token
    help = "remove it" if token.kind in (",", ";") and phase is Phase.START else None
    return codes.AC013.at(anchor.span, expected=expected, got=token.shown, help=help)


def bad_weight(token: Token) -> Diagnostic | None:
    """The diagnostic for a value after `:`, or None if it is a valid weight."""
    if token.kind in ("INT", "FLOAT"):
        return literals.literal_problem(token.kind, token.span)
    if token.kind == UNCLOSED:
        return None
    remedy = literals.with_digits(token.text)
    return codes.AC007.at(token.span, help=f"write `{remedy}`" if remedy else None)


_LATIN = dict(zip("асеорхуіѕјԁһкмтнвѵοαυνιρκ", "aceopxyisjdhkmthbvoauvipk", strict=True))


def look_alike(token: Token) -> Diagnostic | None:
    """AC003 for a letter of another script that looks like a Latin one, or None."""
    for index, char in enumerate(token.text):
        latin = _LATIN.get(char.lower()) or unicodedata.normalize("NFKC", char)
        if not char.isascii() and latin.isascii():
            start = token.span.start + index
            span = Span(token.span.source, start, start + 1)
            name = unicodedata.name(char, f"U+{ord(char):04X}")
            return codes.AC003.at(
                span, char=char, help=f"replace this {name} with the Latin `{latin}`"
            )
    return None


def bad_name(token: Token) -> Diagnostic:
    """The diagnostic for a token that is not a valid argument name."""
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", token.text):
        return codes.AC006.at(token.span, name=shorten(token.text), lower=lower_case(token.text))
    expected = "an argument name made of a-z, 0-9 and _"
    name = lower_case(token.text)
    is_similar = len(name) == len(token.text)
    help = f"write `{name}`" if is_similar else "write a name as in `lang=sw`"
    return unexpected(token, expected, help)


def lower_case(text: str) -> str:
    """The nearest valid argument name.

    >>> lower_case("Lang-X")
    'lang_x'
    """
    name = re.sub(r"[^a-z0-9_]", "_", text.lower()).lstrip("_0123456789")
    return shorten(name) or "x"
