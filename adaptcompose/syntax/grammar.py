"""The grammar, grammar/compose.lark, as a parser."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from adaptcompose.resources import resource_folder

if TYPE_CHECKING:
    from lark import Lark


@cache
def load_parser() -> Lark:
    """The LALR parser of grammar/compose.lark, built once per process."""
    from lark import Lark, lexer

    # With interegular installed, lark compares every terminal with every other one, which takes
    # longer than everything else here. A test does that once for the grammar.
    has_interegular, lexer.has_interegular = lexer.has_interegular, False
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
        lexer.has_interegular = has_interegular
