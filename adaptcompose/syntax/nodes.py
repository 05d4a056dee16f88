"""The syntax tree of an expression: immutable nodes.

`str(node)` is its canonical text, one line that parses to an equal node. Two nodes are equal if
they have the same content; spans do not count.

>>> Pipe((Call("stack", (Argument(Reference("sw")),)), Reference("ner")))
<Pipe stack(sw) | ner>
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from adaptcompose.diagnostics.diagnostic import Source, Span
from adaptcompose.syntax.literals import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_SPAN = Span(Source("", "<made by a program>"), 0, 0)


@dataclass(frozen=True, eq=False, repr=False)
class Node:
    """A part of an expression. Printing, comparing and hashing a deep tree needs no recursion."""

    span: Span = field(default=NO_SPAN, compare=False, kw_only=True)

    def __str__(self) -> str:
        pending: list[Node | str] = [self]
        pieces: list[str] = []
        while pending:
            piece = pending.pop()
            if isinstance(piece, str):
                pieces.append(piece)
            else:
                pending.extend(reversed(piece._pieces()))
        return "".join(pieces)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Node):
            return NotImplemented
        return self is other or _flat(self) == _flat(other)

    def __hash__(self) -> int:
        return hash(tuple(_flat(self)))

    def _pieces(self) -> list[Node | str]:
        raise NotImplementedError


def _flat(node: Node) -> list[str]:
    """Types, lengths and values of a node and everything inside it, in a fixed order."""
    pending: list[Any] = [node]
    entries: list[str] = []
    while pending:
        value = pending.pop()
        if isinstance(value, Node):
            entries.append(type(value).__name__)
            pending.extend(getattr(value, name) for name in _content_fields(value))
        elif isinstance(value, tuple):
            entries.append(f"{len(value)} parts")
            pending.extend(value)
        else:
            # repr keeps 1, 1.0, True and "1" apart, as their canonical texts do
            entries.append(repr(value))
    return entries


def _content_fields(node: Any) -> tuple[str, ...]:
    """The names of the positional fields, which are all but the spans."""
    names: tuple[str, ...] = node.__match_args__
    return names


@dataclass(frozen=True, eq=False, repr=False)
class Reference(Node):
    """The name of an adapter, or of several: `ner`, `lang/sw`, `user/repo@main`, `glue/*`."""

    text: str

    def _pieces(self) -> list[Node | str]:
        return [self.text]


@dataclass(frozen=True, eq=False, repr=False)
class Number(Node):
    """`5`, `0.3` or `1e-05`."""

    value: int | float

    def _pieces(self) -> list[Node | str]:
        return [repr(self.value)]


@dataclass(frozen=True, eq=False, repr=False)
class Range(Node):
    """The whole numbers from `first` to `last`, both included: `0..4` has five."""

    first: int
    last: int

    def _pieces(self) -> list[Node | str]:
        return [f"{self.first}..{self.last}"]


@dataclass(frozen=True, eq=False, repr=False)
class Text(Node):
    """A quoted string, such as the path of a folder: `"my adapters/ner"`."""

    value: str

    def _pieces(self) -> list[Node | str]:
        return [quote(self.value)]


@dataclass(frozen=True, eq=False, repr=False)
class Flag(Node):
    """`true` or `false`."""

    value: bool

    def _pieces(self) -> list[Node | str]:
        return ["true" if self.value else "false"]


@dataclass(frozen=True, eq=False, repr=False)
class ListValue(Node):
    """Several values of one argument: `[0, 3..5, 11]`."""

    items: tuple[Reference | Number | Range | Text | Flag, ...]

    def _pieces(self) -> list[Node | str]:
        return ["[", *_joined(self.items, ", "), "]"]


@dataclass(frozen=True, eq=False, repr=False)
class Call(Node):
    """An operator or a method with its arguments: `drop(bottom=5)`."""

    name: str
    arguments: tuple[Argument | Exclusion, ...] = ()
    name_span: Span = field(default=NO_SPAN, compare=False, kw_only=True)

    def _pieces(self) -> list[Node | str]:
        return [self.name, "(", *_joined(self.arguments, ", "), ")"]


@dataclass(frozen=True, eq=False, repr=False)
class Argument(Node):
    """An argument with an optional name and an optional weight: `lang=sw`, `a:0.3`."""

    value: Stage | ListValue | Pipe
    name: str | None = None
    weight: int | float | None = None
    name_span: Span | None = field(default=None, compare=False, kw_only=True)
    weight_span: Span | None = field(default=None, compare=False, kw_only=True)

    def _pieces(self) -> list[Node | str]:
        name: list[Node | str] = [] if self.name is None else [self.name, "="]
        if self.weight is None:
            return [*name, self.value]
        # without brackets, `a | b:0.3` would give the weight to b alone
        return [*name, *_grouped(self.value), f":{self.weight!r}"]


@dataclass(frozen=True, eq=False, repr=False)
class Exclusion(Node):
    """A reference that is removed from the globs before it: `!glue/wnli`."""

    reference: Reference

    def _pieces(self) -> list[Node | str]:
        return ["!", self.reference]


@dataclass(frozen=True, eq=False, repr=False)
class Pipe(Node):
    """Two or more stages, left to right. A pipe inside a pipe limits the scope of modifiers."""

    stages: tuple[Stage | Pipe, ...]

    def _pieces(self) -> list[Node | str]:
        pieces: list[Node | str] = []
        for stage in self.stages:
            pieces += [" | ", *_grouped(stage)] if pieces else _grouped(stage)
        return pieces


@dataclass(frozen=True, eq=False, repr=False)
class Binding(Node):
    """A name for a composition: `let g = fuse(a, b);`."""

    name: str
    value: Stage | Pipe
    name_span: Span = field(default=NO_SPAN, compare=False, kw_only=True)

    def _pieces(self) -> list[Node | str]:
        return [f"let {self.name} = ", self.value, ";"]


@dataclass(frozen=True, eq=False, repr=False)
class Tree(Node):
    """A whole expression: its bindings, then the composition itself."""

    bindings: tuple[Binding, ...]
    body: Stage | Pipe

    def _pieces(self) -> list[Node | str]:
        return [*_joined((*self.bindings, self.body), " ")]


Stage = Reference | Number | Range | Text | Flag | Call


def walk(node: Node) -> Iterator[Node]:
    """The node and all nodes inside it, in the order of the text."""
    pending: list[Any] = [node]
    while pending:
        value = pending.pop()
        if isinstance(value, Node):
            yield value
            pending.extend(getattr(value, name) for name in reversed(_content_fields(value)))
        elif isinstance(value, tuple):
            pending.extend(reversed(value))


def _joined(nodes: tuple[Node, ...], separator: str) -> list[Node | str]:
    return [piece for node in nodes for piece in (separator, node)][1:]


def _grouped(node: Node) -> list[Node | str]:
    return ["(", node, ")"] if isinstance(node, Pipe) else [node]
