"""Styles: how the parts of a diagnostic look on a terminal.

>>> PLAIN.paint("error[AC101]", "error")
'error[AC101]'
>>> ANSI.paint("error[AC101]", "error")
'\\x1b[1;31merror[AC101]\\x1b[0m'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

StyledPart = Literal["error", "warning", "note", "caret", "help", "hint"]
"""A title by its severity, the carets below an excerpt, the word `help`, a suggested command."""


@dataclass(frozen=True)
class Style:
    """The colour of each part, as parameters of the ANSI sequence SGR (ECMA-48, section 8.3.117).

    A part without a colour stays as it is.
    """

    colours: Mapping[StyledPart, str] = field(default_factory=dict, hash=False)

    def paint(self, text: str, part: StyledPart) -> str:
        colour = self.colours.get(part)
        return text if colour is None else f"\x1b[{colour}m{text}\x1b[0m"


PLAIN = Style()
ANSI = Style(
    {
        "error": "1;31",
        "warning": "1;33",
        "note": "1;36",
        "caret": "1;31",
        "help": "1;32",
        "hint": "2",
    }
)
