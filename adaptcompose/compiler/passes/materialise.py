"""Weights that a method computes from others are computed once, not in every forward.

Compacter's matrices are sums of Kronecker products, a prefix may come out of a small network: the
literal program computes them in every forward. Marked here, they are a cache over the stored
tensors, which an in-place change of any of them rebuilds. While something stored is being learned
they are computed as before, so that every stored tensor has its gradient.

Condition: the primitive's weights are computed. Law: exact, bit for bit.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from adaptcompose.backbones.layout import Site
from adaptcompose.compiler.passes.log import Log
from adaptcompose.ir.primitives import Leaf, Primitive, rewrite
from adaptcompose.ir.program import Program


def materialise(program: Program, log: Log) -> Program:
    """Mark every primitive whose weights are computed."""

    def mark(site: Site, node: Primitive) -> Primitive:
        if not isinstance(node, Leaf) or node.form != "computed":
            return node
        log.fired(site)
        return replace(node, form="materialised")

    sites = {s: rewrite(node, partial(mark, s)) for s, node in program.sites.items()}
    return replace(program, sites=sites)
