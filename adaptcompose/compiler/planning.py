"""Making the plan of a composition: what there is of it, counted at the sites that it uses."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.compiler.lower import lower, weights_used
from adaptcompose.compiler.plan import Plan, PlanRow, backbone_sites
from adaptcompose.composition.canonical_text import format_canonical
from adaptcompose.composition.graph import Block, Head, WeightedPart, adapters_with_heads
from adaptcompose.composition.heads import (
    HEAD_TYPES_BY_TASK,
    NEW_HEAD_NAME,
    VOCABULARY_HEAD_TYPES,
    ResolvedHead,
)
from adaptcompose.composition.operators import parts_of, trainable_parts
from adaptcompose.diagnostics.codes import AC416
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.hub.lock import Pin


def make_plan(  # noqa: PLR0913
    graph: Block,
    facts: Facts,
    *,
    trained: Collection[str] | None = None,
    head: ResolvedHead = None,
    cached: Collection[str] = (),
    title: str = "",
    expression: str | None = None,
    pin: Pin | None = None,
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
    items: list[PlanRow] = []
    learned = set(trainable_parts(graph)) if trained is None else trained
    for block in parts_of(graph).values():
        learns = block.name in learned
        sites, slots = used.get(block.name, ()), places.get(block.name, ())
        items.append(_with_download(_item(block, facts, sites, slots, learns), fetched))
    if isinstance(head, Head):
        items.append(_head_item(head, graph, facts, trained))
    kind = head if isinstance(head, str) else head.head_type if head else None
    remote = pin is not None and pin.path is None and "backbone" not in fetched
    besides = {"backbone": pin.size} if pin is not None and remote else {}
    return Plan(
        expression or format_canonical(graph),
        facts,
        tuple(items),
        program,
        kind,
        title,
        pin,
        besides,
    )


def slots_of(graph: Block) -> dict[str, tuple[str, ...]]:
    """Per part the slots in which it stands: the innermost named one at each of its places."""
    found: dict[str, dict[str, None]] = {}

    def visit(block: Block, slot: str | None) -> None:
        if isinstance(block, WeightedPart) and slot:
            found.setdefault(block.name, {})[slot] = None
        for inner, inner_slot in block.inner_with_slots(slot):
            visit(inner, inner_slot)

    visit(graph, None)
    return {name: tuple(slots) for name, slots in found.items()}


def _item(
    block: WeightedPart,
    facts: Facts,
    sites: tuple[Site, ...],
    slots: tuple[str, ...],
    learns: bool,
) -> PlanRow:
    method = block.method_for(facts)
    return PlanRow(
        block.name,
        block.kind,
        block.is_new,
        learns,
        method.parameter_count_at(sites, facts),
        slots,
        block.summary,
        None if block.ref is None else str(block.ref),
        block.pin,
        block.declared_backbone,
        sites,
        None
        if block.is_new
        else Counter(site.name for site in backbone_sites(method.sites(facts))),
        frozen_parameters=method.frozen_count_at(sites, facts),
        effective_parameters=method.effective_count_at(sites, facts),
        bias_parameters=method.bias_count_at(sites, facts),
    )


def _with_download(item: PlanRow, fetched: set[str]) -> PlanRow:
    """With the bytes of its files, if no part before it brings them."""
    pin = item.pin
    if pin is None or pin.path is not None or item.name in fetched:
        return item
    place = f"{pin.repo}@{pin.revision}/{pin.subfolder}"
    if place in fetched:
        return item
    fetched.add(place)
    return replace(item, download_bytes=pin.size)


def _head_item(head: Head, graph: Block, facts: Facts, trained: Collection[str] | None) -> PlanRow:
    leaf = adapters_with_heads(graph).get(head.part)
    new = leaf is None or leaf.ref is None or leaf.head is None
    learns = new if trained is None else NEW_HEAD_NAME in trained
    parameters = head_parameter_count(head, facts)
    labels = f", {len(head.labels)} labels" if head.labels else ""
    call = f"{_TASKS.get(head.head_type, head.head_type.replace('_', '-'))}{labels}"
    if new or leaf is None:
        return PlanRow(head.part, "head", True, learns, parameters, call=call)
    pin = leaf.pin
    return PlanRow(
        head.part, "head", False, learns, parameters, call=call, reference=str(leaf.ref), pin=pin
    )


def head_parameter_count(head: Head, facts: Facts) -> int:
    """How many numbers a head has on this backbone."""
    if head.head_type not in _HEADS:
        help = f"use a head of one of these kinds: {', '.join(_HEADS)}"
        raise Failed(AC416.at(name=head.part, kind=head.head_type, help=help))
    maps, norms = _HEADS[head.head_type](head.config, facts)
    biased = bool(head.config.get("bias", True))
    return sum(a * b for a, b in maps) + sum(_biases(maps, biased, head.head_type)) + norms


def _biases(maps: list[tuple[int, int]], biased: bool, kind: str) -> Iterator[int]:
    """`bias: false` concerns every map of a perceptron, and only the last of a language model."""
    for number, (_, size) in enumerate(maps):
        inner = kind in VOCABULARY_HEAD_TYPES and number < len(maps) - 1
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
    **dict.fromkeys(VOCABULARY_HEAD_TYPES, _language_model),
}
_TASKS = {kind: task for task, kind in HEAD_TYPES_BY_TASK.items()}
