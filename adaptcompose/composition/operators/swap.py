"""`swap`: other blocks in named slots."""

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
    ReadActivations,
    Slot,
    has_known_methods,
    transform,
    walk,
    with_blocks,
)
from adaptcompose.composition.operator import ArgumentKind, Modifier, register_operator
from adaptcompose.composition.operators.stack import Stack, slot_names
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed, Span, suggest
from adaptcompose.ir.primitives import Primitive
from adaptcompose.syntax import nodes
from adaptcompose.syntax.references import Ref

NO_SLOTS = "give an adapter a slot first, as in `stack(lang=sw)`"


@register_operator
@dataclass(frozen=True)
class Swap(Modifier):
    """Put another block, or `none`, into a named slot anywhere to its left.

    Use it to run a trained composition on another language or domain: train with one language
    adapter, then replace it. `swap` also reaches the slots of published compositions.

    Law: swap(k=a) | swap(k=b) = swap(k=b).

    Examples:
        stack(lang=en, task=ner) | swap(lang=sw)
        stack(lang=en, task=ner) | fuse(glue/*) | swap(lang=none)
    """

    word: ClassVar[str] = "swap"
    takes: ClassVar[ArgumentKind] = "slots"
    min_members: ClassVar[int] = 1

    members: tuple[Slot, ...] = ()
    name_spans: Mapping[str, Span | None] = field(default_factory=dict, compare=False, repr=False)
    """The spans of the names of the slots in the source."""

    def inner(self) -> tuple[Block, ...]:
        return (self.body, *(slot.block for slot in self.members))

    def rebuild(self, inner: tuple[Block, ...]) -> Block:
        return replace(self, body=inner[0], members=with_blocks(self.members, inner[1:]))

    def format_options(self) -> list[str]:
        return [str(slot) for slot in self.members]

    def at(self, site: Site, facts: Facts) -> Primitive | None:
        return self.apply().at(site, facts)

    def apply_where_known(self) -> Swap:
        """This modifier around a body whose known slots are refilled already.

        The modifier stays for slots of published compositions that are not resolved yet.
        """
        return replace(self, body=refill_slots(self.body, self._replacements))

    def resolved(self, read_activations: ReadActivations) -> Block:
        return self.apply() if has_known_methods(self.body) else self

    @property
    def _replacements(self) -> dict[str, Block]:
        return {str(slot.name): slot.block for slot in self.members}

    def apply(self) -> Block:
        """The body with its slots refilled; raises Failed with AC310 for an unknown slot."""
        names = {name: self.name_spans.get(name, self.span) for name in self._replacements}
        if wrong := list(unknown_name_problems(names, slot_names(self.body))):
            raise Failed(wrong)
        return refill_slots(self.body, self._replacements)


def refill_slots(body: Block, replacements: Mapping[str, Block]) -> Block:
    """The body with `replacements` in its slots, by name, including those of published ones."""

    def refill(block: Block) -> Block:
        if isinstance(block, Stack):
            filled = [
                replace(s, block=replacements.get(s.name or "", s.block)) for s in block.members
            ]
            return replace(block, members=tuple(filled))
        if isinstance(block, Published):
            refills = {slot.name: refill_slots(slot.block, replacements) for slot in block.refills}
            refills |= {name: replacements[name] for name in block.slots if name in replacements}
            return replace(block, refills=tuple(Slot(name, b) for name, b in refills.items()))
        return block

    return transform(body, refill)


def as_written(graph: Block) -> Block:
    """The graph as source: published compositions as references, followed by their swaps."""

    def change(block: Block) -> Block:
        if not isinstance(block, Published):
            return block
        members = tuple(replace(slot, block=as_written(slot.block)) for slot in block.refills)
        leaf = replace(block, body=Empty(), refills=())
        return Swap(leaf, members, span=block.span) if members else leaf

    return transform(graph, change)


def unknown_name_problems(
    names: Mapping[str, Span | None], known: list[str]
) -> Iterator[Diagnostic]:
    """Yield AC310 for every name that is not in `known`."""
    for name, span in names.items():
        if name not in known:
            help = suggest(name, known) if known else NO_SLOTS
            yield codes.AC310.at(span, name=name, known=", ".join(known), help=help)


def slot_spans(call: nodes.Call) -> dict[str, Span | None]:
    """The spans of the slot names in a call, by name."""
    arguments = [node for node in call.arguments if isinstance(node, nodes.Argument)]
    return {node.name: node.name_span for node in arguments if node.name is not None}


def is_outside_catalogue(ref: Ref) -> bool:
    """True if a reference is not a catalogue name, so that it can mean a published composition."""
    return ref.kind in ("hub", "local")


def has_unresolved(block: Block, may_be_published: Callable[[Ref], bool]) -> bool:
    """True if a block contains unresolved references that can mean published compositions."""
    leaves = (inner for inner in walk(block) if isinstance(inner, Adapter))
    return any(leaf.ref and leaf.method is None and may_be_published(leaf.ref) for leaf in leaves)
