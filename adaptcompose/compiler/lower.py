"""Graph to program: what stands at each site of the backbone."""

from __future__ import annotations

from collections.abc import Iterator

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.compiler.program import Leaf, Mixture, Primitive, Program
from adaptcompose.language.graph import Block
from adaptcompose.methods.invertible import EMBEDDINGS, HEAD


def lower(graph: Block, facts: Facts) -> Program:
    """The literal program: no pass has touched it."""
    order: tuple[Site, ...] = (EMBEDDINGS, *facts.sublayers(), HEAD)
    found = ((site, graph.at(site, facts)) for site in order)
    return Program(facts, {site: node for site, node in found if node is not None})


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
    if isinstance(primitive, Leaf):
        yield primitive.part, primitive.site
        for site in primitive.sources:
            yield primitive.part, site
    if isinstance(primitive, Mixture):
        yield primitive.weights.part, primitive.weights.site
    for inner in primitive.inner():
        yield from _weights(inner)
