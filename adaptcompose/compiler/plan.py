"""What a run would create, load, fetch and train: known before a weight moves.

Counting: the backbone as AutoModel(config) builds it, pooler included; every part at the sites
where the composition uses it; the head. Nothing here imports torch.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.compiler.lower import lower, weights_used
from adaptcompose.compiler.passes import stages
from adaptcompose.compiler.trunk import Trunk
from adaptcompose.composition.canonical import canonical
from adaptcompose.composition.graph import (
    Adapter,
    Block,
    Head,
    carriers,
)
from adaptcompose.composition.heads import (
    KINDS,
    NEW,
    VOCABULARIES,
    Chosen,
)
from adaptcompose.composition.operators import (
    Fuse,
    Stack,
    learning,
    parts_of,
)
from adaptcompose.diagnostics.codes import AC416
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.hub.lock import Locked
from adaptcompose.ir.program import Program
from adaptcompose.methods.method import SHARED


@dataclass(frozen=True)
class Item:
    """One line of a plan: an adapter, a fusion, or the head.

    `sites` are those that the composition uses, `owned` how many of a name the part has in all;
    `parameters` are counted at `sites`. `call` is how a new part is written, `pin` where a loaded
    one lies, and `size` the bytes of its files that are not on this machine yet. `fixed` of the
    parameters stay as they are, in training too. `lowered` are left where the networks that make
    prefixes and prompts have run; `biases` of the parameters are biases.
    """

    name: str
    kind: Literal["adapter", "fusion", "head"]
    new: bool
    trained: bool
    parameters: int
    slots: tuple[str, ...] = ()
    call: str = ""
    reference: str | None = None
    pin: Locked | None = None
    base: str | None = None
    sites: tuple[Site, ...] = ()
    owned: Mapping[str, int] | None = None
    size: int = 0
    fixed: int = 0
    lowered: int = 0
    biases: int = 0

    @property
    def mark(self) -> str:
        return "+" if self.new else "="

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers in which it stands."""
        return tuple(sorted({site.layer for site in self.sites if site.layer is not None}))

    def layers_of(self, part: str) -> frozenset[int]:
        """The layers of a part of the backbone in which it stands."""
        here = [site for site in self.sites if site.part == part]
        return frozenset(site.layer for site in here if site.layer is not None)

    @property
    def embedded(self) -> bool:
        """Whether it has a part at the embeddings."""
        return any(site.layer is None for site in places(self.sites))

    @property
    def counts(self) -> dict[str, int]:
        """How many sites of each name it uses, those in layers first."""
        ordered = sorted(places(self.sites), key=lambda site: site.layer is None)
        return dict(Counter(site.name for site in ordered))

    def as_dict(self) -> dict[str, Any]:
        record: dict[str, Any] = {"name": self.name, "kind": self.kind, "mark": self.mark}
        record |= {"slots": list(self.slots), "trained": self.trained}
        record |= {"parameters": self.parameters, "sites": self.counts, "layers": list(self.layers)}
        if self.kind == "adapter" and self.lowered != self.parameters:
            record["lowered"] = self.lowered
        if self.new:
            return record | {"method": self.call}
        record |= {"method": self.call, "reference": self.reference, "unused": self.unused()}
        return record | {"pin": _plain(self.pin), "base": self.base, "fetch": self.size}

    def unused(self) -> dict[str, int]:
        """Sites of the part that the composition leaves out, by name."""
        counts = self.counts
        left = {name: owned - counts.get(name, 0) for name, owned in (self.owned or {}).items()}
        return {name: number for name, number in left.items() if number}


@dataclass(frozen=True)
class Plan:
    """Everything that a run would do. `pin` is the backbone's.

    `besides` are the bytes to fetch of what is no part: backbone, tokenizer, data. `trunk` are the
    layers that are computed once per example, where the training asks for that.
    """

    expression: str
    facts: Facts
    items: tuple[Item, ...]
    program: Program
    head: str | None = None
    title: str = ""
    pin: Locked | None = None
    besides: Mapping[str, int] = field(default_factory=dict)
    trunk: Trunk | None = None

    @property
    def backbone(self) -> int:
        return self.facts.parameters

    @property
    def total(self) -> int:
        return self.backbone + sum(item.parameters for item in self.items)

    @property
    def trained(self) -> int:
        return sum(item.parameters - item.fixed for item in self.items if item.trained)

    @property
    def convention(self) -> str:
        """What is counted; papers differ in it."""
        biases = sum(item.biases for item in self.items)
        more = f", with {biases:,} biases" if biases else ""
        return f"backbone as AutoModel builds it, with pooler; parts as used{more}; head"

    @property
    def create(self) -> int:
        return sum(item.new for item in self.items)

    @property
    def load(self) -> int:
        """How many adapters and fusions are read; a head comes with its adapter."""
        return sum(not item.new and item.kind != "head" for item in self.items)

    @property
    def fetch(self) -> int:
        """Bytes that are not on this machine yet."""
        return sum(self.besides.values()) + sum(item.size for item in self.items)

    def declined(self) -> dict[str, list[str]]:
        """Per pass what it leaves alone in the program, and why."""
        return {name: found for name, _, log in stages(self.program) if (found := [*log.reasons()])}

    def unrecorded(self) -> tuple[str, ...]:
        """Loaded parts of which nobody says by name on which backbone they were trained."""
        loaded = [item for item in self.items if item.pin is not None and item.kind != "head"]
        return tuple(i.name for i in loaded if i.base is None or self.facts.name is None)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        parts = {item.name: item.parameters for item in self.items if item.kind != "head"}
        head = sum(item.parameters for item in self.items if item.kind == "head")
        facts = self.facts
        backbone: dict[str, Any] = {"name": facts.name, "type": facts.type, "layers": facts.layers}
        backbone |= {"width": facts.width, "pin": _plain(self.pin)}
        return {
            "title": self.title,
            "expression": self.expression,
            "backbone": backbone,
            "items": [item.as_dict() for item in self.items],
            "head": self.head,
            "create": self.create,
            "load": self.load,
            "fetch": self.fetch,
            "declined": self.declined(),
            "parameters": {
                "trained": self.trained,
                "total": self.total,
                "backbone": self.backbone,
                "parts": parts,
                "head": head,
                "counted": self.convention,
            },
        }

    def __str__(self) -> str:
        from adaptcompose.compiler.plan_text import text

        return text(self)


def make_plan(  # noqa: PLR0913
    graph: Block,
    facts: Facts,
    *,
    trained: Collection[str] | None = None,
    head: Chosen = None,
    cached: Collection[str] = (),
    title: str = "",
    expression: str | None = None,
    pin: Locked | None = None,
) -> Plan:
    """The plan of a checked and locked graph.

    `trained` are names of parts, and `head`; without it what is new is trained. `cached` are the
    parts whose files are here already, `backbone` among them; `pin` is the backbone's.
    `expression` is what the user wrote, where it is shorter than the graph.
    """
    program = lower(graph, facts)
    used = weights_used(program)
    places = slots_of(graph)
    fetched: set[str] = set(cached)
    items: list[Item] = []
    learned = set(learning(graph)) if trained is None else trained
    for block in parts_of(graph).values():
        learns = block.name in learned
        sites, slots = used.get(block.name, ()), places.get(block.name, ())
        items.append(_fetched_once(_item(block, facts, sites, slots, learns), fetched))
    if isinstance(head, Head):
        items.append(_head_item(head, graph, facts, trained))
    kind = head if isinstance(head, str) else head.kind if head else None
    remote = pin is not None and pin.path is None and "backbone" not in fetched
    besides = {"backbone": pin.size} if pin is not None and remote else {}
    return Plan(
        expression or canonical(graph), facts, tuple(items), program, kind, title, pin, besides
    )


def places(sites: Iterable[Site]) -> Iterator[Site]:
    """The sites that are places of the backbone; shared tensors have none."""
    return (site for site in sites if site.name != SHARED.name)


def slots_of(graph: Block) -> dict[str, tuple[str, ...]]:
    """Per part the slots in which it stands: the innermost named one at each of its places."""
    found: dict[str, dict[str, None]] = {}

    def visit(block: Block, slot: str | None) -> None:
        if isinstance(block, Adapter | Fuse) and slot:
            found.setdefault(block.name, {})[slot] = None
        if isinstance(block, Stack):
            for member in block.members:
                visit(member.block, member.name or slot)
        else:
            for inner in block.inner():
                visit(inner, None if isinstance(block, Fuse) else slot)

    visit(graph, None)
    return {name: tuple(slots) for name, slots in found.items()}


def _item(
    block: Adapter | Fuse,
    facts: Facts,
    sites: tuple[Site, ...],
    slots: tuple[str, ...],
    learns: bool,
) -> Item:
    method = block.fusion(facts) if isinstance(block, Fuse) else block.method
    assert method is not None, f"{block} is not locked"
    call = f"fusion of {len(block.members)}" if isinstance(block, Fuse) else str(method)
    return Item(
        block.name,
        "fusion" if isinstance(block, Fuse) else "adapter",
        block.new,
        learns,
        method.parameters_at(sites, facts),
        slots,
        call,
        None if block.ref is None else str(block.ref),
        block.pin,
        block.base if isinstance(block, Adapter) else None,
        sites,
        None if block.new else Counter(site.name for site in places(method.sites(facts))),
        fixed=method.fixed_at(sites, facts),
        lowered=method.lowered_at(sites, facts),
        biases=method.biases_at(sites, facts),
    )


def _fetched_once(item: Item, fetched: set[str]) -> Item:
    """With the bytes of its files, if no part before it brings them."""
    pin = item.pin
    if pin is None or pin.path is not None or item.name in fetched:
        return item
    place = f"{pin.repo}@{pin.revision}/{pin.subfolder}"
    if place in fetched:
        return item
    fetched.add(place)
    return replace(item, size=pin.size)


def _head_item(head: Head, graph: Block, facts: Facts, trained: Collection[str] | None) -> Item:
    leaf = carriers(graph).get(head.part)
    new = leaf is None or leaf.ref is None or leaf.head is None
    learns = new if trained is None else NEW in trained
    parameters = head_parameters(head, facts)
    labels = f", {len(head.labels)} labels" if head.labels else ""
    call = f"{_TASKS.get(head.kind, head.kind.replace('_', '-'))}{labels}"
    if new or leaf is None:
        return Item(head.part, "head", True, learns, parameters, call=call)
    pin = leaf.pin
    return Item(
        head.part, "head", False, learns, parameters, call=call, reference=str(leaf.ref), pin=pin
    )


def head_parameters(head: Head, facts: Facts) -> int:
    """How many numbers a head has on this backbone."""
    if head.kind not in _HEADS:
        known = ", ".join(_HEADS)
        raise Failed(AC416.at(name=head.part, kind=head.kind, help=f"adaptcompose runs: {known}"))
    maps, norms = _HEADS[head.kind](head.config, facts)
    biased = bool(head.config.get("bias", True))
    return sum(a * b for a, b in maps) + sum(_biases(maps, biased, head.kind)) + norms


def _biases(maps: list[tuple[int, int]], biased: bool, kind: str) -> Iterator[int]:
    """`bias: false` concerns every map of a perceptron, and only the last of a language model."""
    for number, (_, size) in enumerate(maps):
        inner = kind in VOCABULARIES and number < len(maps) - 1
        if biased or inner:
            yield size


def _perceptron(config: Mapping[str, Any], facts: Facts) -> tuple[list[tuple[int, int]], int]:
    inner = int(config.get("layers", 1)) - 1
    return [(facts.width, facts.width)] * inner + [(facts.width, int(config["num_labels"]))], 0


def _choice(config: Mapping[str, Any], facts: Facts) -> tuple[list[tuple[int, int]], int]:
    return _perceptron({**config, "num_labels": 1}, facts)


def _language_model(config: Mapping[str, Any], facts: Facts) -> tuple[list[tuple[int, int]], int]:
    widths = [facts.width, *[facts.embedding] * (int(config.get("layers", 1)) - 1)]
    widths.append(int(config.get("vocab_size") or facts.config["vocab_size"]))
    norms = 2 * facts.embedding * (len(widths) - 2) if config.get("layer_norm") else 0
    return list(itertools.pairwise(widths)), norms


_HEADS = {
    "classification": _perceptron,
    "tagging": _perceptron,
    "question_answering": _perceptron,
    "multiple_choice": _choice,
    **dict.fromkeys(VOCABULARIES, _language_model),
}
_TASKS = {kind: task for task, kind in KINDS.items()}


def _plain(pin: Locked | None) -> dict[str, Any] | None:
    if pin is None:
        return None
    if pin.path is not None:
        return {"path": pin.path}
    plain = {"repo": pin.repo, "revision": pin.revision}
    return plain | ({"subfolder": pin.subfolder} if pin.subfolder else {})
