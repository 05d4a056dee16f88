"""The scanner: it cuts any text into tokens, even if the text is not a valid expression.

The tokens are those of grammar/compose.lark, and a few for what fits none of them: an unterminated
string, a web address, misplaced braces, repetitions of one unknown character.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from adaptcompose.diagnostics.codes import AC001, AC002, AC003, AC004, AC013
from adaptcompose.diagnostics.diagnostic import Diagnostic, Source, Span
from adaptcompose.syntax.grammar import load_parser

if TYPE_CHECKING:
    from collections.abc import Iterator

UNCLOSED, ADDRESS, BRACES, UNKNOWN = "UNCLOSED", "ADDRESS", "BRACES", "UNKNOWN"
END = "END"

_INSIDE = r"""[^{}()\[\];="'\n]*"""  # what a pair of braces can contain, apart from other braces


class Token(NamedTuple):
    """A token; its kind is the name of its terminal, or a mark itself: `(`, `|`, `=`."""

    kind: str
    span: Span

    @property
    def text(self) -> str:
        return self.span.text

    @property
    def shown(self) -> str:
        return "the end" if self.kind == END else f"`{shorten(self.text)}`"


def shorten(text: str) -> str:
    """The text for a message: at most 40 characters, on one line."""
    line = "".join(char if char.isprintable() else " " for char in text)
    return line if len(line) <= 40 else f"{line[:37]}…"


def scan(source: Source) -> Iterator[Token]:
    """All tokens of a text, without blanks and comments.

    >>> [token.kind for token in scan(Source("drop(bottom=5) $ 'a"))]
    ['NAME', '(', 'KEY', '=', 'INT', ')', 'UNKNOWN', 'UNCLOSED']
    """
    pattern, kinds = _terminals()
    for match in pattern.finditer(source.text):
        assert match.lastgroup is not None
        kind = kinds.get(match.lastgroup, match.lastgroup)
        if kind not in ("BLANK", "COMMENT"):
            yield Token(kind, source.span(*match.span()))


@cache
def _terminals() -> tuple[re.Pattern[str], dict[str, str]]:
    """A pattern with one group per terminal, and the mark of each terminal that is one."""
    terminals = sorted(load_parser().terminals, key=lambda terminal: -terminal.priority)
    parts = [r"(?P<ADDRESS>(?:https?://|[A-Za-z]:\\)[^\s,)\]|]*)"]
    parts += [f"(?P<{each.name}>{each.pattern.to_regexp()})" for each in terminals]
    parts += [
        r"""(?P<UNCLOSED>["'][^\n]*)""",
        rf"(?P<BRACES>/?\{{(?:{_INSIDE}(?:\{{{_INSIDE}\}}{_INSIDE})*\}}|[\w.,*?-]*))",
    ]
    parts += [r"(?P<UNKNOWN>(?P<char>(?s:.))(?P=char)*)"]
    marks = {each.name: each.pattern.value for each in terminals if _is_mark(each.pattern)}
    return re.compile("|".join(parts)), marks


def _is_mark(pattern: object) -> bool:
    return getattr(pattern, "type", None) == "str"


def token_problem(token: Token, before: Token | None) -> Diagnostic | None:
    """The diagnostic for a token that is not in the grammar, or None if it is."""
    if token.kind == UNCLOSED:
        text = token.text.rstrip()
        span = Span(token.span.source, token.span.start, token.span.start + len(text))
        return AC001.at(span, quote=text[0])
    if token.kind == ADDRESS:
        return _address(token)
    if token.kind == BRACES:
        return _braces(token.span)
    if token.kind == UNKNOWN:
        return _unknown(token, before)
    return None


def _address(token: Token) -> Diagnostic:
    if ":\\" in token.text:
        help = 'put it in quotes, with `/`: `"{}"`'.format(token.text.replace("\\", "/"))
        return AC013.at(token.span, expected="a reference", got=token.shown, help=help)
    path = re.sub(r"https?://", "", token.text).split("/")
    repo = "/".join(path[1:3]) if path[0] == "huggingface.co" and len(path) > 2 else "user/repo"
    help = f"write `hf://{repo}`"
    return AC013.at(token.span, expected="a reference", got=token.shown, help=help)


_HELP = {
    "“”„‟«»‘’‚": "use straight quotes",
    ">&+→": "separate stages with `|`",
    "$": "use `${…}` only in an item of spec.yaml that has `each:`",
    "/": "remove the empty part, or the `/` at the end",
    "\\": "write `/` instead, or put the path in quotes",
    "~": "write `~/name` for a folder in your home directory",
    "@": "write one revision, after the repository: `user/repo@main`",
    "}": "write alternatives as in `glue/{mnli,qqp}`",
}


def _unknown(token: Token, before: Token | None) -> Diagnostic:
    span = token.span
    char = token.text[0]
    follows_ref = before is not None and before.kind == "REF" and before.span.end == span.start
    if char == "@" and follows_ref and before is not None and "@" not in before.text:
        return AC002.at(span)
    help = next((remedy for chars, remedy in _HELP.items() if char in chars), None)
    return AC003.at(span, char=_shown(token.text), help=help)


def _braces(span: Span) -> Diagnostic:
    start = span.start + span.text.index("{")
    mark = Span(span.source, start, start + 1)
    if not span.text.endswith("}"):
        return AC004.at(mark, bracket="{", closing="}")
    inside = span.source.text[start + 1 : span.end - 1]
    names = [name.strip() for name in re.split("[{},]", inside) if name.strip()]
    are_names = len(names) > 1 and all(re.fullmatch(r"[\w.*?-]+", name) for name in names)
    excess = "nested braces" if "{" in inside else "spaces"
    help = f"write it without {excess}: `{{{','.join(names)}}}`" if are_names else None
    return AC003.at(mark, char="{", help=help or "write alternatives as in `glue/{mnli,qqp}`")


def _shown(text: str) -> str:
    char = text[0]
    if char.isprintable() and not unicodedata.combining(char):
        return shorten(text)
    return f"U+{ord(char):04X}"
