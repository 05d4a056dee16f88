"""Graph to program: what stands at each site of the backbone."""

from __future__ import annotations

from collections.abc import Iterator

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.composition.graph import Block
from adaptcompose.ir.primitives import Leaf, Mixture, Primitive
from adaptcompose.ir.program import Program


def lower(graph: Block, facts: Facts) -> Program:
    """The literal program: no pass has touched it."""
    found = ((site, graph.at(site, facts)) for site in facts.every_site())
    sites = {site: node for site, node in found if node is not None}
    return Program(facts, sites, tuple(graph.branches), -1 if graph.fans else None)


def weights_used(program: Program) -> dict[str, tuple[Site, ...]]:
    """Per part the sites whose weights the program reads, lowest first.

    A part under `drop` has none in the dropped layers; an invertible part and its inverse share
    theirs at the embeddings.
    """
    used: dict[str, dict[Site, None]] = {}
    for primitive in program.sites.values():
        for part, site in _weights(primitive):
            used.setdefault(part, {})[site] = None
    return {part: tuple(sites) for part, sites in used.items()}


def _weights(primitive: Primitive) -> Iterator[tuple[str, Site]]:
    if isinstance(primitive, Leaf) and primitive.recipe is not None:
        for leaf in primitive.recipe.leaves:
            yield from _weights(leaf)
    elif isinstance(primitive, Leaf):
        yield primitive.part, primitive.site
        for site in primitive.sources:
            yield primitive.part, site
    if isinstance(primitive, Mixture):
        yield primitive.weights.part, primitive.weights.site
    for inner in primitive.inner():
        yield from _weights(inner)
