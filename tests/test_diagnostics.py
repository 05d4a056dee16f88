"""Diagnostics: their text on a terminal, the values behind it, and the exit code they lead to."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from adaptcompose.cli.exit_codes import exit_code_for
from adaptcompose.diagnostics.codes import AC201, AC412, AC419, AC999, CODES
from adaptcompose.diagnostics.diagnostic import Source, render
from adaptcompose.diagnostics.style import ANSI


def test_colours_mark_title_carets_and_help_and_nothing_in_texts() -> None:
    source = Source("stack(a)\t| drop(botom=5)")
    help = "write `^^^`\n = help: error[AC101]: x"
    diagnostic = AC201.at(source.span(16, 21), operator="drop", name="botom", help=help)
    lines = diagnostic.render(ANSI).split("\n")
    assert lines[0] == "\x1b[1;31merror[AC201]\x1b[0m: `drop` has no argument `botom`"
    assert lines[3:5] == [
        "1 | stack(a)\t| drop(botom=5)",
        "  |         \t       \x1b[1;31m^^^^^\x1b[0m",
    ]
    assert lines[5].startswith("  = \x1b[1;32mhelp\x1b[0m: write `^^^`")
    assert diagnostic.render(ANSI).count("\x1b[0m") == 3
    assert re.sub(r"\x1b\[[\d;]*m", "", diagnostic.render(ANSI)) == str(diagnostic)
    note = replace(diagnostic, severity="note", span=None)
    assert note.render(ANSI).startswith("\x1b[1;36mnote[AC201]\x1b[0m: ")
    assert render([note], style=ANSI) == note.render(ANSI)


def test_exit_codes_follow_the_cause_of_a_code() -> None:
    wrong, unreachable = AC201.at(operator="drop", name="x", known=""), AC419.at(hub="h", why="w")
    assert exit_code_for([]) == 0
    assert exit_code_for([wrong]) == 1
    assert exit_code_for([AC999.at(why="w")]) == 2
    assert exit_code_for([wrong, unreachable]) == 3
    assert exit_code_for([replace(unreachable, severity="warning")]) == 0
    hub = {code.id for code in CODES.values() if code.cause == "hub"}
    assert hub == {"AC404", "AC405", "AC419", "AC430", "AC431", "AC433"}


def test_a_diagnostic_keeps_its_values_out_of_comparisons_and_json() -> None:
    diagnostic = AC412.at(path=Path("x" * 1_000), root=".")
    assert diagnostic.values == {"path": Path("x" * 1_000), "root": "."}
    assert replace(diagnostic, values={}) == diagnostic
    assert "values" not in diagnostic.as_dict()
    assert diagnostic.subject == ""
    assert AC201.at(operator="drop", name="x", known="").subject == "x"
