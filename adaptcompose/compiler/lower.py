"""Lowering: from a graph to a program, one primitive for each site of the backbone."""

from __future__ import annotations

from collections.abc import Iterator

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.composition.graph import Block
from adaptcompose.ir.fusion import Mixture
from adaptcompose.ir.primitives import ParametricPrimitive, Primitive
from adaptcompose.ir.program import Program


def lower(graph: Block, facts: Facts) -> Program:
    """The literal program of a graph, as it is before any pass."""
    nodes = ((site, graph.at(site, facts)) for site in facts.all_sites())
    sites = {site: node for site, node in nodes if node is not None}
    return Program(facts, sites, tuple(graph.branches), -1 if graph.broadcasts_batch else None)


def weights_used(program: Program) -> dict[str, tuple[Site, ...]]:
    """For each part, the sites whose weights the program reads, lowest first.

    A part under `drop` has none in the dropped layers. An invertible part and its inverse both read
    the weights at the embeddings.
    """
    used: dict[str, dict[Site, None]] = {}
    for primitive in program.sites.values():
        for part, site in _weights(primitive):
            used.setdefault(part, {})[site] = None
    return {part: tuple(sites) for part, sites in used.items()}


def _weights(primitive: Primitive) -> Iterator[tuple[str, Site]]:
    if isinstance(primitive, ParametricPrimitive) and primitive.recipe is not None:
        for leaf in primitive.recipe.members:
            yield from _weights(leaf)
    elif isinstance(primitive, ParametricPrimitive):
        yield primitive.part, primitive.site
        for site in primitive.source_sites:
            yield primitive.part, site
    if isinstance(primitive, Mixture):
        yield primitive.attention.part, primitive.attention.site
    for inner in primitive.inner():
        yield from _weights(inner)
