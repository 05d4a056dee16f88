"""Weights that a method computes from others are computed once, not in every forward.

Compacter's matrices are sums of Kronecker products, a prefix may come out of a small network: the
literal program computes them in every forward. Marked here, they are a cache over the stored
tensors, which an in-place change of any of them rebuilds. While something stored is being learned
they are computed as before, so that every stored tensor has its gradient.

Condition: the weights of the primitive are computed from other weights. Law: exact, bit for bit.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from adaptcompose.backbones.layout import Site
from adaptcompose.compiler.passes.pass_log import PassLog
from adaptcompose.ir.primitives import ParametricPrimitive, Primitive, rewrite
from adaptcompose.ir.program import Program


def materialise(program: Program, log: PassLog) -> Program:
    """Mark every primitive whose weights are computed."""

    def mark(site: Site, node: Primitive) -> Primitive:
        if not isinstance(node, ParametricPrimitive) or node.parameter_source != "computed":
            return node
        log.record_applied(site)
        return replace(node, parameter_source="materialised")

    sites = {s: rewrite(node, partial(mark, s)) for s, node in program.sites.items()}
    return replace(program, sites=sites)
