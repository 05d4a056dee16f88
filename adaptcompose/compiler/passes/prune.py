"""What does nothing goes.

- nothing stands at a site of a dropped layer (lowering leaves it out already);
- a chain gives up the chains inside it, and a chain of one is its member;
- in a chain, an adapter whose contribution is multiplied by 0 goes;
- branches of weight 0 leave a mean, and a mean of one branch is that branch.

Condition: it adds nothing, whatever the input. Law: exact, up to rounding.
"""

from __future__ import annotations

from dataclasses import replace

from adaptcompose.compiler.combination import Mean
from adaptcompose.compiler.passes.log import Log
from adaptcompose.compiler.program import Bottleneck, Chain, Mixture, Primitive, Program


def prune(program: Program, log: Log) -> Program:
    """Take out what adds nothing."""
    sites = {}
    for site, node in program.sites.items():
        left = _prune(node)
        if not _still(left):
            sites[site] = left
        if left != node or site not in sites:
            log.fired(site)
    return replace(program, sites=sites)


def _prune(node: Primitive, *, fused: bool = False) -> Primitive:
    if isinstance(node, Chain):
        return _chain(node, fused)
    if inner := node.inner():
        below = fused or isinstance(node, Mixture)
        node = node.rebuild(tuple(_prune(child, fused=below) for child in inner))
    return _mean(node, fused) if isinstance(node, Mean) else node


def _mean(node: Mean, fused: bool) -> Primitive:
    left = [(b, w) for b, w in zip(node.branches, node.weights, strict=True) if w]
    if not left:
        return node
    branches, weights = zip(*left, strict=True)
    short: Primitive = Mean(branches, weights, node.still)
    if weights == (1.0,) and not node.still:
        short = branches[0]
    # a fusion reads and adds where its branches start
    return node if fused and _entry(short) != _entry(node) else short


def _still(node: Primitive) -> bool:
    """A mean of nothing but h."""
    return isinstance(node, Mean) and not any(node.weights)


def _chain(node: Chain, fused: bool) -> Primitive:
    flat: list[Primitive] = []
    for member in node.members:
        kept = _prune(member, fused=fused)
        flat += kept.members if isinstance(kept, Chain) else (kept,)
    left = [member for member in flat[:-1] if not _idle(member)] + flat[-1:]
    if fused and _entry(left[0]) != _entry(
        flat[0]
    ):  # a fusion reads and adds where its branches start
        left = [flat[0], *left]
    return left[0] if len(left) == 1 else Chain(tuple(left))


def _entry(node: Primitive) -> tuple[str, str]:
    return node.placement.reads, node.placement.residual


def _idle(node: Primitive) -> bool:
    """A bottleneck that adds nothing to h, so that the next one sees what it would have seen."""
    if _still(node):
        return True
    still = isinstance(node, Bottleneck) and node.scale == 0.0 and not node.norm_after
    return still and node.placement.residual == "output"
