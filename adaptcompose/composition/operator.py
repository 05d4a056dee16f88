"""What an operator is: how its arguments bind, how it is written, and the list of all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, TypeVar

from adaptcompose.composition.graph import Block, Empty, Slot, with_blocks
from adaptcompose.diagnostics.diagnostic import Span
from adaptcompose.plugins import load_plugins
from adaptcompose.syntax.references import Ref
from adaptcompose.syntax.signature import format_value, parameters

ArgumentKind = Literal["slots", "adapters", "names", "nothing"]


@dataclass(frozen=True)
class Operator(Block):
    """What the checker needs to know of an operator beside its arguments.

    `takes` says what its unnamed or freely named arguments are, `least` how many it needs, and
    `weighted` whether they may have weights, `a:0.3`.
    """

    word: ClassVar[str]
    is_modifier: ClassVar[bool] = False
    takes: ClassVar[ArgumentKind] = "nothing"
    accepts_weights: ClassVar[bool] = False
    min_members: ClassVar[int] = 0

    def format_options(self) -> list[str]:
        """The arguments that differ from their defaults, as written."""
        known = parameters(type(self))
        given = [(parameter, getattr(self, parameter.field_name)) for parameter in known]
        return [f"{p.name}={format_value(value)}" for p, value in given if value != p.default]


@dataclass(frozen=True)
class CheckedCall:
    """A call of a block operator whose arguments fit.

    `name` is its `let`, alias or slot, or empty; `parse` reads a reference that stands in an
    option, and raises Failed.
    """

    members: tuple[Slot, ...]
    options: Mapping[str, Any]
    name: str
    span: Span
    parse: Callable[[str], Ref]


@dataclass(frozen=True)
class BlockOperator(Operator):
    """A block operator around named or unnamed members."""

    members: tuple[Slot, ...] = ()

    @classmethod
    def from_call(cls, call: CheckedCall) -> Block:
        """The block that a checked call means."""
        return cls(call.members, span=call.span, **call.options)

    @property
    def drawing_label(self) -> str:
        """What a drawing writes where the members come together: word, weights, arguments."""
        weights = [format_value(slot.weight) for slot in self.members if slot.weight is not None]
        return " ".join(filter(None, [self.word, ", ".join(weights), *self.format_options()]))

    def inner(self) -> tuple[Block, ...]:
        return tuple(slot.block for slot in self.members)

    def rebuild(self, inner: tuple[Block, ...]) -> Block:
        return replace(self, members=with_blocks(self.members, inner))

    def __str__(self) -> str:
        return f"{self.word}({', '.join([*map(str, self.members), *self.format_options()])})"


@dataclass(frozen=True)
class Modifier(Operator):
    """Changes the graph to its left."""

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
    def stage_texts(self) -> tuple[str, ...]:
        return (*self.body.stage_texts, f"{self.word}({', '.join(self.format_options())})")

    def __str__(self) -> str:
        return " | ".join(self.stage_texts)


_OPERATORS: dict[str, type[Operator]] = {}

C = TypeVar("C", bound=type[Operator])


def operator(cls: C) -> C:
    """Make an operator known to the language by its word."""
    if _OPERATORS.setdefault(cls.word, cls) is not cls:
        raise ValueError(f"the operator `{cls.word}` already exists")
    return cls


def operators() -> Mapping[str, type[Operator]]:
    """The operators of the language by their words, those of installed packages among them."""
    load_plugins("operators")
    return _OPERATORS
