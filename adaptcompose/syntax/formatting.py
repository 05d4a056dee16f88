"""Canonical text for people, comments kept: what `adaptcompose fmt` writes.

>>> print(formatted("stack( lang=sw,task=ner )# zero-shot\\n|drop(bottom=5)"))
stack(lang=sw, task=ner)  # zero-shot
  | drop(bottom=5)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from adaptcompose.diagnostics.diagnostic import Source, Span
from adaptcompose.syntax.literals import quote
from adaptcompose.syntax.nodes import Binding, Node, Pipe
from adaptcompose.syntax.parser import format_tree, parse_tree, yaml_safe

WIDTH = 88
_COMMENT = re.compile(r"""(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|(?P<comment>#[^\n]*)""")


@dataclass
class _Stage:
    """One line: a stage of a pipe, with what is said above it and behind it."""

    text: str
    span: Span
    head: str = ""
    end: str = ""
    above: list[str] = field(default_factory=list)
    behind: list[str] = field(default_factory=list)


def formatted(text: str | Source, width: int = WIDTH) -> str:
    """One line if it fits, else one stage a line; a comment stays with the stage it stands at."""
    source = Source(text) if isinstance(text, str) else text
    tree = parse_tree(source)
    found = [one for one in _COMMENT.finditer(source.text) if one["comment"]]
    if not found:
        return format_tree(tree, width)
    parts = [list(_stages(part)) for part in (*tree.bindings, tree.body)]
    stages = [stage for part in parts for stage in part]
    tail = [comment for one in found if (comment := _placed(one, source.text, stages))]
    return "\n".join([*(line for part in parts for line in _lines(part, width)), *tail])


def as_scalar(text: str) -> str:
    """Canonical text as YAML takes it: quoted where another reader would see something else.

    >>> as_scalar("stack(lang=sw)"), as_scalar("no"), as_scalar('"./a b"')
    ('stack(lang=sw)', '"no"', '\\'"./a b"\\'')
    """
    if yaml_safe(text):
        return text
    escaped = '"' in text or "\\" in text
    return single_quoted(text) if escaped and text.isprintable() else quote(text)


def single_quoted(text: str) -> str:
    """One line between single quotes, as YAML doubles them inside."""
    return "'{}'".format(text.replace("'", "''"))


def _stages(part: Node) -> Iterator[_Stage]:
    value, head, end = part, "", ""
    if isinstance(part, Binding):
        value, head, end = part.value, f"let {part.name} = ", ";"
    stages = value.stages if isinstance(value, Pipe) else (value,)
    for number, stage in enumerate(stages):
        grouped = isinstance(stage, Pipe) and len(stages) > 1
        text = f"({stage})" if grouped else str(stage)
        first, last = number == 0, number == len(stages) - 1
        around = part.span.to(stage.span) if first else stage.span
        span = around.to(part.span) if last else around
        yield _Stage(text, span, head if first else "  | ", end if last else "")


def _placed(found: re.Match[str], text: str, stages: list[_Stage]) -> str | None:
    """Give a comment to its stage; back comes one that stands behind them all."""
    comment = found["comment"].rstrip()
    begun = [stage for stage in stages if stage.span.start < found.start()]
    line = text[text.rfind("\n", 0, found.start()) + 1 : found.start()]
    if line.strip(" \t|") and begun:
        begun[-1].behind.append(comment)
    elif begun and begun[-1].span.end > found.start():
        begun[-1].above.append(comment)
    elif len(begun) < len(stages):
        stages[len(begun)].above.append(comment)
    else:
        return comment
    return None


def _lines(part: list[_Stage], width: int) -> Iterator[str]:
    """A part on one line if it fits and no comment stands between its stages."""
    for stage in part:
        if len(stage.behind) > 1:
            stage.above, stage.behind = [*stage.above, *stage.behind], []
    inner = any(one.above for one in part[1:]) or any(one.behind for one in part[:-1])
    line = part[0].head + " | ".join(one.text for one in part) + part[-1].end
    if not inner and len(line) <= width:
        yield from part[0].above
        yield "  ".join([line, *part[-1].behind])
        return
    for number, stage in enumerate(part):
        indent = "  " if number else ""
        yield from (f"{indent}{comment}" for comment in stage.above)
        yield "  ".join([f"{stage.head}{stage.text}{stage.end}", *stage.behind])
