"""The base classes of operators, and the registry of all operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, TypeVar

from adaptcompose.backbones.layout import Facts
from adaptcompose.composition.graph import Block, Empty, Head, Slot, with_blocks
from adaptcompose.diagnostics.diagnostic import Span
from adaptcompose.plugins import load_plugins
from adaptcompose.syntax.references import Ref
from adaptcompose.syntax.signature import format_value, parameters

ArgumentKind = Literal["slots", "adapters", "names", "nothing"]


@dataclass(frozen=True)
class Operator(Block):
    """A word of the language that takes arguments and blocks.

    The fields that `option` makes are the arguments. `takes` is the kind of the other arguments,
    `min_members` the smallest number of them, and `accepts_weights` is True if they can have
    weights, as in `average(a:0.3, b:0.7)`.
    """

    word: ClassVar[str]
    is_modifier: ClassVar[bool] = False
    takes: ClassVar[ArgumentKind] = "nothing"
    accepts_weights: ClassVar[bool] = False
    min_members: ClassVar[int] = 0

    def format_options(self) -> list[str]:
        """The arguments that differ from their defaults, as source text."""
        values = [(p, getattr(self, p.field_name)) for p in parameters(type(self))]
        return [f"{p.name}={format_value(value)}" for p, value in values if value != p.default]


@dataclass(frozen=True)
class CheckedCall:
    """A call of a block operator, after its arguments are checked.

    `name` is the name of the `let`, alias or slot that contains the call, or empty. `parse` reads
    a reference in an option and raises Failed if it is not one.
    """

    members: tuple[Slot, ...]
    options: Mapping[str, Any]
    name: str
    span: Span
    parse: Callable[[str], Ref]


@dataclass(frozen=True)
class BlockOperator(Operator):
    """An operator that is a block itself and contains members, named or not."""

    members: tuple[Slot, ...] = ()

    @classmethod
    def from_call(cls, call: CheckedCall) -> Block:
        """Make the block for a call; override this if a call means another block."""
        return cls(call.members, span=call.span, **call.options)

    def drawing_label(self, slot: str | None = None) -> str:
        """The word, the weights of the members, and the arguments."""
        weights = [format_value(slot.weight) for slot in self.members if slot.weight is not None]
        return " ".join(filter(None, [self.word, ", ".join(weights), *self.format_options()]))

    def inner(self) -> tuple[Block, ...]:
        return tuple(slot.block for slot in self.members)

    def rebuild(self, inner: tuple[Block, ...]) -> Block:
        return replace(self, members=with_blocks(self.members, inner))

    def in_layer(self, facts: Facts, layer: int) -> Block:
        members = [replace(s, block=s.block.in_layer(facts, layer)) for s in self.members]
        present = tuple(slot for slot in members if not isinstance(slot.block, Empty))
        return replace(self, members=present) if present else Empty()

    def __str__(self) -> str:
        return f"{self.word}({', '.join([*map(str, self.members), *self.format_options()])})"


@dataclass(frozen=True)
class Modifier(Operator):
    """An operator that changes the graph to its left, which is its `body`."""

    is_modifier: ClassVar[bool] = True

    body: Block = Empty()

    @property
    def branches(self) -> dict[str, Block]:
        return self.body.branches

    @property
    def broadcasts_batch(self) -> bool:
        return self.body.broadcasts_batch

    def inner(self) -> tuple[Block, ...]:
        return (self.body,)

    def rebuild(self, inner: tuple[Block, ...]) -> Block:
        return replace(self, body=inner[0])

    @property
    def topmost(self) -> Block:
        return self.body.topmost

    @property
    def default_head(self) -> Head | None:
        return self.body.default_head

    def in_layer(self, facts: Facts, layer: int) -> Block:
        body = self.body.in_layer(facts, layer)
        return body if isinstance(body, Empty) else replace(self, body=body)

    @property
    def stage_texts(self) -> tuple[str, ...]:
        return (*self.body.stage_texts, f"{self.word}({', '.join(self.format_options())})")

    def __str__(self) -> str:
        return " | ".join(self.stage_texts)


_OPERATORS: dict[str, type[Operator]] = {}

C = TypeVar("C", bound=type[Operator])


def register_operator(cls: C) -> C:
    """Register an operator under its word; ValueError if another operator has the word."""
    if _OPERATORS.setdefault(cls.word, cls) is not cls:
        raise ValueError(f"the operator `{cls.word}` already exists")
    return cls


def registered_operators() -> Mapping[str, type[Operator]]:
    """All operators by their words, including those of installed packages."""
    load_plugins("operators")
    return _OPERATORS
