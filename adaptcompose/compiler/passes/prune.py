"""Remove primitives that cannot change the output.

- sites of dropped layers are empty (lowering has left them out);
- a chain inside a chain is flattened, and a chain of one member becomes that member;
- in a chain, an adapter whose contribution is scaled by 0 is removed;
- branches of weight 0 are removed from a mean, and a mean of one branch becomes that branch.

>>> from adaptcompose.compiler.passes.example import lower_example
>>> text = "stack(a=bottleneck(reduction=2, scale=0), b=bottleneck(reduction=2))"
>>> print(program := lower_example(text))
ffn.out of layer 0
  chain
    bottleneck a 8→4→8 relu ×0.0  h + u(LN(h+x))
    bottleneck b 8→4→8 relu  h + u(LN(h+x))
h: output of the sub-layer, x: its input, LN: the backbone's norm, u: the contribution
>>> print(prune(program, PassLog()))
ffn.out of layer 0
  bottleneck b 8→4→8 relu  h + u(LN(h+x))
h: output of the sub-layer, x: its input, LN: the backbone's norm, u: the contribution

Condition: it adds nothing, whatever the input. Law: exact, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from adaptcompose.compiler.passes.pass_log import PassLog
from adaptcompose.ir.fusion import Mixture
from adaptcompose.ir.mixing import WeightedMean
from adaptcompose.ir.primitives import BottleneckMLP, Chain, Primitive
from adaptcompose.ir.program import Program

Decline = Callable[[str], None]


def prune(program: Program, log: PassLog) -> Program:
    """Remove the primitives that add nothing."""
    sites = {}
    for site, node in program.sites.items():
        pruned = _prune(node, partial(log.record_declined, site))
        if not _is_identity(pruned):
            sites[site] = pruned
        if pruned != node or site not in sites:
            log.record_applied(site)
    return replace(program, sites=sites)


def _prune(node: Primitive, declined: Decline, *, fused: bool = False) -> Primitive:
    """A primitive without what adds nothing; `fused` says whether a fusion is around it."""
    if isinstance(node, Chain):
        return _prune_chain(node, declined, fused)
    if inner := node.inner():
        inside = fused or isinstance(node, Mixture)
        node = node.rebuild(tuple(_prune(child, declined, fused=inside) for child in inner))
    return _prune_mean(node, declined, fused) if isinstance(node, WeightedMean) else node


def _prune_mean(node: WeightedMean, declined: Decline, fused: bool) -> Primitive:
    weighted = [(b, w) for b, w in zip(node.branches, node.weights, strict=True) if w]
    if not weighted:
        return node
    branches, weights = zip(*weighted, strict=True)
    short: Primitive = WeightedMean(branches, weights, node.identity_weight)
    if weights == (1.0,) and not node.identity_weight:
        short = branches[0]
    if fused and _entry_states(short) != _entry_states(node):
        declined("the surrounding fusion relies on the placement of a branch with weight 0")
        return node
    return short


def _is_identity(node: Primitive) -> bool:
    """Whether a primitive is a mean of h alone."""
    return isinstance(node, WeightedMean) and not any(node.weights)


def _prune_chain(node: Chain, declined: Decline, fused: bool) -> Primitive:
    flat: list[Primitive] = []
    for member in node.members:
        pruned = _prune(member, declined, fused=fused)
        flat += pruned.members if isinstance(pruned, Chain) else (pruned,)
    # the last member decides whether the norm of the backbone follows, so it stays
    members = [member for member in flat[:-1] if not _adds_nothing(member)] + flat[-1:]
    if fused and _entry_states(members[0]) != _entry_states(flat[0]):
        declined("the surrounding fusion relies on the placement of an adapter scaled by 0")
        members = [flat[0], *members]
    for member in members:
        if (
            isinstance(member, BottleneckMLP)
            and member.scale == 0.0
            and (why := _remaining_effect(member))
        ):
            declined(why)
    return members[0] if len(members) == 1 else Chain(tuple(members))


def _entry_states(node: Primitive) -> tuple[str, str]:
    """What a primitive reads and what it is added to."""
    return node.placement.reads, node.placement.residual


def _adds_nothing(node: Primitive) -> bool:
    """Whether the next member of a chain reads the same state without this one."""
    if _is_identity(node):
        return True
    return isinstance(node, BottleneckMLP) and node.scale == 0.0 and not _remaining_effect(node)


def _remaining_effect(node: BottleneckMLP) -> str | None:
    """Why an adapter scaled by 0 changes h all the same; None if it does not."""
    if node.norm_after:
        return f"`{node.part}` is scaled by 0, but its own LayerNorm still applies"
    if node.placement.residual != "output":
        return f"`{node.part}` is scaled by 0, but changes the residual"
    return None
