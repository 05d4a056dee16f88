"""grammar/compose.lark as a parser."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from adaptcompose.resources import resource_folder

if TYPE_CHECKING:
    from lark import Lark


@cache
def load_parser() -> Lark:
    """The parser of grammar/compose.lark, made once in a process."""
    from lark import Lark, lexer

    # Where interegular is installed lark holds every terminal against every other, which takes
    # longer than everything else here; a test does that once for the grammar.
    thorough, lexer.has_interegular = lexer.has_interegular, False
    try:
        return Lark(
            (resource_folder("grammar") / "compose.lark").read_text(encoding="utf-8"),
            parser="lalr",
            lexer="contextual",
            start="program",
            propagate_positions=True,
            maybe_placeholders=False,
        )
    finally:
        lexer.has_interegular = thorough
