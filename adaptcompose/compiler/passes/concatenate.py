"""Bottlenecks that read the same state become one: many adapters for one product down and one up.

Σ wᵢ sᵢ(Uᵢ σᵢ(Dᵢz + bᵢ) + cᵢ) = [w₁s₁U₁ …]·σ([D₁; …]z + [b₁; …]) + Σ wᵢsᵢcᵢ, each σᵢ on its slice.
So a mean of bottlenecks is one bottleneck with all their ranks. So are neighbours in a chain that
read the sub-layer's input x (He et al., 2022), because the members before them do not change x, and
their updates add up. A factor around a bottleneck becomes part of its scale. Equal members are
computed once, with the sum of their weights.

>>> from adaptcompose.compiler.passes.example import lower_example
>>> text = "average(bottleneck(reduction=2), bottleneck(reduction=4))"
>>> print(program := lower_example(text))
ffn.out of layer 0
  mean 0.5, 0.5
    bottleneck bottleneck 8→4→8 relu  h + u(LN(h+x))
    bottleneck bottleneck2 8→2→8 relu  h + u(LN(h+x))
h: output of the sub-layer, x: its input, LN: the backbone's norm, u: the contribution
>>> print(concatenate(program, PassLog()))
ffn.out of layer 0
  joined 8→4+2→8  h + u(LN(h+x))
    bottleneck bottleneck 8→4→8 relu  h + u(LN(h+x))
    bottleneck bottleneck2 8→2→8 relu  h + u(LN(h+x))
h: output of the sub-layer, x: its input, LN: the backbone's norm, u: the contribution

Condition: all members read the same state, and either all or none apply a LayerNorm of their own
first; none applies one last, and none has a gate; they are added to h, or all to the same state. In
training, where dropout applies to each member separately, the literal form is computed. Law: exact,
up to the order of summation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby

from adaptcompose.backbones.layout import Site
from adaptcompose.compiler.passes.pass_log import PassLog
from adaptcompose.ir.mixing import ConcatenatedBottlenecks, ScaledUpdate, WeightedMean
from adaptcompose.ir.primitives import BottleneckMLP, Chain, Primitive, rewrite
from adaptcompose.ir.program import Program


def concatenate(program: Program, log: PassLog) -> Program:
    """Join the bottlenecks that meet the condition, innermost first."""

    def change(site: Site, node: Primitive) -> Primitive:
        joined, why = _rewrite_node(node)
        if why:
            log.record_declined(site, why)
        elif joined is not node:
            log.record_applied(site)
        return joined

    sites = {s: rewrite(node, partial(change, s)) for s, node in program.sites.items()}
    return replace(program, sites=sites)


def _rewrite_node(node: Primitive) -> tuple[Primitive, str | None]:
    """The joined form of a primitive whose inner ones are done; or itself and the obstacle."""
    if isinstance(node, ScaledUpdate):
        return _fold_factor(node), None
    if isinstance(node, WeightedMean):
        terms = list(_terms(node.branches, node.weights))
        if not any(isinstance(term.node, BottleneckMLP) for term in terms):
            return node, None
        why = _obstacle(terms, includes_h=node.identity_weight != 0)
        return (node, why) if why else (_join(node, terms), None)
    if isinstance(node, Chain):
        return _join_neighbours(node), None
    return node, None


@dataclass(frozen=True)
class _Term:
    """One summand: a branch and the number that multiplies it."""

    node: Primitive
    weight: float


def _fold_factor(node: ScaledUpdate) -> Primitive:
    """The factor around a bottleneck as part of the bottleneck's scale, where that is possible."""
    body = node.body
    if not isinstance(body, BottleneckMLP) or body.norm_after or isinstance(body.scale, str):
        return node
    if body.placement.residual_source != "output":
        return node
    return replace(body, scale=body.scale * node.factor)


def _terms(branches: Sequence[Primitive], weights: Sequence[float]) -> Iterator[_Term]:
    """The terms of a sum; factors and sums that are joined already are taken apart."""
    for branch, weight in zip(branches, weights, strict=True):
        scaled = branch if isinstance(branch, ScaledUpdate) else None
        body = scaled.body if scaled is not None else branch
        factor = weight * (scaled.factor if scaled is not None else 1.0)
        if scaled is not None and scaled.placement.residual_source != "output":
            yield _Term(branch, weight)
        elif isinstance(body, ConcatenatedBottlenecks):
            inner = zip(body.members, body.weights, strict=True)
            yield from (_Term(member, factor * own) for member, own in inner)
        else:
            yield _Term(body, factor)


def _obstacle(terms: Sequence[_Term], *, includes_h: bool) -> str | None:
    """Why a sum cannot be joined; `includes_h` says whether h itself is one of its terms."""
    members = [term.node for term in terms if isinstance(term.node, BottleneckMLP)]
    if len(members) < len(terms):
        return "a branch is not a single bottleneck"
    for member in members:
        if why := _member_obstacle(member):
            return why
    if len({(m.where.reads, m.norm_before, m.where.followed_by_norm) for m in members}) > 1:
        return "the branches read different states"
    residuals = {member.where.residual_source for member in members}
    if len(residuals) > 1 or (includes_h and residuals != {"output"}):
        return "the branches are added to different states"
    return None


def _member_obstacle(member: BottleneckMLP) -> str | None:
    """Why a bottleneck cannot be joined with any other."""
    if member.norm_after:
        return f"`{member.part}` has a LayerNorm of its own after it"
    return f"`{member.part}` has a gate" if member.gate else None


def _join(literal: Primitive, terms: Sequence[_Term]) -> Primitive:
    """One primitive for the sum, in which equal members occur once."""
    summed: dict[BottleneckMLP, float] = {}
    for term in terms:
        assert isinstance(term.node, BottleneckMLP)
        summed[term.node] = summed.get(term.node, 0.0) + term.weight
    members, weights = tuple(summed), tuple(summed.values())
    # equal members of a sum draw their dropout separately
    is_deterministic = not any(member.dropout or member.depth_drop for member in members)
    may_be_one = is_deterministic or len(terms) == 1
    if len(members) == 1 and isinstance(members[0].scale, float) and may_be_one:
        return replace(members[0], scale=members[0].scale * weights[0])
    return ConcatenatedBottlenecks(members, weights, literal)


def _join_neighbours(node: Chain) -> Primitive:
    """A chain in which each run of parallel adapters is joined."""
    members: list[Primitive] = []
    for key, run in groupby(node.members, key=_parallel_key):
        neighbours = list(run)
        if key is None or len(neighbours) == 1:
            members += neighbours
        else:
            terms = list(_terms(neighbours, [1.0] * len(neighbours)))
            members.append(_join(Chain(tuple(neighbours)), terms))
    if len(members) == len(node.members):
        return node
    return members[0] if len(members) == 1 else Chain(tuple(members))


def _parallel_key(node: Primitive) -> tuple[bool] | None:
    """A value that is equal for neighbours that can be joined; None if `node` cannot be joined."""
    first = node.members[0] if isinstance(node, ConcatenatedBottlenecks) else node
    if not isinstance(first, BottleneckMLP) or _member_obstacle(first):
        return None
    place = node.placement
    if place.reads != "input" or place.residual != "output" or not place.followed_by_norm:
        return None
    return (first.norm_before,)
