"""Graph to program: what stands at each site of the backbone."""

from __future__ import annotations

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.compiler.program import Program
from adaptcompose.language.graph import Block
from adaptcompose.methods.invertible import EMBEDDINGS, HEAD


def lower(graph: Block, facts: Facts) -> Program:
    """The literal program: no pass has touched it."""
    order: tuple[Site, ...] = (EMBEDDINGS, *facts.sublayers(), HEAD)
    found = ((site, graph.at(site, facts)) for site in order)
    return Program(facts, {site: node for site, node in found if node is not None})
