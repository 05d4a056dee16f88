"""Compositions side by side run as one up to the first place in which they differ.

Literally, `parallel` repeats the batch in front of the embeddings, once per branch. As long as all
branches have the same primitives with the same weights, their states are the same: the batch needs
to be repeated only in front of the first layer in which they differ; inside of it, at the first
site, if they differ behind sub-layers only: their residual goes through the site.

Condition: the branches have the same embeddings and virtual tokens. Law: exact.
"""

from __future__ import annotations

from dataclasses import replace

from adaptcompose.backbones.layout import Site
from adaptcompose.compiler.passes.pass_log import PassLog
from adaptcompose.ir.primitives import Primitive, Rows
from adaptcompose.ir.program import Program


def share_trunk(program: Program, log: PassLog) -> Program:
    """Move the fan up to where it is needed."""
    if program.branch_layer is None:
        return program
    if len(program.facts.layers_by_part) > 1:
        log.record_declined(
            None, "the states of an encoder-decoder are read in more than one stack"
        )
        return program
    last = program.facts.layers
    places = program.facts.layout.sites
    inner = [site for site in program.sites if not places[site.name].is_outside_base]
    differing = [site for site in inner if program.branches_differ_at(site)]
    fan = min(map(_level, differing), default=last)
    if fan <= program.branch_layer:
        log.record_declined(None, "the branches differ at the embeddings")
        return program
    log.record_applied()
    sites: dict[Site, Primitive] = {}
    for site, node in program.sites.items():
        same = isinstance(node, Rows) and not program.branches_differ_at(site) and site in inner
        sites[site] = node.inner()[0] if same else node
    firsts = [places[site.name] for site in differing if _level(site) == fan]
    inside = bool(firsts) and all(place.kind == "sublayer" for place in firsts)
    return replace(program, sites=sites, branch_layer=fan, branch_inside_layer=inside)


def _level(site: Site) -> int:
    """The layer, −1 at the embeddings."""
    return -1 if site.layer is None else site.layer
