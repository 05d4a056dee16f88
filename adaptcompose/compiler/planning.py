"""Making the plan of a composition: what there is of it, counted at the sites that it uses."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.compiler.lower import lower, weights_used
from adaptcompose.compiler.plan import Item, Plan, places
from adaptcompose.composition.canonical import canonical
from adaptcompose.composition.graph import Adapter, Block, Head, carriers
from adaptcompose.composition.heads import KINDS, NEW, VOCABULARIES, Chosen
from adaptcompose.composition.operators import Fuse, Stack, learning, parts_of
from adaptcompose.diagnostics.codes import AC416
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.hub.lock import Locked


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
