"""`swap`: another block in a slot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.composition.graph import (
    Adapter,
    Block,
    Empty,
    Published,
    Slot,
    transform,
    walk,
    with_slots,
)
from adaptcompose.composition.operator import Modifier, Takes, operator
from adaptcompose.composition.operators.stack import Stack, slots
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed, Span, suggest
from adaptcompose.ir.primitives import Primitive
from adaptcompose.syntax import parser as syntax
from adaptcompose.syntax.references import Ref


@operator
@dataclass(frozen=True)
class Swap(Modifier):
    """Put another block, or `none`, into a named slot, wherever it is to the left.

    The slots of a published composition count, too. Law: swap(k=a) | swap(k=b) = swap(k=b). The
    graph holds the result; the operator stays in it only until references are looked up that may
    be published compositions.

    Examples:
        stack(lang=en, task=ner) | swap(lang=sw)
        stack(lang=en, task=ner) | fuse(glue/*) | swap(lang=none)
    """

    word: ClassVar[str] = "swap"
    takes: ClassVar[Takes] = "slots"
    least: ClassVar[int] = 1

    members: tuple[Slot, ...] = ()
    places: Mapping[str, Span | None] = field(default_factory=dict, compare=False, repr=False)
    """Where the names of the slots are written."""

    def inner(self) -> tuple[Block, ...]:
        return (self.body, *(slot.block for slot in self.members))

    def rebuild(self, inner: tuple[Block, ...]) -> Block:
        return replace(self, body=inner[0], members=with_slots(self.members, inner[1:]))

    def options(self) -> list[str]:
        return [str(slot) for slot in self.members]

    def at(self, site: Site, facts: Facts) -> Primitive | None:
        return self.applied().at(site, facts)

    def in_part(self) -> Swap:
        """The same behind a body whose own slots are refilled; what they held is not looked up."""
        return replace(self, body=refilled(self.body, self._new))

    @property
    def _new(self) -> dict[str, Block]:
        return {str(slot.name): slot.block for slot in self.members}

    def applied(self) -> Block:
        """The body with its slots refilled; Failed with AC310 for those that it has not."""
        names = {name: self.places.get(name, self.span) for name in self._new}
        if wrong := list(strangers(names, slots(self.body))):
            raise Failed(wrong)
        return refilled(self.body, self._new)


def refilled(body: Block, new: Mapping[str, Block]) -> Block:
    """The body with other blocks in its slots."""

    def refill(block: Block) -> Block:
        if isinstance(block, Stack):
            filled = [replace(s, block=new.get(s.name or "", s.block)) for s in block.members]
            return replace(block, members=tuple(filled))
        if isinstance(block, Published):
            given = {slot.name: refilled(slot.block, new) for slot in block.refills}
            given |= {name: new[name] for name in block.slots if name in new}
            return replace(block, refills=tuple(Slot(name, one) for name, one in given.items()))
        return block

    return transform(body, refill)


def worded(graph: Block) -> Block:
    """The graph as it is written: a published composition as its reference, and its swaps."""

    def change(block: Block) -> Block:
        if not isinstance(block, Published):
            return block
        members = tuple(replace(slot, block=worded(slot.block)) for slot in block.refills)
        leaf = replace(block, body=Empty(), refills=())
        return Swap(leaf, members, span=block.span) if members else leaf

    return transform(graph, change)


def strangers(names: Mapping[str, Span | None], known: list[str]) -> Iterator[Diagnostic]:
    """AC310 for every name that is none of those known."""
    for name, span in names.items():
        if name not in known:
            listed, near = ", ".join(known) or "none", suggest(name, known)
            yield codes.AC310.at(span, name=name, known=listed, help=near)


def named(call: syntax.Call) -> dict[str, Span | None]:
    """The slots that a call names, and where."""
    given = [one for one in call.arguments if isinstance(one, syntax.Argument)]
    return {one.name: one.name_span for one in given if one.name is not None}


def in_other_places(ref: Ref) -> bool:
    """Whether a reference may lead to a published composition, by its letters alone."""
    return ref.kind in ("hub", "local")


def unread(block: Block, composed: Callable[[Ref], bool]) -> bool:
    """Whether references in it may be published compositions that have slots of their own."""
    leaves = (inner for inner in walk(block) if isinstance(inner, Adapter))
    return any(leaf.ref and leaf.method is None and composed(leaf.ref) for leaf in leaves)
