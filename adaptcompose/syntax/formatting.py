"""Formatting with comments preserved, as `adaptcompose fmt` does it.

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
    """A stage of a pipe, with the comments above it and at the end of its line.

    `head` and `end` are the text around it: `let x = ` or `  | ` before it, `;` after it.
    """

    text: str
    span: Span
    head: str = ""
    end: str = ""
    leading_comments: list[str] = field(default_factory=list)
    trailing_comments: list[str] = field(default_factory=list)


def format_expression(text: str | Source, width: int = WIDTH) -> str:
    """The canonical text: one line if it fits into `width`, otherwise one line per stage.

    A comment stays with the stage that it is next to. Raises `Failed` if the syntax is wrong.
    """
    source = Source(text) if isinstance(text, str) else text
    tree = parse_tree(source)
    comments = [match for match in _COMMENT.finditer(source.text) if match["comment"]]
    if not comments:
        return format_tree(tree, width)
    parts = [list(_stages(part)) for part in (*tree.bindings, tree.body)]
    stages = [stage for part in parts for stage in part]
    unattached = [_attach_comment(match, source.text, stages) for match in comments]
    tail = filter(None, unattached)
    return "\n".join([*(line for part in parts for line in _lines(part, width)), *tail])


def as_yaml_scalar(text: str) -> str:
    """Canonical text as a YAML scalar: quoted if YAML would read it as something else.

    >>> as_yaml_scalar("stack(lang=sw)"), as_yaml_scalar("no"), as_yaml_scalar('"./a b"')
    ('stack(lang=sw)', '"no"', '\\'"./a b"\\'')
    """
    if is_yaml_safe(text):
        return text
    escaped = '"' in text or "\\" in text
    return single_quoted(text) if escaped and text.isprintable() else quote(text)


def single_quoted(text: str) -> str:
    """One line of text as a single-quoted YAML scalar."""
    return "'{}'".format(text.replace("'", "''"))


def _stages(part: Node) -> Iterator[_Stage]:
    value, head, end = part, "", ""
    if isinstance(part, Binding):
        value, head, end = part.value, f"let {part.name} = ", ";"
    stages = value.stages if isinstance(value, Pipe) else (value,)
    for number, stage in enumerate(stages):
        needs_brackets = isinstance(stage, Pipe) and len(stages) > 1
        text = f"({stage})" if needs_brackets else str(stage)
        first, last = number == 0, number == len(stages) - 1
        around = part.span.to(stage.span) if first else stage.span
        span = around.to(part.span) if last else around
        yield _Stage(text, span, head if first else "  | ", end if last else "")


def _attach_comment(match: re.Match[str], text: str, stages: list[_Stage]) -> str | None:
    """Add a comment to the stage it is next to; return it instead if it follows the last stage."""
    comment = match["comment"].rstrip()
    earlier = [stage for stage in stages if stage.span.start < match.start()]
    line = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
    if line.strip(" \t|") and earlier:
        earlier[-1].trailing_comments.append(comment)
    elif earlier and earlier[-1].span.end > match.start():
        earlier[-1].leading_comments.append(comment)
    elif len(earlier) < len(stages):
        stages[len(earlier)].leading_comments.append(comment)
    else:
        return comment
    return None


def _lines(part: list[_Stage], width: int) -> Iterator[str]:
    """A part on one line if it fits and has no comment between its stages."""
    for stage in part:
        if len(stage.trailing_comments) > 1:
            stage.leading_comments += stage.trailing_comments
            stage.trailing_comments = []
    has_inner_comment = any(stage.leading_comments for stage in part[1:]) or any(
        stage.trailing_comments for stage in part[:-1]
    )
    line = part[0].head + " | ".join(stage.text for stage in part) + part[-1].end
    if not has_inner_comment and len(line) <= width:
        yield from part[0].leading_comments
        yield "  ".join([line, *part[-1].trailing_comments])
        return
    for number, stage in enumerate(part):
        indent = "  " if number else ""
        yield from (f"{indent}{comment}" for comment in stage.leading_comments)
        yield "  ".join([f"{stage.head}{stage.text}{stage.end}", *stage.trailing_comments])
