"""What an operator is: how its arguments bind, how it is written, and the list of all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, TypeVar

from adaptcompose.composition.graph import Block, Empty, Slot, with_slots
from adaptcompose.diagnostics.diagnostic import Span
from adaptcompose.plugins import plugins
from adaptcompose.syntax.references import Ref
from adaptcompose.syntax.signature import parameters, spell

Takes = Literal["slots", "adapters", "names", "nothing"]


@dataclass(frozen=True)
class Operator(Block):
    """What the checker needs to know of an operator beside its arguments.

    `takes` says what its unnamed or freely named arguments are, `least` how many it needs, and
    `weighted` whether they may have weights, `a:0.3`.
    """

    word: ClassVar[str]
    modifier: ClassVar[bool] = False
    takes: ClassVar[Takes] = "nothing"
    weighted: ClassVar[bool] = False
    least: ClassVar[int] = 0

    def options(self) -> list[str]:
        """The arguments that differ from their defaults, as written."""
        known = parameters(type(self))
        given = [(parameter, getattr(self, parameter.field)) for parameter in known]
        return [f"{p.name}={spell(value)}" for p, value in given if value != p.default]


@dataclass(frozen=True)
class Call:
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
class Members(Operator):
    """A block operator around named or unnamed members."""

    members: tuple[Slot, ...] = ()

    @classmethod
    def of(cls, call: Call) -> Block:
        """The block that a checked call means."""
        return cls(call.members, span=call.span, **call.options)

    @property
    def label(self) -> str:
        """What a drawing writes where the members come together: word, weights, arguments."""
        weights = [spell(slot.weight) for slot in self.members if slot.weight is not None]
        return " ".join(filter(None, [self.word, ", ".join(weights), *self.options()]))

    def inner(self) -> tuple[Block, ...]:
        return tuple(slot.block for slot in self.members)

    def rebuild(self, inner: tuple[Block, ...]) -> Block:
        return replace(self, members=with_slots(self.members, inner))

    def __str__(self) -> str:
        return f"{self.word}({', '.join([*map(str, self.members), *self.options()])})"


@dataclass(frozen=True)
class Modifier(Operator):
    """Changes the graph to its left."""

    modifier: ClassVar[bool] = True

    body: Block = Empty()

    @property
    def branches(self) -> dict[str, Block]:
        return self.body.branches

    @property
    def fans(self) -> bool:
        return self.body.fans

    def inner(self) -> tuple[Block, ...]:
        return (self.body,)

    def rebuild(self, inner: tuple[Block, ...]) -> Block:
        return replace(self, body=inner[0])

    @property
    def stages(self) -> tuple[str, ...]:
        return (*self.body.stages, f"{self.word}({', '.join(self.options())})")

    def __str__(self) -> str:
        return " | ".join(self.stages)


_OPERATORS: dict[str, type[Operator]] = {}

C = TypeVar("C", bound=type[Operator])


def operator(cls: C) -> C:
    """Make an operator known to the language by its word."""
    if _OPERATORS.setdefault(cls.word, cls) is not cls:
        raise ValueError(f"`{cls.word}` is an operator already")
    return cls


def operators() -> Mapping[str, type[Operator]]:
    """The operators of the language by their words, those of installed packages among them."""
    plugins("operators")
    return _OPERATORS
