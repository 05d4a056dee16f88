"""`train` and `freeze`: which parts training updates."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, count
from typing import ClassVar

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.composition.graph import (
    Block,
    Published,
    Slot,
    WeightedPart,
    has_known_methods,
    transform,
    walk,
)
from adaptcompose.composition.operator import ArgumentKind, Modifier, register_operator
from adaptcompose.composition.operators.fuse import fusions_of, parts_of
from adaptcompose.composition.operators.stack import Stack, slot_names
from adaptcompose.composition.operators.swap import as_written, unknown_name_problems
from adaptcompose.diagnostics.diagnostic import Diagnostic, Span
from adaptcompose.ir.primitives import Primitive
from adaptcompose.syntax import nodes
from adaptcompose.syntax.references import Ref


@dataclass(frozen=True)
class Trainability(Modifier):
    """A modifier that marks parts to its left as trained or frozen; it changes no outputs."""

    takes: ClassVar[ArgumentKind] = "names"
    makes_trainable: ClassVar[bool]

    names: tuple[str, ...] = ()
    name_spans: Mapping[str, Span] = field(default_factory=dict, compare=False, repr=False)
    unnamed_parts: tuple[WeightedPart, ...] = field(default=(), compare=False, repr=False)
    """New parts that an argument means and that have no names yet."""
    is_deferred: bool = field(default=False, compare=False, repr=False)
    """True if unresolved references to the left can bring parts that the arguments name."""

    @classmethod
    def from_call(
        cls, call: nodes.Call, body: Block, scope: Mapping[str, Block | None], *, is_deferred: bool
    ) -> Trainability:
        """Make the modifier for a call; `scope` are the blocks of `let` and of aliases, by name."""
        known = nameable_parts(body)
        parts = {(part.name, part.span) for part in part_occurrences(body)}
        spans: dict[str, Span] = {}
        unnamed: list[WeightedPart] = []
        for argument in call.arguments:
            written = str(argument)
            meant = scope.get(written) if written not in known else None
            matches = [p for p in part_occurrences(meant) if (p.name, p.span) in parts]
            spans |= {part.name: argument.span for part in matches if part.name}
            unnamed += [part for part in matches if not part.name]
            if not matches:
                spans[written] = argument.span
        return cls(body, tuple(spans), spans, tuple(unnamed), is_deferred, span=call.span)

    def problems(self, facts: Facts | None) -> Iterator[Diagnostic]:
        """Yield AC310 for names without a slot or part to the left, once all parts are known."""
        if not self.is_deferred or has_known_methods(self.body):
            spans = {name: self.name_spans.get(name, self.span) for name in self.names}
            yield from unknown_name_problems(spans, list(nameable_parts(self.body)))

    @property
    def stage_texts(self) -> tuple[str, ...]:
        body, names = with_named_slots(self.body, self.names)
        return (*body.stage_texts, f"{self.word}({', '.join(names)})")

    def format_options(self) -> list[str]:
        return list(self.names)

    def at(self, site: Site, facts: Facts) -> Primitive | None:
        return self.body.at(site, facts)

    def pinned(self, reference_of: Callable[[WeightedPart], Ref]) -> Block:
        return self.body  # a published part is trained already

    def with_names(self, names: Mapping[tuple[str, Span | None], str]) -> Block:
        meant = tuple(names[part.name, part.span] for part in self.unnamed_parts)
        return replace(self, names=(*self.names, *meant), unnamed_parts=())

    def target_parts(self) -> frozenset[str]:
        """The names of the parts that are marked; without arguments, of all parts to the left."""
        known = nameable_parts(self.body)
        if not self.names:
            return frozenset().union(*known.values())
        return frozenset().union(*(known.get(name, ()) for name in self.names))


@register_operator
@dataclass(frozen=True)
class Train(Trainability):
    """Train these slots or parts, even if they are loaded; without names, all to the left.

    Use it to continue the training of loaded adapters. New parts are trained without it. `train`
    changes no outputs; of several `train` and `freeze`, the last one that names a part decides.

    Laws: e | train() computes e; train(a) | freeze(a) = freeze(a).

    Example:
        stack(lang=sw, task=ner) | train(lang)
    """

    word: ClassVar[str] = "train"
    makes_trainable: ClassVar[bool] = True


@register_operator
@dataclass(frozen=True)
class Freeze(Trainability):
    """Do not train these slots or parts, even if they are new; without names, all to the left.

    Use it to keep a part at its initial weights while others are trained. Loaded parts are frozen
    without it. `freeze` changes no outputs; of several `train` and `freeze`, the last one that
    names a part decides.

    Laws: e | freeze() computes e; freeze(a) | train(a) = train(a).

    Example:
        stack(lang=sw, task=pfeiffer()) | freeze(task)
    """

    word: ClassVar[str] = "freeze"
    makes_trainable: ClassVar[bool] = False


def nameable_parts(block: Block) -> dict[str, frozenset[str]]:
    """The parts that each argument of `train` and `freeze` means, by argument.

    An argument is the name of a part, the reference of a published composition, the name of a
    slot, which means the parts in it, or `fuse`, which means all fusions.
    """
    found: dict[str, frozenset[str]] = {}
    if fusions := fusions_of(block):
        found["fuse"] = frozenset(fusions)
    for inner in walk(block):
        for slot in inner.named_slots:
            name = str(slot.name)
            found[name] = found.get(name, frozenset()) | {*parts_of(slot.block)}
        if isinstance(inner, WeightedPart) and inner.name:
            found.setdefault(inner.name, frozenset({inner.name}))
        if isinstance(inner, Published):
            ref = str(inner.ref)
            found[ref] = found.get(ref, frozenset()) | {*parts_of(inner.body)}
    return found


def part_occurrences(block: Block | None) -> list[WeightedPart]:
    """All adapters and fusions of a graph, repeated ones as often as they occur."""
    return [] if block is None else [b for b in walk(block) if isinstance(b, WeightedPart)]


def with_named_slots(body: Block, names: tuple[str, ...]) -> tuple[Block, tuple[str, ...]]:
    """The body with a named slot around each new part in `names`, and the names of all slots.

    Source needs a name for the part, and a graph has no `let`; a slot is one, as stack(x=e) = e.
    """
    known, all_names, body = slot_names(body), list(names), as_written(body)
    wanted = set(names) - {*known, "fuse"}

    def called(block: Block) -> str | None:
        part = block.name if isinstance(block, WeightedPart) and block.is_new else None
        return part if part in wanted else None

    def wrapped(block: Block) -> Block:
        name = called(block)
        return block if name is None else Stack((Slot(name, block),))

    def change(block: Block) -> Block:
        if not isinstance(block, Stack):
            return block.rebuild(tuple(map(wrapped, block.inner())))
        members: list[Slot] = []
        for slot in block.members:
            name = called(slot.block)
            if slot.name is not None or name is None:
                members.append(replace(slot, block=wrapped(slot.block)))
                continue
            if any(member.name == name for member in members):
                name = unique_name(name, {*known, *all_names})
                all_names.append(name)
            members.append(replace(slot, name=name))
        return replace(block, members=tuple(members))

    return (wrapped(transform(body, change)), tuple(all_names)) if wanted else (body, names)


def unique_name(word: str, taken: Container[str]) -> str:
    """The word, or the word with the first number from 2 on that is not taken."""
    numbered = (f"{word}{number}" for number in count(2))
    return next(name for name in chain((word,), numbered) if name not in taken)


def explicit_trainability(graph: Block) -> dict[str, bool]:
    """True for parts marked by `train`, False for those marked by `freeze`; the last counts."""
    marks: dict[str, bool] = {}
    for inner in graph.inner():
        marks |= explicit_trainability(inner)
    if isinstance(graph, Trainability):
        marks |= dict.fromkeys(graph.target_parts(), graph.makes_trainable)
    return marks


def trainable_parts(graph: Block) -> Iterator[str]:
    """Yield the parts that are trained by default: new parts, and parts marked by `train`."""
    marks = explicit_trainability(graph)
    for name, part in parts_of(graph).items():
        if marks.get(name, part.is_new):
            yield name
