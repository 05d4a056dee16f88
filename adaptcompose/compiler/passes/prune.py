"""Remove primitives that cannot change the output.

- sites of dropped layers are empty (lowering leaves them out already);
- a chain inside a chain is flattened, and a chain of one member becomes that member;
- in a chain, an adapter whose contribution is scaled by 0 is removed;
- branches of weight 0 are removed from a mean, and a mean of one branch becomes that branch.

Condition: it adds nothing, whatever the input. Law: exact, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from adaptcompose.compiler.passes.pass_log import PassLog
from adaptcompose.ir.mixing import WeightedMean
from adaptcompose.ir.primitives import BottleneckMLP, Chain, Mixture, Primitive
from adaptcompose.ir.program import Program

Decline = Callable[[str], None]


def prune(program: Program, log: PassLog) -> Program:
    """Take out what adds nothing."""
    sites = {}
    for site, node in program.sites.items():
        left = _prune(node, partial(log.record_declined, site))
        if not _is_identity(left):
            sites[site] = left
        if left != node or site not in sites:
            log.record_applied(site)
    return replace(program, sites=sites)


def _prune(node: Primitive, declined: Decline, *, fused: bool = False) -> Primitive:
    if isinstance(node, Chain):
        return _chain(node, declined, fused)
    if inner := node.inner():
        below = fused or isinstance(node, Mixture)
        node = node.rebuild(tuple(_prune(child, declined, fused=below) for child in inner))
    return _mean(node, declined, fused) if isinstance(node, WeightedMean) else node


def _mean(node: WeightedMean, declined: Decline, fused: bool) -> Primitive:
    left = [(b, w) for b, w in zip(node.branches, node.weights, strict=True) if w]
    if not left:
        return node
    branches, weights = zip(*left, strict=True)
    short: Primitive = WeightedMean(branches, weights, node.identity_weight)
    if weights == (1.0,) and not node.identity_weight:
        short = branches[0]
    if fused and _entry(short) != _entry(node):
        declined("the surrounding fusion relies on the placement of a branch with weight 0")
        return node
    return short


def _is_identity(node: Primitive) -> bool:
    """A mean of nothing but h."""
    return isinstance(node, WeightedMean) and not any(node.weights)


def _chain(node: Chain, declined: Decline, fused: bool) -> Primitive:
    flat: list[Primitive] = []
    for member in node.members:
        kept = _prune(member, declined, fused=fused)
        flat += kept.members if isinstance(kept, Chain) else (kept,)
    left = [member for member in flat[:-1] if not _adds_nothing(member)] + flat[-1:]
    if fused and _entry(left[0]) != _entry(flat[0]):
        declined("the surrounding fusion relies on the placement of an adapter scaled by 0")
        left = [flat[0], *left]
    for member in left:
        if (
            isinstance(member, BottleneckMLP)
            and member.scale == 0.0
            and (why := _remaining_effect(member))
        ):
            declined(why)
    return left[0] if len(left) == 1 else Chain(tuple(left))


def _entry(node: Primitive) -> tuple[str, str]:
    return node.placement.reads, node.placement.residual


def _adds_nothing(node: Primitive) -> bool:
    """A bottleneck that adds nothing to h, so that the next one sees what it would have seen."""
    if _is_identity(node):
        return True
    return isinstance(node, BottleneckMLP) and node.scale == 0.0 and not _remaining_effect(node)


def _remaining_effect(node: BottleneckMLP) -> str | None:
    """What changes h even where the contribution is multiplied by 0."""
    if node.norm_after:
        return f"`{node.part}` is scaled by 0, but its own LayerNorm still applies"
    if node.placement.residual != "output":
        return f"`{node.part}` is scaled by 0, but changes the residual"
    return None
