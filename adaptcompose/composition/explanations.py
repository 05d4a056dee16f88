"""What stands behind a code: its meaning, an example that causes it and one that does not.

>>> print(explanation("AC005"))
AC005: missing comma between arguments
<BLANKLINE>
Arguments of a call and the items of a list are separated by commas; a blank separates
nothing.
<BLANKLINE>
not so
    stack(lang=sw task=ner)
<BLANKLINE>
but so
    stack(lang=sw, task=ner)
<BLANKLINE>
remedy
    put `,` before `WORD`
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from adaptcompose.diagnostics.codes import CODES
from adaptcompose.diagnostics.diagnostic import Code
from adaptcompose.storage.yaml_source import load

_WIDTH = 92
_FIELD = re.compile(r"\{\{|\}\}|\{(\w+)\}")


@dataclass(frozen=True)
class Example:
    """A text of some kind; `when` is the state of the world that it takes."""

    kind: Literal["expression", "spec", "shell", "python"]
    text: str
    backbone: str | None = None
    when: str | None = None

    def lines(self) -> Iterator[str]:
        if self.kind == "shell":
            yield f"$ {self.text}"
        else:
            yield from self.text.strip("\n").split("\n")

    @property
    def remark(self) -> str:
        """Where the example stands and what it takes, as the end of a heading."""
        places = {"spec": "in spec.yaml", "python": "in Python"}
        place = f"on {self.backbone}" if self.backbone else places.get(self.kind, "")
        return f"{f', {place}' if place else ''}{f', when {self.when}' if self.when else ''}"


@dataclass(frozen=True)
class Explanation:
    """The page of a code."""

    code: Code
    about: str
    bad: Example
    good: Example

    @property
    def message(self) -> str:
        return plain(self.code.message)

    @property
    def remedy(self) -> str | None:
        return plain(self.code.help) if self.code.help else None

    def examples(self) -> Iterator[tuple[str, Example]]:
        """Both examples with their headings."""
        yield f"not so{self.bad.remark}", self.bad
        yield f"but so{self.good.remark}", self.good

    def __str__(self) -> str:
        kind = "" if self.code.severity == "error" else f" ({self.code.severity})"
        parts = [f"{self.code.id}{kind}: {self.message}", textwrap.fill(self.about, _WIDTH)]
        parts += [_indented(heading, example.lines()) for heading, example in self.examples()]
        parts += [_indented("remedy", [self.remedy])] if self.remedy else []
        return "\n\n".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        record: dict[str, Any] = {"code": self.code.id, "severity": self.code.severity}
        record |= {"message": self.message, "about": self.about, "help": self.remedy}
        for name, example in (("bad", self.bad), ("good", self.good)):
            found = {"kind": example.kind, "text": example.text}
            more = {"backbone": example.backbone, "when": example.when}
            record[name] = found | {key: value for key, value in more.items() if value}
        return record


def plain(template: str) -> str:
    """A message with what is filled in as a word in capitals.

    >>> plain("`{operator}` takes no weights: {{a}}")
    '`OPERATOR` takes no weights: {a}'
    """
    return _FIELD.sub(lambda found: found[1].upper() if found[1] else found[0][0], template)


def _indented(heading: str, lines: Iterator[str] | list[str]) -> str:
    return "\n".join([textwrap.fill(heading, _WIDTH), *(f"    {line}".rstrip() for line in lines)])


def explanation(code: str) -> Explanation:
    """The page of a code that has one."""
    return explanations()[code]


@cache
def explanations() -> Mapping[str, Explanation]:
    """The pages of all codes, sorted."""
    path = Path(__file__).with_suffix(".yaml")
    entries = load(path.read_text("utf-8"), path.name)
    return {code: _explanation(CODES[code], entries[code]) for code in sorted(entries)}


def _explanation(code: Code, entry: Mapping[str, Any]) -> Explanation:
    return Explanation(code, entry["about"], _example(entry["bad"]), _example(entry["good"]))


def _example(entry: str | Mapping[str, str]) -> Example:
    if isinstance(entry, str):
        return Example("expression", entry)
    for kind in ("expression", "spec", "shell", "python"):
        if kind in entry:
            return Example(kind, entry[kind], entry.get("backbone"), entry.get("when"))
    raise KeyError(f"an example of no kind: {dict(entry)}")
