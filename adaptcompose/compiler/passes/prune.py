"""What does nothing goes.

- nothing stands at a site of a dropped layer (lowering leaves it out already);
- a chain gives up the chains inside it, and a chain of one is its member;
- in a chain, an adapter whose contribution is multiplied by 0 goes;
- branches of weight 0 leave a mean, and a mean of one branch is that branch.

Condition: it adds nothing, whatever the input. Law: exact, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from adaptcompose.compiler.passes.log import Log
from adaptcompose.ir.mixing import Mean
from adaptcompose.ir.primitives import Bottleneck, Chain, Mixture, Primitive
from adaptcompose.ir.program import Program

Declined = Callable[[str], None]


def prune(program: Program, log: Log) -> Program:
    """Take out what adds nothing."""
    sites = {}
    for site, node in program.sites.items():
        left = _prune(node, partial(log.declined, site))
        if not _still(left):
            sites[site] = left
        if left != node or site not in sites:
            log.fired(site)
    return replace(program, sites=sites)


def _prune(node: Primitive, declined: Declined, *, fused: bool = False) -> Primitive:
    if isinstance(node, Chain):
        return _chain(node, declined, fused)
    if inner := node.inner():
        below = fused or isinstance(node, Mixture)
        node = node.rebuild(tuple(_prune(child, declined, fused=below) for child in inner))
    return _mean(node, declined, fused) if isinstance(node, Mean) else node


def _mean(node: Mean, declined: Declined, fused: bool) -> Primitive:
    left = [(b, w) for b, w in zip(node.branches, node.weights, strict=True) if w]
    if not left:
        return node
    branches, weights = zip(*left, strict=True)
    short: Primitive = Mean(branches, weights, node.still)
    if weights == (1.0,) and not node.still:
        short = branches[0]
    if fused and _entry(short) != _entry(node):
        declined("the fusion around it reads and adds where a branch of weight 0 does")
        return node
    return short


def _still(node: Primitive) -> bool:
    """A mean of nothing but h."""
    return isinstance(node, Mean) and not any(node.weights)


def _chain(node: Chain, declined: Declined, fused: bool) -> Primitive:
    flat: list[Primitive] = []
    for member in node.members:
        kept = _prune(member, declined, fused=fused)
        flat += kept.members if isinstance(kept, Chain) else (kept,)
    left = [member for member in flat[:-1] if not _idle(member)] + flat[-1:]
    if fused and _entry(left[0]) != _entry(flat[0]):
        declined("the fusion around it reads and adds where an adapter multiplied by 0 does")
        left = [flat[0], *left]
    for member in left:
        if isinstance(member, Bottleneck) and member.scale == 0.0 and (why := _at_work(member)):
            declined(why)
    return left[0] if len(left) == 1 else Chain(tuple(left))


def _entry(node: Primitive) -> tuple[str, str]:
    return node.placement.reads, node.placement.residual


def _idle(node: Primitive) -> bool:
    """A bottleneck that adds nothing to h, so that the next one sees what it would have seen."""
    if _still(node):
        return True
    return isinstance(node, Bottleneck) and node.scale == 0.0 and not _at_work(node)


def _at_work(node: Bottleneck) -> str | None:
    """What changes h even where the contribution is multiplied by 0."""
    if node.norm_after:
        return f"`{node.part}` is multiplied by 0, but its own LayerNorm works on"
    if node.placement.residual != "output":
        return f"`{node.part}` is multiplied by 0, but moves the residual"
    return None
