"""`stack`: blocks on top of each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.composition.graph import (
    Adapter,
    Block,
    Head,
    Slot,
    adapters_of,
    has_known_methods,
    make_chain,
    walk,
)
from adaptcompose.composition.operator import (
    ArgumentKind,
    BlockOperator,
    CheckedCall,
    register_operator,
)
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Diagnostic
from adaptcompose.ir.linear import find_norms_without_weight
from adaptcompose.ir.primitives import Primitive
from adaptcompose.methods.invertible import HEAD_SITE


@register_operator
@dataclass(frozen=True)
class Stack(BlockOperator):
    """Blocks on top of each other, the lowest first; a name makes a slot that `swap` can refill.

    Use it to combine adapters that were trained for different purposes, for example a task
    adapter on top of a language adapter (MAD-X, Pfeiffer et al., 2020). Each block reads the
    hidden state that the block below it writes.

    ⟦stack(e₁, …, eₙ)⟧ = ⟦eₙ⟧ ∘ … ∘ ⟦e₁⟧.

    Laws: stack(a) = a; stack(a, stack(b, c)) = stack(a, b, c); a | b = stack(a, b).

    Examples:
        stack(lang=sw, task=ner)
        stack(lang/sw, pfeiffer(reduction=8))
    """

    word: ClassVar[str] = "stack"
    takes: ClassVar[ArgumentKind] = "slots"
    min_members: ClassVar[int] = 1

    @classmethod
    def from_call(cls, call: CheckedCall) -> Block:
        flat = flatten(call.members)
        lone = len(flat) == 1 and flat[0].name is None
        return flat[0].block if lone else cls(flat, span=call.span)

    @property
    def named_slots(self) -> tuple[Slot, ...]:
        return tuple(slot for slot in self.members if slot.name)

    def inner_with_slots(self, slot: str | None) -> Iterator[tuple[Block, str | None]]:
        for member in self.members:
            yield member.block, member.name or slot

    @property
    def topmost(self) -> Block:
        return self.members[-1].block.topmost

    @property
    def default_head(self) -> Head | None:
        heads = (block.default_head for block in reversed(self.inner()))
        return next((head for head in heads if head is not None), None)

    def at(self, site: Site, facts: Facts) -> Primitive | None:
        # the inverse of a composition inverts its last part first
        return make_chain(
            [block.at(site, facts) for block in self.inner()], backwards=site == HEAD_SITE
        )

    def problems(self, facts: Facts | None) -> Iterator[Diagnostic]:
        names: set[str] = set()
        for slot in self.members:
            if slot.name in names:
                yield codes.AC322.at(slot.block.span, slot=slot.name)
            names |= {slot.name} if slot.name else set()
        yield from self._position_problems()
        yield from self._weight_norm_problems(facts)
        yield from self._ending_problems(facts)

    def _position_problems(self) -> Iterator[Diagnostic]:
        """Yield AC316 if members disagree on whether virtual tokens shift other positions."""
        by_kind: dict[str, dict[str, Adapter]] = {}
        for block in adapters_of(self).values():
            if block.method is not None and block.method.position_convention:
                kind, word = block.method.position_convention
                by_kind.setdefault(kind, {}).setdefault(word, block)
        for kind, words in by_kind.items():
            if len(words) > 1:
                texts = (f"`{block}` has `positions={word}`" for word, block in words.items())
                yield codes.AC316.at(self.span, kind=kind, detail=", ".join(texts))

    def _weight_norm_problems(self, facts: Facts | None) -> Iterator[Diagnostic]:
        """Yield AC317 if a method normalises a weight that depends on the input below it."""
        if facts is None or not has_known_methods(self):
            return
        for site in facts.sites_of_kind("linear", "lookup"):
            node = self.at(site, facts)
            for leaf in find_norms_without_weight(node) if node is not None else ():
                yield codes.AC317.at(self.span, name=leaf.part, site=site)
                return

    def _ending_problems(self, facts: Facts | None) -> Iterator[Diagnostic]:
        """Yield AC320 for an adapter that replaces the backbone's norm below another adapter."""
        if facts is None or not has_known_methods(self):
            return
        for index, slot in enumerate(self.members[:-1]):
            above = self.members[index + 1 :]
            for site in facts.sublayer_sites():
                node = slot.block.at(site, facts)
                if node is None or node.placement.followed_by_norm:
                    continue
                if any(other.block.at(site, facts) is not None for other in above):
                    yield codes.AC320.at(slot.block.span, name=slot.block)
                    break


def flatten(members: Sequence[Slot]) -> tuple[Slot, ...]:
    """Replace unnamed stacks by their members: stack(a, stack(b)) = stack(a, b)."""
    flat: list[Slot] = []
    for slot in members:
        if slot.name is None and isinstance(slot.block, Stack):
            flat += slot.block.members
        else:
            flat.append(slot)
    return tuple(flat)


def slot_names(block: Block) -> list[str]:
    """The names of the slots in a graph, in the order in which they are written."""
    names = (slot.name for inner in walk(block) for slot in inner.named_slots)
    return list(dict.fromkeys(name for name in names if name))
