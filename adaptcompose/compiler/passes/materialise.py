"""Weights that a method computes from others are computed once, not in every forward.

Compacter's matrices are sums of Kronecker products, and a small network can make the vectors of a
prefix. The literal program computes both in every forward. This pass marks them: their weights are
cached, and computed again after an in-place change of a stored tensor that they depend on. While a
stored tensor is being trained, they are computed in every forward, so that it gets its gradient.

>>> from adaptcompose.compiler.passes.example import lower_example
>>> print(program := lower_example("prefix(length=2, hidden=4)"))
attn.kv of layer 0
  prefix prefix 2 × 2·4 computed
>>> print(materialise(program, PassLog()))
attn.kv of layer 0
  prefix prefix 2 × 2·4 materialised

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
