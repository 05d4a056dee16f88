"""From text to tree and back.

>>> tree = parse_tree("stack(lang = sw, task=(ner)) | drop(bottom=5)  # AdapterDrop")
>>> print(tree)
stack(lang=sw, task=ner) | drop(bottom=5)
>>> tree.body.stages[1].arguments[0].name_span.text
'bottom'
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from adaptcompose.diagnostics.codes import AC901, AC902
from adaptcompose.diagnostics.diagnostic import Failed, Source, Span
from adaptcompose.syntax import literals
from adaptcompose.syntax.error_recovery import find_syntax_errors
from adaptcompose.syntax.grammar import load_parser
from adaptcompose.syntax.nodes import (
    Argument,
    Binding,
    Call,
    Exclusion,
    Flag,
    ListValue,
    Node,
    Number,
    Pipe,
    Range,
    Reference,
    Stage,
    Text,
    Tree,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lark import Token
    from lark import Tree as Raw

SIZE_LIMIT = 65_536  # characters
# later steps walk the tree recursively; this limit keeps them far from Python's own
DEPTH_LIMIT = 64


def parse_tree(source: Source | str) -> Tree:
    """The syntax tree of an expression.

    Raises `Failed` with all its syntax errors, or with AC901 or AC902 if it is too large.

    >>> parse_tree("average(a: 0.3, b: 0.7)")
    <Tree average(a:0.3, b:0.7)>
    """
    if isinstance(source, str):
        source = Source(source)
    _check_size(source)
    from lark.exceptions import UnexpectedInput

    try:
        raw = load_parser().parse(source.text)
    except UnexpectedInput:
        raise Failed(find_syntax_errors(source)) from None
    parts = list(raw.iter_subtrees())  # inner ones first
    if any(_has_invalid_token(part, source) for part in parts):
        raise Failed(find_syntax_errors(source))
    return _build(parts, source)


_BRACKET = re.compile(r"""(?P<open>[(\[])|[)\]]|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|#[^\n]*""")


def _check_size(source: Source) -> None:
    text = source.text
    if len(text) > SIZE_LIMIT:
        size = f"{len(text):,} characters"
        raise Failed(AC901.at(source.span(0, 1), size=size, limit=f"{SIZE_LIMIT:,}"))
    if text.count("(") + text.count("[") <= DEPTH_LIMIT:
        return
    for depth, span in _brackets(source):
        if depth > DEPTH_LIMIT:
            raise Failed(AC902.at(span, depth=depth, limit=DEPTH_LIMIT))


def bracket_depth(source: Source) -> int:
    """How deep the brackets of an expression are nested.

    >>> bracket_depth(Source("stack(fuse(a, b), ')(')"))
    2
    """
    return max((depth for depth, _ in _brackets(source)), default=0)


def _brackets(source: Source) -> Iterator[tuple[int, Span]]:
    """Every opening bracket with its depth, which starts at 1."""
    depth = 0
    for match in _BRACKET.finditer(source.text):
        if match["open"]:
            depth += 1
            yield depth, source.span(*match.span())
        elif match[0] in (")", "]"):
            depth = max(0, depth - 1)


def _has_invalid_token(part: Raw[Token], source: Source) -> bool:
    """Whether the grammar accepts a token of this part that the language does not."""
    tokens = [child for child in part.children if isinstance(child, str)]
    if part.data == "exclude" and tokens[0].type != "REF":
        return True
    return any(literals.literal_problem(token.type, _token_span(token, source)) for token in tokens)


def _build(parts: list[Raw[Token]], source: Source) -> Tree:
    nodes: dict[int, Any] = {}
    for part in parts:
        children = [
            _leaf(child, source) if isinstance(child, str) else nodes[id(child)]
            for child in part.children
        ]
        span = source.span(part.meta.start_pos, part.meta.end_pos)
        nodes[id(part)] = _MAKE[part.data](children, span)
    tree: Tree = nodes[id(parts[-1])]
    return tree


def _leaf(token: Token, source: Source) -> Any:
    make = _LEAVES.get(token.type)
    return make(str(token), _token_span(token, source)) if make else token


def _token_span(token: Token, source: Source) -> Span:
    start, end = token.start_pos, token.end_pos
    assert start is not None
    assert end is not None
    return source.span(start, end)


def _program(children: list[Any], span: Span) -> Tree:
    return Tree(tuple(children[:-1]), children[-1], span=span)


def _binding(children: list[Any], span: Span) -> Binding:
    _, name, value = children
    return Binding(str(name), value, span=span, name_span=_token_span(name, span.source))


def _call(children: list[Any], span: Span) -> Call:
    name, *arguments = children
    items = (item if isinstance(item, Exclusion) else _argument(item) for item in arguments)
    return Call(str(name), tuple(items), span=span, name_span=_token_span(name, span.source))


def _argument(item: Any) -> Argument:
    return item if isinstance(item, Argument) else Argument(item, span=item.span)


def _given(children: list[Any], span: Span) -> Argument:
    name = None if isinstance(children[0], Node) else children.pop(0)
    value, *weights = children
    weight = weights[0] if weights else None
    return Argument(
        value,
        None if name is None else str(name),
        weight.value if weight else None,
        span=span,
        name_span=None if name is None else _token_span(name, span.source),
        weight_span=weight.span if weight else None,
    )


_MAKE: dict[str, Callable[[list[Any], Span], Any]] = {
    "program": _program,
    "binding": _binding,
    "piped": lambda children, span: Pipe(tuple(children), span=span),
    "group": lambda children, span: children[0],
    "call": _call,
    "given": _given,
    "exclude": lambda children, span: Exclusion(children[0], span=span),
    "listing": lambda children, span: ListValue(tuple(children), span=span),
}
_LEAVES: dict[str, Callable[[str, Span], Node]] = {
    "REF": lambda text, span: Reference(text, span=span),
    "FLOAT": lambda text, span: Number(literals.parse_number(text), span=span),
    "INT": lambda text, span: Number(literals.parse_number(text), span=span),
    "RANGE": lambda text, span: Range(*literals.parse_range(text), span=span),
    "STRING": lambda text, span: Text(literals.unquote(text), span=span),
    "BOOLEAN": lambda text, span: Flag(text == "true", span=span),
}


def append_stages(tree: Tree, more: Tree) -> Tree:
    """A composition followed by the stages of another: `compose` and `pipe` of a spec."""
    stages = more.body.stages if isinstance(more.body, Pipe) else (more.body,)
    body = Pipe((tree.body, *stages), span=more.body.span)
    return Tree((*tree.bindings, *more.bindings), body, span=tree.span)


def argument_span(call: Span, name: str) -> Span:
    """The span of an argument's value in the text of a call; the whole call if it is not there."""
    try:
        body = parse_tree(Source(call.text)).body
    except Failed:
        return call
    for argument in body.arguments if isinstance(body, Call) else ():
        if isinstance(argument, Argument) and argument.name == name:
            inner = argument.value.span
            return Span(call.source, call.start + inner.start, call.start + inner.end)
    return call


def format_tree(tree: Tree, width: int = 88) -> str:
    """Canonical text on one line, or with one line per stage where that is wider than `width`.

    >>> print(format_tree(parse_tree("stack(sw) | fuse(glue/*)"), width=20))
    stack(sw)
      | fuse(glue/*)
    """
    line = str(tree)
    if len(line) <= width:
        return line
    parts = [*tree.bindings, tree.body]
    return "\n".join(_folded(part, width) for part in parts)


def _folded(part: Binding | Stage | Pipe, width: int) -> str:
    line = str(part)
    value, end = (part.value, ";") if isinstance(part, Binding) else (part, "")
    if len(line) <= width or not isinstance(value, Pipe):
        return line
    head = f"let {part.name} = " if isinstance(part, Binding) else ""
    stages = [f"({stage})" if isinstance(stage, Pipe) else str(stage) for stage in value.stages]
    return head + "\n  | ".join(stages) + end


# YAML may read a word without any mark of the language as a truth value, a number or a date
_MARK = re.compile(r"[(|/@]")
_WORD = re.compile(r"(?!(?:y|n|yes|no|on|off|true|false|null)\Z)[^\W\d]", re.IGNORECASE)
_BEGINNING = re.compile(r"[^\W_]|[_./(]|~/")


def is_yaml_safe(text: str) -> bool:
    """Whether YAML reads canonical text without quotes as the same text.

    >>> [is_yaml_safe(text) for text in ("stack(lang=sw, task=ner) | fuse(glue/*)", "no", "*/x")]
    [True, False, False]
    """
    return (
        text.isprintable()
        and _BEGINNING.match(text) is not None
        and (_MARK.search(text) is not None or _WORD.match(text) is not None)
        and ": " not in text
        and " #" not in text
        and not text.endswith((":", " "))
    )
