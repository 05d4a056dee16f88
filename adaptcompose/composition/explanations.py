"""Explanations of diagnostic codes, each with an example that causes it and one that does not.

>>> print(find_explanation("AC005"))
AC005: missing comma between arguments
<BLANKLINE>
Separate the arguments of a call and the items of a list by commas. Spaces alone do not
separate them.
<BLANKLINE>
Causes the error
    stack(lang=sw task=ner)
<BLANKLINE>
Does not cause it
    stack(lang=sw, task=ner)
<BLANKLINE>
Help
    add `,` before `WORD`
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
from adaptcompose.storage.yaml_source import load_yaml

_WIDTH = 92
_FIELD = re.compile(r"\{\{|\}\}|\{(\w+)\}")


@dataclass(frozen=True)
class Example:
    """An input that causes a diagnostic or does not; `when` is the state of the world it needs."""

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
    def heading_suffix(self) -> str:
        """Where to use the example and what it requires, as the end of a heading."""
        places = {"spec": "in spec.yaml", "python": "in Python"}
        place = f"on {self.backbone}" if self.backbone else places.get(self.kind, "")
        parts = filter(None, [place, self.when and f"when {self.when}"])
        return f" ({said})" if (said := ", ".join(parts)) else ""


@dataclass(frozen=True)
class Explanation:
    """The explanation of one code."""

    code: Code
    about: str
    bad: Example
    good: Example

    @property
    def message(self) -> str:
        return show_placeholders(self.code.message)

    @property
    def remedy(self) -> str | None:
        return show_placeholders(self.code.help) if self.code.help else None

    def examples(self) -> Iterator[tuple[str, Example]]:
        """Yield both examples with their headings."""
        kind = self.code.severity
        yield f"Causes the {kind}{self.bad.heading_suffix}", self.bad
        yield f"Does not cause it{self.good.heading_suffix}", self.good

    def __str__(self) -> str:
        kind = "" if self.code.severity == "error" else f" ({self.code.severity})"
        parts = [f"{self.code.id}{kind}: {self.message}", textwrap.fill(self.about, _WIDTH)]
        parts += [_indent_section(heading, example.lines()) for heading, example in self.examples()]
        parts += [_indent_section("Help", [self.remedy])] if self.remedy else []
        return "\n\n".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """The JSON representation."""
        record: dict[str, Any] = {"code": self.code.id, "severity": self.code.severity}
        record |= {"message": self.message, "about": self.about, "help": self.remedy}
        for name, example in (("bad", self.bad), ("good", self.good)):
            found = {"kind": example.kind, "text": example.text}
            more = {"backbone": example.backbone, "when": example.when}
            record[name] = found | {key: value for key, value in more.items() if value}
        return record


def show_placeholders(template: str) -> str:
    """A message template with its placeholders as words in capitals.

    >>> show_placeholders("`{operator}` takes no weights: {{a}}")
    '`OPERATOR` takes no weights: {a}'
    """
    return _FIELD.sub(lambda found: found[1].upper() if found[1] else found[0][0], template)


def _indent_section(heading: str, lines: Iterator[str] | list[str]) -> str:
    return "\n".join([textwrap.fill(heading, _WIDTH), *(f"    {line}".rstrip() for line in lines)])


def find_explanation(code: str) -> Explanation:
    """The explanation of a code; KeyError for an unknown code."""
    return load_explanations()[code]


@cache
def load_explanations() -> Mapping[str, Explanation]:
    """The explanations of all codes, sorted by code."""
    path = Path(__file__).with_suffix(".yaml")
    entries = load_yaml(path.read_text("utf-8"), path.name)
    return {code: _read_explanation(CODES[code], entries[code]) for code in sorted(entries)}


def _read_explanation(code: Code, entry: Mapping[str, Any]) -> Explanation:
    return Explanation(
        code, entry["about"], _read_example(entry["bad"]), _read_example(entry["good"])
    )


def _read_example(entry: str | Mapping[str, str]) -> Example:
    if isinstance(entry, str):
        return Example("expression", entry)
    for kind in ("expression", "spec", "shell", "python"):
        if kind in entry:
            return Example(kind, entry[kind], entry.get("backbone"), entry.get("when"))
    raise KeyError(f"an example of no kind: {dict(entry)}")
