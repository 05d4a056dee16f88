"""Compositions side by side run as one up to the first place in which they differ.

The literal form of `parallel` repeats the batch in front of the embeddings, once per branch. As
long as all branches have the same primitives with the same weights, their states are equal, so the
batch needs to be repeated only in front of the first layer in which they differ. If that layer
differs only after a sub-layer, the batch is repeated inside the layer, at that site.

>>> from adaptcompose.compiler.passes.example import lower_example
>>> text = "let a = pfeiffer(reduction=2); parallel(x=a, y=a | keep(layers=0))"
>>> print(program := lower_example(text, layers=2))
2x the batch from the embeddings on
ffn.out of layer 0
  rows of 2
    x:
      bottleneck a 8→4→8 relu  h + u(LN(h+x))
    y:
      bottleneck a 8→4→8 relu  h + u(LN(h+x))
ffn.out of layer 1
  rows of 2
    x:
      bottleneck a 8→4→8 relu  h + u(LN(h+x))
    y: backbone
h: output of the sub-layer, x: its input, LN: the backbone's norm, u: the contribution
>>> print(share_trunk(program, PassLog()))
2x the batch from ffn.out of layer 1 on
ffn.out of layer 0
  bottleneck a 8→4→8 relu  h + u(LN(h+x))
ffn.out of layer 1
  rows of 2
    x:
      bottleneck a 8→4→8 relu  h + u(LN(h+x))
    y: backbone
h: output of the sub-layer, x: its input, LN: the backbone's norm, u: the contribution

Condition: the branches have the same embeddings and virtual tokens. Law: exact.
"""

from __future__ import annotations

from dataclasses import replace

from adaptcompose.backbones.layout import Site
from adaptcompose.compiler.passes.pass_log import PassLog
from adaptcompose.ir.primitives import Primitive, Rows
from adaptcompose.ir.program import Program


def share_trunk(program: Program, log: PassLog) -> Program:
    """Move the place at which the batch is repeated up to where the branches differ."""
    if program.branch_layer is None:
        return program
    if len(program.facts.layers_by_part) > 1:
        log.record_declined(
            None, "the states of an encoder-decoder are read in more than one stack"
        )
        return program
    top = program.facts.layers
    paths = program.facts.layout.sites
    inner = [site for site in program.sites if not paths[site.name].is_outside_base]
    differing = [site for site in inner if program.branches_differ_at(site)]
    branch_layer = min(map(_level, differing), default=top)
    if branch_layer <= program.branch_layer:
        log.record_declined(None, "the branches differ at the embeddings")
        return program
    log.record_applied()
    sites: dict[Site, Primitive] = {}
    for site, node in program.sites.items():
        same = isinstance(node, Rows) and not program.branches_differ_at(site) and site in inner
        sites[site] = node.inner()[0] if same else node
    lowest = [paths[site.name] for site in differing if _level(site) == branch_layer]
    inside = bool(lowest) and all(path.kind == "sublayer" for path in lowest)
    return replace(program, sites=sites, branch_layer=branch_layer, branch_inside_layer=inside)


def _level(site: Site) -> int:
    """The number of a site's layer; −1 at the embeddings."""
    return -1 if site.layer is None else site.layer
