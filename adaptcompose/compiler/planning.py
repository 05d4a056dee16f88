"""Making plans: the parts of a composition, counted at the sites at which it uses them."""

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

    `trained` are the names of the trained parts, and `head` if the head is trained; without it, new
    parts are trained. `cached` are the names of the parts whose files are on this machine already,
    and `backbone` if it is. `pin` is that of the backbone. `expression` is the text that the plan
    prints, by default the canonical text of the graph.
    """
    program = lower(graph, facts)
    used = weights_used(program)
    slots_by_part = slots_of(graph)
    fetched: set[str] = set(cached)
    rows: list[PlanRow] = []
    trained_parts = set(trainable_parts(graph)) if trained is None else trained
    for block in parts_of(graph).values():
        is_trained = block.name in trained_parts
        sites, slots = used.get(block.name, ()), slots_by_part.get(block.name, ())
        rows.append(_with_download(_row(block, facts, sites, slots, is_trained), fetched))
    if isinstance(head, Head):
        rows.append(_head_row(head, graph, facts, trained))
    kind = head if isinstance(head, str) else head.head_type if head else None
    is_remote = pin is not None and pin.path is None and "backbone" not in fetched
    other_downloads = {"backbone": pin.size} if pin is not None and is_remote else {}
    return Plan(
        expression or format_canonical(graph),
        facts,
        tuple(rows),
        program,
        kind,
        title,
        pin,
        other_downloads,
    )


def slots_of(graph: Block) -> dict[str, tuple[str, ...]]:
    """For each part, the slots that contain it: the innermost named one wherever it is used."""
    slots_by_part: dict[str, dict[str, None]] = {}

    def visit(block: Block, slot: str | None) -> None:
        if isinstance(block, WeightedPart) and slot:
            slots_by_part.setdefault(block.name, {})[slot] = None
        for inner, inner_slot in block.inner_with_slots(slot):
            visit(inner, inner_slot)

    visit(graph, None)
    return {name: tuple(slots) for name, slots in slots_by_part.items()}


def _row(
    block: WeightedPart,
    facts: Facts,
    sites: tuple[Site, ...],
    slots: tuple[str, ...],
    is_trained: bool,
) -> PlanRow:
    method = block.method_for(facts)
    return PlanRow(
        block.name,
        block.kind,
        block.is_new,
        is_trained,
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
    """A row with the bytes of its files, unless a part before it has the same files."""
    pin = item.pin
    if pin is None or pin.path is not None or item.name in fetched:
        return item
    place = f"{pin.repo}@{pin.revision}/{pin.subfolder}"
    if place in fetched:
        return item
    fetched.add(place)
    return replace(item, download_bytes=pin.size)


def _head_row(head: Head, graph: Block, facts: Facts, trained: Collection[str] | None) -> PlanRow:
    leaf = adapters_with_heads(graph).get(head.part)
    new = leaf is None or leaf.ref is None or leaf.head is None
    is_trained = new if trained is None else NEW_HEAD_NAME in trained
    parameters = head_parameter_count(head, facts)
    labels = f", {len(head.labels)} labels" if head.labels else ""
    call = f"{_TASKS.get(head.head_type, head.head_type.replace('_', '-'))}{labels}"
    if new or leaf is None:
        return PlanRow(head.part, "head", True, is_trained, parameters, call=call)
    pin = leaf.pin
    return PlanRow(
        head.part,
        "head",
        False,
        is_trained,
        parameters,
        call=call,
        reference=str(leaf.ref),
        pin=pin,
    )


def head_parameter_count(head: Head, facts: Facts) -> int:
    """The number of parameters of a head on this backbone; AC416 for a kind that is unknown."""
    if head.head_type not in _HEADS:
        help = f"use a head of one of these kinds: {', '.join(_HEADS)}"
        raise Failed(AC416.at(name=head.part, kind=head.head_type, help=help))
    maps, norms = _HEADS[head.head_type](head.config, facts)
    biased = bool(head.config.get("bias", True))
    return sum(a * b for a, b in maps) + sum(_biases(maps, biased, head.head_type)) + norms


def _biases(maps: list[tuple[int, int]], biased: bool, kind: str) -> Iterator[int]:
    """The sizes of the biases.

    With `bias: false`, no map of a perceptron has one, and in a language model the last has none.
    """
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
