"""Texts that all drawings share: notes about layers, modifiers and invertible parts."""

from __future__ import annotations

from collections.abc import Iterator

from adaptcompose.backbones.layout import Facts
from adaptcompose.composition.graph import Adapter, Block, adapters_of
from adaptcompose.composition.operator import Modifier
from adaptcompose.composition.operators import LayerFilter
from adaptcompose.methods.invertible import EMBEDDINGS_SITE
from adaptcompose.syntax.signature import format_ranges


def modifier_note(block: Modifier, facts: Facts | None) -> str:
    """The note on a chain of modifiers: the layers that it leaves, if it only selects layers.

    Otherwise, and without `facts`, the note is the source of the modifiers.
    """
    chain = list(_modifiers(block))
    filters = [modifier for modifier in chain if isinstance(modifier, LayerFilter)]
    if facts is None or len(filters) < len(chain):
        return " | ".join(modifier.stage_texts[-1] for modifier in chain)
    texts = {}
    for part, depth in facts.layers_by_part.items():
        active = (layer_filter.active_layers(facts, part) for layer_filter in filters)
        left = frozenset(range(depth)).intersection(*active)
        texts[part] = format_ranges(sorted(left)) or "none"
    if len(set(texts.values())) == 1:
        return f"layers {texts.popitem()[1]}"
    return ", ".join(f"{part} layers {numbers}" for part, numbers in texts.items())


def other_modifiers(graph: Block) -> list[str]:
    """The source of the modifiers around a graph that do not select layers, from left to right."""
    return [m.stage_texts[-1] for m in _modifiers(graph) if not isinstance(m, LayerFilter)]


def strip_modifiers(block: Block) -> Block:
    """The block inside a chain of modifiers."""
    while isinstance(block, Modifier):
        block = block.body
    return block


def _modifiers(block: Block) -> list[Modifier]:
    """The modifiers around a block, from left to right as they are written."""
    chain: list[Modifier] = []
    while isinstance(block, Modifier):
        chain.insert(0, block)
        block = block.body
    return chain


def invertible_adapters(graph: Block, facts: Facts | None) -> list[Adapter]:
    """The adapters with an invertible part at the embeddings; empty without `facts`."""
    if facts is None:
        return []
    known = [leaf for leaf in adapters_of(graph).values() if leaf.method is not None]
    return [leaf for leaf in known if leaf.at(EMBEDDINGS_SITE, facts) is not None]


def layer_usage(graph: Block, facts: Facts) -> Iterator[tuple[str, bool]]:
    """Yield `layers 5..11`, or `encoder layers 5..11`, and whether the graph computes there."""
    for part, depth in facts.layers_by_part.items():
        occupied = graph.occupied_layers(facts, part)
        unused = frozenset(range(depth)) - occupied
        for layers, is_used in ((occupied, True), (unused, False)):
            if layers:
                yield f"{part} layers {format_ranges(sorted(layers))}".strip(), is_used


def usage_note(graph: Block, facts: Facts) -> str:
    """The note on a whole graph: its layers, and its modifiers that do not select layers."""
    layers = (
        text if used else f"{text}: backbone only" for text, used in layer_usage(graph, facts)
    )
    return "; ".join([*layers, *other_modifiers(graph)])


def elide_middle(text: str, width: int) -> str:
    """Shorten a text to `width` characters by replacing its middle with `…`.

    >>> elide_middle("= glue/mnli", 8), elide_middle("= sw", 8)
    ('= gl…nli', '= sw')
    """
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return text[: width - 1 - tail] + "…" + text[len(text) - tail :]
