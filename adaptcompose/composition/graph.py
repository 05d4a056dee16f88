"""The composition graph: immutable blocks that know how they are written and how they lower.

A block denotes, at every site of a backbone, a function of the state; `at` gives it as a primitive
of the program, None meaning the identity. There is no other way to run a composition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.catalogue.cards import Variant
from adaptcompose.diagnostics.diagnostic import Diagnostic, Span
from adaptcompose.hub.lock import Pin
from adaptcompose.ir.primitives import Chain, Primitive
from adaptcompose.methods.method import Method
from adaptcompose.syntax.references import Ref
from adaptcompose.syntax.signature import format_value


@dataclass(frozen=True)
class Block:
    """A node of the composition. `span` is where the user wrote it."""

    span: Span | None = field(default=None, compare=False, repr=False, kw_only=True)

    def inner(self) -> tuple[Block, ...]:
        """The blocks inside this one, in the order in which they are written."""
        return ()

    def rebuild(self, inner: tuple[Block, ...]) -> Block:
        """The same block around other inner blocks."""
        return self

    def at(self, site: Site, facts: Facts) -> Primitive | None:
        """This block as a primitive at a site; None is the identity."""
        raise NotImplementedError

    def problems(self, facts: Facts | None) -> Iterator[Diagnostic]:
        """What is wrong with this block as far as it is known by now."""
        yield from ()

    @property
    def stage_texts(self) -> tuple[str, ...]:
        """The texts that a pipe shows for this block."""
        return (str(self),)

    @property
    def branches(self) -> dict[str, Block]:
        """The compositions by name, where this block is several: of `route` and `parallel`."""
        return {}

    @property
    def broadcasts_batch(self) -> bool:
        """Whether every branch gets the whole batch; else each row has one of them."""
        return False


@dataclass(frozen=True)
class Empty(Block):
    """`none`: the composition without adapters."""

    def at(self, site: Site, facts: Facts) -> Primitive | None:
        return None

    def __str__(self) -> str:
        return "none"


@dataclass(frozen=True)
class Head:
    """A prediction head as AdapterHub's head_config.json describes it; `part` names its weights."""

    part: str
    config: Mapping[str, Any]

    @property
    def head_type(self) -> str:
        return str(self.config["head_type"])

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names in the order of their ids."""
        by_name = self.config.get("label2id") or {}
        if by_name:
            return tuple(sorted(by_name, key=lambda name: int(by_name[name])))
        return tuple(f"LABEL_{number}" for number in range(int(self.config.get("num_labels", 0))))


@dataclass(frozen=True)
class Adapter(Block):
    """One adapter: new (a method call) or read from a reference.

    `name` identifies its weights: two occurrences of one name share them. What is not known yet
    (before the lock) is None. `base` is the backbone that its file names.
    """

    name: str
    method: Method | None = None
    ref: Ref | None = None
    variant: Variant | None = None
    pin: Pin | None = None
    declared_backbone: str | None = None
    head: Head | None = None

    @property
    def is_new(self) -> bool:
        return self.ref is None

    def at(self, site: Site, facts: Facts) -> Primitive | None:
        assert self.method is not None
        return self.method.lower(self.name, site, facts)

    def problems(self, facts: Facts | None) -> Iterator[Diagnostic]:
        if facts is not None and self.method is not None:
            yield from (replace(found, span=self.span) for found in self.method.problems(facts))

    def __str__(self) -> str:
        return str(self.method) if self.ref is None else str(self.ref)


@dataclass(frozen=True)
class Published(Block):
    """A reference to a published composition: it stands for its expression.

    `head` carries the composition's head where that is in a folder of its own. `slots` are those
    that it was published with, `refills` what `swap` has put into them; `body` holds it already.
    """

    ref: Ref
    body: Block
    pin: Pin | None = None
    head: Adapter | None = None
    slots: tuple[str, ...] = ()
    refills: tuple[Slot, ...] = ()

    def inner(self) -> tuple[Block, ...]:
        return (self.body,)

    def rebuild(self, inner: tuple[Block, ...]) -> Block:
        return replace(self, body=inner[0])

    def at(self, site: Site, facts: Facts) -> Primitive | None:
        return self.body.at(site, facts)

    @property
    def stage_texts(self) -> tuple[str, ...]:
        swapped = (f"swap({', '.join(map(str, self.refills))})",) if self.refills else ()
        return (str(self.ref), *swapped)

    def __str__(self) -> str:
        return " | ".join(self.stage_texts)


@dataclass(frozen=True)
class Slot:
    """A block in a place that may have a name."""

    name: str | None
    block: Block
    weight: float | None = None

    def __str__(self) -> str:
        name = f"{self.name}=" if self.name else ""
        if self.weight is None:
            return f"{name}{self.block}"
        # in `a | b:0.3` the weight would seem to be that of b alone
        block = f"({self.block})" if len(self.block.stage_texts) > 1 else str(self.block)
        return f"{name}{block}:{format_value(self.weight)}"


def make_chain(members: list[Primitive | None], *, backwards: bool = False) -> Primitive | None:
    """The members that are there, one after another."""
    present = [member for member in members if member is not None]
    if not present:
        return None
    ordered = tuple(reversed(present)) if backwards else tuple(present)
    return ordered[0] if len(ordered) == 1 else Chain(ordered)


def walk(block: Block) -> Iterator[Block]:
    """A block and everything inside it, outermost first."""
    yield block
    for child in block.inner():
        yield from walk(child)


def adapters_of(block: Block) -> dict[str, Adapter]:
    """Every adapter once, by name, in the order in which they are written."""
    return {leaf.name: leaf for leaf in walk(block) if isinstance(leaf, Adapter)}


def adapters_with_heads(block: Block) -> dict[str, Adapter]:
    """What brings a head, by the head's name: adapters, and heads in folders of their own."""
    found = {name: leaf for name, leaf in adapters_of(block).items() if leaf.head is not None}
    for inner in walk(block):
        if isinstance(inner, Published) and inner.head is not None:
            found[inner.head.name] = inner.head
    return found


def has_known_methods(block: Block) -> bool:
    """Whether the methods of all adapters are known, so that sites can be looked at."""
    leaves = [inner for inner in walk(block) if isinstance(inner, Adapter)]
    return all(leaf.method is not None for leaf in leaves)


def transform(block: Block, rewrite: Callable[[Block], Block]) -> Block:
    """The graph with `rewrite` applied to every block, innermost first."""
    children = block.inner()
    if children:
        block = block.rebuild(tuple(transform(child, rewrite) for child in children))
    return rewrite(block)


def with_blocks(slots: tuple[Slot, ...], inner: tuple[Block, ...]) -> tuple[Slot, ...]:
    return tuple(replace(slot, block=block) for slot, block in zip(slots, inner, strict=True))
