"""All syntax errors of a text that is not a valid expression, with positions and remedies.

The parser of the grammar stops at the first token that does not fit. The parser of this module goes
on: it follows the same grammar by hand, reports what is missing and continues as if it were there.
A test checks that both accept the same texts.

>>> from adaptcompose.diagnostics.diagnostic import Source
>>> for found in find_syntax_errors(Source("stack(Lang=sw task=ner) | | drop(")):
...     print(found.code, found.message)
AC006 argument name `Lang` must be in lower case
AC005 missing comma between arguments
AC010 expected a block or modifier after `|`
AC004 `(` is never closed
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptcompose.diagnostics import codes
from adaptcompose.syntax import error_messages, literals
from adaptcompose.syntax.error_messages import CLOSING, ITEM, PART, WANTING, Bracket, Phase
from adaptcompose.syntax.scanner import (
    ADDRESS,
    BRACES,
    END,
    UNCLOSED,
    UNKNOWN,
    Token,
    scan,
    shorten,
    token_problem,
)

if TYPE_CHECKING:
    from adaptcompose.diagnostics.diagnostic import Diagnostic, Source

ERROR_LIMIT = 20
LET = "write a definition as in `let x = stack(sw);`"
VALUES = {"REF", "INT", "FLOAT", "RANGE", "STRING", "BOOLEAN", ADDRESS, UNCLOSED}


def find_syntax_errors(source: Source) -> list[Diagnostic]:
    """The syntax errors of a text, at most ERROR_LIMIT; none if it is a valid expression."""
    return _RecoveringParser(source).read()


class _RecoveringParser:
    """One pass over the tokens. `phase` is what may come next, `brackets` are those still open."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.tokens = [*scan(source), Token(END, source.span(len(source.text)))]
        self.diagnostics: list[Diagnostic] = []
        self.brackets: list[Bracket] = []
        self.phase = Phase.START
        self.value_phase = Phase.START  # the phase before the last value
        self.index = 0
        self.before: Token | None = None
        self.binding = False  # inside a `let`
        self.muted = False  # after an error, until the next token: more would only repeat it

    def read(self) -> list[Diagnostic]:
        for index, token in enumerate(self.tokens):
            if len(self.diagnostics) >= ERROR_LIMIT:
                break
            self.index = index
            if problem := token_problem(token, self.before):
                self.diagnostics.append(problem)
            if token.kind in (UNKNOWN, BRACES):
                self.muted = True
                continue
            self._read_token(token)
            self.before = token
            self.muted = False
        return self.diagnostics[:ERROR_LIMIT]

    def _report(self, diagnostic: Diagnostic | None) -> None:
        if diagnostic and not self.muted:
            self.diagnostics.append(diagnostic)

    @property
    def _inside(self) -> str:
        return self.brackets[-1].kind if self.brackets else "top"

    @property
    def _next(self) -> Token:
        return self.tokens[min(self.index + 1, len(self.tokens) - 1)]

    @property
    def _part(self) -> str:
        return ITEM if self._inside == "list" else PART

    def _read_token(self, token: Token) -> None:
        if token.kind == END:
            self._read_end(token)
        elif token.kind in (")", "]"):
            self._read_closing(token)
        elif self.phase in WANTING:
            self._read_start(token)
        else:
            self._read_after_value(token)

    def _read_start(self, token: Token) -> None:
        if self.phase is Phase.LET_NAME:
            self._read_let_name(token)
        elif token.kind in VALUES:
            self._read_value(token)
        elif token.kind == "NAME":
            self._report_misplaced(token)
            self.phase = Phase.CALL
        elif token.kind in CLOSING:
            self._read_opening(token)
        elif token.kind == "KEY":
            self._read_key(token)
        elif token.kind == "!":
            if self._inside != "call" or self.phase is not Phase.START:
                self._report_unexpected(
                    token, self._part, "use `!` inside a call, as in `fuse(glue/*, !glue/rte)`"
                )
            self.phase = Phase.REFERENCE
        elif token.kind == "LET":
            self._read_let(token)
        elif token.kind == "=" and self.phase is Phase.EQUALS:
            self.phase = Phase.VALUE
        else:
            self._report_missing(token)
            self._read_mark(token)

    def _read_value(self, token: Token) -> None:
        self.value_phase = self.phase
        if self.phase is Phase.WEIGHT:
            self._report(error_messages.bad_weight(token))
        elif self.phase is Phase.REFERENCE and token.kind not in ("REF", ADDRESS):
            self._report_unexpected(token, "a reference after `!`")
        else:
            self._report(literals.literal_problem(token.kind, token.span))
        ends_argument = self.phase in (Phase.WEIGHT, Phase.REFERENCE)
        self.phase = Phase.COMPLETE_ARGUMENT if ends_argument else Phase.COMPLETE_STAGE

    def _report_misplaced(self, token: Token) -> None:
        if self.phase is Phase.WEIGHT:
            self._report(codes.AC007.at(token.span))
        elif self.phase is Phase.REFERENCE:
            self._report_unexpected(token, "a reference after `!`")
        elif self._inside == "list":
            self._report_unexpected(token, ITEM)

    def _read_opening(self, token: Token) -> None:
        if token.kind == "(":
            if self.phase is Phase.CALL:
                self.brackets.append(Bracket("call", token, ")"))
            else:
                self._report_misplaced(token)
                self.brackets.append(Bracket("group", token, ")"))
        else:
            is_argument = self.phase in (Phase.START, Phase.VALUE) and self._inside == "call"
            if not is_argument:
                self._report_unexpected(
                    token, self._part, "use a list only as the value of an argument"
                )
            self.brackets.append(Bracket("list", token, "]"))
        self.phase = Phase.START

    def _read_key(self, token: Token) -> None:
        if self._inside != "call":
            name = token.text
            help = f"put arguments into a call: `stack({name}=…)`"
            if name == "let":
                help = LET
                self.binding = self._semicolon_follows()
            elif self._inside == "top" and self.phase is Phase.START and not self.binding:
                help = f"to define a name, write `let {name} = …;`"
                self.binding = self._semicolon_follows()
            self._report_unexpected(token, self._part, help)
        elif self.phase is not Phase.START:
            self._report_unexpected(token, self._expected_here())
        self.phase = Phase.EQUALS

    def _read_let(self, token: Token) -> None:
        if self.brackets or self.binding or self.phase is not Phase.START:
            help = "move every `let` to the beginning"
            self._report_unexpected(token, PART, help)
        if not self.brackets:
            self.phase = Phase.LET_NAME
            self.binding = True

    def _read_let_name(self, token: Token) -> None:
        if token.kind == "KEY":
            self.phase = Phase.EQUALS
            return
        if token.kind == "=":
            self._report_unexpected(token, "a name after `let`", LET)
            self.phase = Phase.VALUE
            return
        if self._next.kind == "=" and token.kind in VALUES:
            help = f"write `let {error_messages.lower_case(token.text)} = …;`"
            self._report_unexpected(token, "a lower-case name after `let`", help)
            self.phase = Phase.EQUALS
            return
        self._report_unexpected(token, "a name and `=` after `let`", LET)
        self.phase = Phase.VALUE
        if self._next.kind == END:
            self._end_binding()
        elif token.kind not in ("REF", UNCLOSED):
            self.muted = True
            self._read_start(token)

    def _expected_here(self) -> str:
        if self.phase is Phase.START:
            return {"call": "an argument", "list": "an item"}.get(self._inside, PART)
        has_name = self.index > 1 and self.tokens[self.index - 1].kind == "="
        name = self.tokens[self.index - 2].text if has_name else ""
        return {
            Phase.VALUE: f"a value after `{shorten(name)}=`" if name else "a value",
            Phase.REFERENCE: "a reference after `!`",
            Phase.LET_NAME: "a name after `let`",
        }.get(self.phase, PART)

    def _report_missing(self, token: Token) -> None:
        self._report(error_messages.missing(self.phase, self.before, token, self._expected_here()))

    def _read_mark(self, token: Token) -> None:
        """Go on after a mark as if the missing value before it were there."""
        if token.kind == ";":
            self._end_binding()
        elif token.kind == "," and self._inside in ("call", "list"):
            self.phase = Phase.START
        elif token.kind == ":" and self._inside == "call":
            self.phase = Phase.WEIGHT
        elif token.kind == "=":
            self.phase = Phase.VALUE
        else:
            self.phase = Phase.STAGE

    def _read_after_value(self, token: Token) -> None:
        inside = self._inside
        if token.kind == "|":
            self._read_pipe(token)
        elif token.kind == "," and inside in ("call", "list"):
            self.phase = Phase.START
        elif token.kind == ":":
            self._read_colon(token)
        elif token.kind == ";":
            self._read_semicolon(token)
        elif token.kind == "=":
            self._read_equals(token)
        elif token.kind in CLOSING and self._is_called():
            self._read_wrong_call(token)
        else:
            self._read_without_separator(token)

    def _read_pipe(self, token: Token) -> None:
        if self._inside == "list":
            self._report_unexpected(token, "`,` or `]`")
        elif self.phase is Phase.COMPLETE_ARGUMENT:
            weighted = self.before is not None and self.before.kind in ("INT", "FLOAT")
            help = "put a pipe that has a weight in brackets: `(a | b):0.3`" if weighted else None
            self._report_unexpected(token, "`,` or `)`", help)
        self.phase = Phase.STAGE

    def _read_colon(self, token: Token) -> None:
        last = self.before
        if self._inside == "call" and (
            self.phase is Phase.COMPLETE_STAGE or (last and last.kind == "]")
        ):
            self.phase = Phase.WEIGHT
            return
        help = "use weights inside a call: `average(a:0.3, b:0.7)`"
        if self._inside == "call":
            help = "give an argument one weight, at its end"
        self._report_unexpected(token, self._expected_after_value(), help)
        self.phase = Phase.STAGE

    def _read_semicolon(self, token: Token) -> None:
        if not self.binding:
            self._report_unexpected(
                token, self._expected_after_value(), "use `;` only after `let x = …`"
            )
        elif self.brackets:
            self.diagnostics += [bracket.unclosed() for bracket in self.brackets]
        if self.brackets and not self.binding:
            self.phase = Phase.START
        else:
            self._end_binding()

    def _end_binding(self) -> None:
        stray = not self.binding or self.before is None or self.before.kind == "LET"
        self.brackets.clear()
        self.binding = False
        self.phase = Phase.COMPLETE_STAGE if stray and self._next.kind == END else Phase.START

    def _read_equals(self, token: Token) -> None:
        last = self.before
        if last is None or last.kind not in VALUES or self.value_phase is not Phase.START:
            self._report_unexpected(token, self._expected_after_value())
        elif self._inside != "call":
            self._report_unexpected(
                token, self._expected_after_value(), "put arguments into a call: `stack(lang=…)`"
            )
        else:
            self._report(error_messages.bad_name(last))
        self.phase = Phase.VALUE

    def _is_called(self) -> bool:
        last = self.before
        return last is not None and last.kind == "REF" and "/" not in last.text

    def _read_wrong_call(self, token: Token) -> None:
        assert self.before is not None
        span = self.before.span.to(token.span)
        remedy = f"{error_messages.lower_case(self.before.text)}(…)"
        self._report(error_messages.look_alike(self.before) or codes.AC012.at(span, remedy=remedy))
        self.brackets.append(Bracket("call", token, CLOSING[token.kind]))
        self.phase = Phase.START

    def _read_without_separator(self, token: Token) -> None:
        if self._inside in ("call", "list") and token.kind not in (",", "LET"):
            word = token.text + (self._next.text if token.kind == "!" else "")
            self._report(codes.AC005.at(token.span, word=shorten(word)))
            self.phase = Phase.START
        elif self._inside == "top" and not self.binding:
            self._report(codes.AC011.at(token.span))
            self.phase = Phase.STAGE
        else:
            ends = self.binding and not self.brackets and not self._semicolon_follows()
            help = f"put `;` before {token.shown}" if ends else "separate stages with `|`"
            if token.kind == ",":
                help = "put several adapters into a call: `stack(a, b)`"
            self._report_unexpected(token, self._expected_after_value(), help)
            if ends:
                self._end_binding()
            else:
                self.phase = Phase.STAGE
        if token.kind != ",":
            self.muted = True
            self._read_start(token)

    def _expected_after_value(self) -> str:
        if self._inside == "top":
            return "`|` or `;`" if self.binding else "`|` or the end of the expression"
        bracket = self.brackets[-1]
        before = "`|`" if bracket.kind == "group" else "`,`"
        return f"{before} or `{bracket.closing}`"

    def _semicolon_follows(self) -> bool:
        for token in self.tokens[self.index + 1 :]:
            if token.kind in (";", "LET"):
                return token.kind == ";"
        return False

    def _read_closing(self, token: Token) -> None:
        self._check_complete(token)
        closings = [bracket.closing for bracket in self.brackets]
        if token.kind not in closings:
            self._report_unmatched(token)
            return
        while self.brackets[-1].closing != token.kind:
            self.diagnostics.append(self.brackets.pop().unclosed())
        kind = self.brackets.pop().kind
        self.phase = Phase.COMPLETE_ARGUMENT if kind == "list" else Phase.COMPLETE_STAGE

    def _check_complete(self, token: Token) -> None:
        if self.phase not in WANTING:
            return
        if self.phase is not Phase.START or self._inside == "group":
            self._report_missing(token)
            self.muted = True
            self.phase = Phase.COMPLETE_STAGE

    def _report_unmatched(self, token: Token) -> None:
        expected = self.brackets[-1].closing if self.brackets else None
        is_mixed_up = expected is not None and not self._all_closed_later()
        help = f"write `{expected}`" if is_mixed_up else None
        self._report(codes.AC008.at(token.span, bracket=token.kind, help=help))
        if is_mixed_up:
            kind = self.brackets.pop().kind
            self.phase = Phase.COMPLETE_ARGUMENT if kind == "list" else Phase.COMPLETE_STAGE

    def _all_closed_later(self) -> bool:
        rest = [token.kind for token in self.tokens[self.index + 1 :]]
        closed = rest.count(")") + rest.count("]")
        opened = rest.count("(") + rest.count("[")
        return closed - opened >= len(self.brackets)

    def _read_end(self, token: Token) -> None:
        if len(self.tokens) == 1:
            self._report(codes.AC009.at(self.source.span(0, 0), problem="the expression is empty"))
            return
        if any(each.kind == UNCLOSED for each in self.tokens):
            # the unterminated string probably contains what is missing
            return
        after_semicolon = self.before is not None and self.before.kind == ";"
        may_end = self.phase is Phase.START and (self.brackets or not after_semicolon)
        if self.phase in WANTING and not may_end:
            self._report_missing(token)
        elif self.binding and not self.brackets:
            assert self.before is not None
            end = self.before.span.end
            span = self.source.span(end, end)
            self._report(codes.AC013.at(span, expected="`;` and a composition", got=token.shown))
        self.diagnostics += [bracket.unclosed() for bracket in self.brackets]

    def _report_unexpected(self, token: Token, expected: str, help: str | None = None) -> None:
        self._report(error_messages.unexpected(token, expected, help))
