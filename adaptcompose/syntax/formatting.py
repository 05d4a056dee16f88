"""Canonical text for people, comments kept: what `adaptcompose fmt` writes.

>>> print(format_expression("stack( lang=sw,task=ner )# zero-shot\\n|drop(bottom=5)"))
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
from adaptcompose.syntax.parser import format_tree, is_yaml_safe, parse_tree

WIDTH = 88
_COMMENT = re.compile(r"""(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|(?P<comment>#[^\n]*)""")


@dataclass
class _Stage:
    """One line: a stage of a pipe, with what is said above it and behind it."""

    text: str
    span: Span
    head: str = ""
    end: str = ""
    leading_comments: list[str] = field(default_factory=list)
    trailing_comments: list[str] = field(default_factory=list)


def format_expression(text: str | Source, width: int = WIDTH) -> str:
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


def as_yaml_scalar(text: str) -> str:
    """Canonical text as YAML takes it: quoted where another reader would see something else.

    >>> as_yaml_scalar("stack(lang=sw)"), as_yaml_scalar("no"), as_yaml_scalar('"./a b"')
    ('stack(lang=sw)', '"no"', '\\'"./a b"\\'')
    """
    if is_yaml_safe(text):
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
        begun[-1].trailing_comments.append(comment)
    elif begun and begun[-1].span.end > found.start():
        begun[-1].leading_comments.append(comment)
    elif len(begun) < len(stages):
        stages[len(begun)].leading_comments.append(comment)
    else:
        return comment
    return None


def _lines(part: list[_Stage], width: int) -> Iterator[str]:
    """A part on one line if it fits and no comment stands between its stages."""
    for stage in part:
        if len(stage.trailing_comments) > 1:
            stage.leading_comments, stage.trailing_comments = (
                [*stage.leading_comments, *stage.trailing_comments],
                [],
            )
    inner = any(one.leading_comments for one in part[1:]) or any(
        one.trailing_comments for one in part[:-1]
    )
    line = part[0].head + " | ".join(one.text for one in part) + part[-1].end
    if not inner and len(line) <= width:
        yield from part[0].leading_comments
        yield "  ".join([line, *part[-1].trailing_comments])
        return
    for number, stage in enumerate(part):
        indent = "  " if number else ""
        yield from (f"{indent}{comment}" for comment in stage.leading_comments)
        yield "  ".join([f"{stage.head}{stage.text}{stage.end}", *stage.trailing_comments])
