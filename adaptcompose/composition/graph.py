"""The composition graph: immutable blocks that print themselves and lower themselves.

At every site of a backbone, a block is a function of the hidden state. `Block.at` returns that
function as a primitive, or None for the identity. A composition runs in no other way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.catalogue.cards import Variant
from adaptcompose.composition.fusion_activations import Activations
from adaptcompose.diagnostics.diagnostic import Diagnostic, Span
from adaptcompose.hub.lock import Pin
from adaptcompose.ir.primitives import Chain, Primitive
from adaptcompose.methods.method import Method
from adaptcompose.syntax.references import Ref
from adaptcompose.syntax.signature import format_value

ReadActivations = Callable[[str, Span | None], Activations]


@dataclass(frozen=True)
class Block:
    """A node of the composition graph; `span` is where the user wrote it.

    An operator overrides the methods in which it differs from "the same as the blocks inside it".
    """

    span: Span | None = field(default=None, compare=False, repr=False, kw_only=True)

    def inner(self) -> tuple[Block, ...]:
        """The blocks inside this one, in the order in which they are written."""
        return ()

    def rebuild(self, inner: tuple[Block, ...]) -> Block:
        """This block with other blocks inside it, as many as `inner()` returns."""
        return self

    def at(self, site: Site, facts: Facts) -> Primitive | None:
        """The primitive that this block computes at a site; None is the identity."""
        raise NotImplementedError

    def problems(self, facts: Facts | None) -> Iterator[Diagnostic]:
        """Yield what is wrong with this block itself, as far as its adapters are known."""
        yield from ()

    def coverage_problems(self, facts: Facts, sites: Sequence[Site]) -> Iterator[Diagnostic]:
        """Yield AC417 for every fusion inside that has no weights at one of `sites`."""
        for block in self.inner():
            yield from block.coverage_problems(facts, sites)

    @property
    def named_slots(self) -> tuple[Slot, ...]:
        """The slots of this block that have a name and that `swap` can refill."""
        return ()

    def inner_with_slots(self, slot: str | None) -> Iterator[tuple[Block, str | None]]:
        """Yield each inner block with the name of its slot; `slot` is the slot of this block."""
        for block in self.inner():
            yield block, slot

    @property
    def topmost(self) -> Block:
        """The block that computes last: the top of a stack, the body of a modifier."""
        return self

    @property
    def default_head(self) -> Head | None:
        """The head of the composition if the user chooses none.

        A stack has the head of its last member that brings one. Members of a combination bring
        none: the combination serves another purpose than the one its members were trained for.
        """
        return None

    def resolved(self, read_activations: ReadActivations) -> Block:
        """This block once the blocks inside it are resolved; raises Failed if they do not fit it.

        `read_activations` reads the file or the run that an argument names.
        """
        return self

    @property
    def pins(self) -> dict[str, Pin]:
        """The pin of this block by its reference; empty for a block that loads nothing."""
        return {}

    def pinned(self, reference_of: Callable[[WeightedPart], Ref]) -> Block:
        """This block as it is published: `reference_of` says from where a part is loaded."""
        return self

    def with_names(self, names: Mapping[tuple[str, Span | None], str]) -> Block:
        """This block once new parts have names, by the name and the span that they had before."""
        return self

    def occupied_layers(self, facts: Facts, part: str) -> frozenset[int]:
        """The layers of one part of the backbone in which this block computes something."""
        return frozenset().union(*(block.occupied_layers(facts, part) for block in self.inner()))

    def in_layer(self, facts: Facts, layer: int) -> Block:
        """What this block is in one layer: `none` where only the backbone computes."""
        is_there = any(layer in self.occupied_layers(facts, part) for part in facts.layers_by_part)
        return self if is_there else Empty()

    @property
    def stage_texts(self) -> tuple[str, ...]:
        """The source of this block, one text per stage of a pipe."""
        return (str(self),)

    def drawing_label(self, slot: str | None = None) -> str:
        """The text of this block's box in a drawing; `slot` is the slot that contains it."""
        return str(self)

    @property
    def branches(self) -> dict[str, Block]:
        """The compositions inside `route` or `parallel`, by name; otherwise empty."""
        return {}

    @property
    def broadcasts_batch(self) -> bool:
        """True if every branch gets the whole batch; False if each row goes to one branch."""
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
        ids = self.config.get("label2id") or {}
        if ids:
            return tuple(sorted(ids, key=lambda name: int(ids[name])))
        return tuple(f"LABEL_{number}" for number in range(int(self.config.get("num_labels", 0))))


@dataclass(frozen=True)
class WeightedPart(Block):
    """A block with weights of its own: an adapter or a fusion.

    `name` identifies the weights: two blocks with the same name share them. A new part has no
    `ref`; the `pin` of a loaded part is None until its reference is resolved. `declared_backbone`
    is the backbone that its file names.
    """

    kind: ClassVar[Literal["adapter", "fusion"]]

    name: str = field(default="", kw_only=True)
    ref: Ref | None = field(default=None, kw_only=True)
    pin: Pin | None = field(default=None, kw_only=True)
    declared_backbone: str | None = field(default=None, kw_only=True)

    @property
    def is_new(self) -> bool:
        """True if the weights are initialised, False if they are loaded."""
        return self.ref is None

    @property
    def default_name(self) -> str:
        """The name of a new part that is not in a `let` or a slot."""
        raise NotImplementedError

    @property
    def summary(self) -> str:
        """What the part is, in a row of a plan."""
        raise NotImplementedError

    def method_for(self, facts: Facts) -> Method:
        """The method with its sites on a backbone; the part must be resolved."""
        raise NotImplementedError

    @property
    def pins(self) -> dict[str, Pin]:
        return {str(self.ref): self.pin} if self.ref and self.pin else {}


@dataclass(frozen=True)
class Adapter(WeightedPart):
    """One adapter: new (a method call) or loaded from a reference.

    `method`, `pin` and `head` of a loaded adapter are None until its reference is resolved.
    """

    kind = "adapter"

    name: str
    method: Method | None = None
    variant: Variant | None = None
    head: Head | None = None

    @property
    def default_name(self) -> str:
        assert self.method is not None
        return self.method.word

    @property
    def summary(self) -> str:
        return str(self.method)

    @property
    def default_head(self) -> Head | None:
        return self.head

    def method_for(self, facts: Facts) -> Method:
        assert self.method is not None, f"{self} is not resolved"
        return self.method

    def at(self, site: Site, facts: Facts) -> Primitive | None:
        assert self.method is not None
        return self.method.lower(self.name, site, facts)

    def problems(self, facts: Facts | None) -> Iterator[Diagnostic]:
        if facts is not None and self.method is not None:
            yield from (replace(found, span=self.span) for found in self.method.problems(facts))

    def pinned(self, reference_of: Callable[[WeightedPart], Ref]) -> Block:
        return replace(self, ref=reference_of(self))

    def occupied_layers(self, facts: Facts, part: str) -> frozenset[int]:
        if self.method is None:
            return frozenset(range(facts.layers_by_part[part]))
        sites = [site for site in self.method.sites(facts) if site.part == part]
        return frozenset(site.layer for site in sites if site.layer is not None)

    def drawing_label(self, slot: str | None = None) -> str:
        """`= lang/sw` for a loaded adapter, `+ ner bottleneck(reduction=8)` for a new one."""
        if not self.is_new:
            return f"= {self.ref}"
        call = str(self.method)
        is_named = self.name not in (slot, call, call.removesuffix("()"), "")
        return f"+ {self.name} {call}" if is_named else f"+ {call}"

    def __str__(self) -> str:
        return str(self.method) if self.ref is None else str(self.ref)


@dataclass(frozen=True)
class Published(Block):
    """A reference to a published composition, which means the expression of that composition.

    `head` is set if the composition has its head in a folder of its own. `slots` are the named
    slots of the published composition, and `refills` are what `swap` has put into them; `body`
    contains the refills already.
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
    def default_head(self) -> Head | None:
        return self.body.default_head if self.head is None else self.head.head

    @property
    def pins(self) -> dict[str, Pin]:
        return {str(self.ref): self.pin} if self.pin else {}

    def pinned(self, reference_of: Callable[[WeightedPart], Ref]) -> Block:
        return self.body  # every part inside is pinned

    @property
    def stage_texts(self) -> tuple[str, ...]:
        swapped = (f"swap({', '.join(map(str, self.refills))})",) if self.refills else ()
        return (str(self.ref), *swapped)

    def __str__(self) -> str:
        return " | ".join(self.stage_texts)


@dataclass(frozen=True)
class Slot:
    """A member of an operator: a block with an optional name and an optional weight."""

    name: str | None
    block: Block
    weight: float | None = None

    def __str__(self) -> str:
        name = f"{self.name}=" if self.name else ""
        if self.weight is None:
            return f"{name}{self.block}"
        # in `a | b:0.3` the weight would seem to belong to b alone
        block = f"({self.block})" if len(self.block.stage_texts) > 1 else str(self.block)
        return f"{name}{block}:{format_value(self.weight)}"


def make_chain(members: list[Primitive | None], *, backwards: bool = False) -> Primitive | None:
    """Chain the members that are not None; None if there are none."""
    present = [member for member in members if member is not None]
    if not present:
        return None
    ordered = tuple(reversed(present)) if backwards else tuple(present)
    return ordered[0] if len(ordered) == 1 else Chain(ordered)


def walk(block: Block) -> Iterator[Block]:
    """Yield a block and all blocks inside it, outermost first."""
    yield block
    for child in block.inner():
        yield from walk(child)


def adapters_of(block: Block) -> dict[str, Adapter]:
    """The adapters of a graph by name, in the order in which they are written."""
    return {leaf.name: leaf for leaf in walk(block) if isinstance(leaf, Adapter)}


def adapters_with_heads(block: Block) -> dict[str, Adapter]:
    """The adapters that bring a head, and the separate heads of published compositions, by name."""
    owners = {name: leaf for name, leaf in adapters_of(block).items() if leaf.head is not None}
    for inner in walk(block):
        if isinstance(inner, Published) and inner.head is not None:
            owners[inner.head.name] = inner.head
    return owners


def has_known_methods(block: Block) -> bool:
    """True if the methods of all adapters are known, so that `Block.at` can be called."""
    leaves = [inner for inner in walk(block) if isinstance(inner, Adapter)]
    return all(leaf.method is not None for leaf in leaves)


def transform(block: Block, rewrite: Callable[[Block], Block]) -> Block:
    """Apply `rewrite` to every block of a graph, innermost first."""
    children = block.inner()
    if children:
        block = block.rebuild(tuple(transform(child, rewrite) for child in children))
    return rewrite(block)


def with_blocks(slots: tuple[Slot, ...], inner: tuple[Block, ...]) -> tuple[Slot, ...]:
    """The slots with other blocks in them, one per slot."""
    return tuple(replace(slot, block=block) for slot, block in zip(slots, inner, strict=True))
