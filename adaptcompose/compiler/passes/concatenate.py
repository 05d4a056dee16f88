"""Bottlenecks that read the same state become one: many adapters for one product down and one up.

Σ wᵢ sᵢ(Uᵢ σᵢ(Dᵢz + bᵢ) + cᵢ) = [w₁s₁U₁ …]·σ([D₁; …]z + [b₁; …]) + Σ wᵢsᵢcᵢ, each σᵢ on its slice.
So a mean of bottlenecks is one bottleneck with all their ranks, and so are neighbours in a chain
that read the sub-layer's input x (He et al., 2022): what is before them does not change x, and
what they add sums up. A factor around a bottleneck becomes part of its scale. Equal members are
computed once, with the sum of their weights.

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
    """Join what meets the condition, innermost first."""

    def change(site: Site, node: Primitive) -> Primitive:
        found, why = _changed(node)
        if why:
            log.record_declined(site, why)
        elif found is not node:
            log.record_applied(site)
        return found

    sites = {s: rewrite(node, partial(change, s)) for s, node in program.sites.items()}
    return replace(program, sites=sites)


def _changed(node: Primitive) -> tuple[Primitive, str | None]:
    """What becomes of a primitive whose inner ones are done, and why nothing could."""
    if isinstance(node, ScaledUpdate):
        return _factored(node), None
    if isinstance(node, WeightedMean):
        terms = list(_terms(node.branches, node.weights))
        if not any(isinstance(term.node, BottleneckMLP) for term in terms):
            return node, None
        why = _obstacle(terms, still=node.identity_weight != 0)
        return (node, why) if why else (_joined(node, terms), None)
    if isinstance(node, Chain):
        return _neighbours(node), None
    return node, None


@dataclass(frozen=True)
class _Term:
    """A branch with its factor in the sum."""

    node: Primitive
    weight: float


def _factored(node: ScaledUpdate) -> Primitive:
    """A factor as part of a bottleneck's own."""
    body, by = node.body, node.factor
    if not isinstance(body, BottleneckMLP) or body.norm_after or isinstance(body.scale, str):
        return node
    return (
        replace(body, scale=body.scale * by) if body.placement.residual_source == "output" else node
    )


def _terms(branches: Sequence[Primitive], weights: Sequence[float]) -> Iterator[_Term]:
    """The sum with what is joined already, and with factors, taken apart."""
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


def _obstacle(terms: Sequence[_Term], *, still: bool) -> str | None:
    """Why a sum stays as it is."""
    members = [term.node for term in terms if isinstance(term.node, BottleneckMLP)]
    if len(members) < len(terms):
        return "a branch is not a single bottleneck"
    for member in members:
        if why := _alone(member):
            return why
    if len({(m.where.reads, m.norm_before, m.where.followed_by_norm) for m in members}) > 1:
        return "the branches read different states"
    bases = {member.where.residual_source for member in members}
    if len(bases) > 1 or (still and bases != {"output"}):
        return "the branches are added to different states"
    return None


def _alone(member: BottleneckMLP) -> str | None:
    if member.norm_after:
        return f"`{member.part}` has a LayerNorm of its own after it"
    return f"`{member.part}` has a gate" if member.gate else None


def _joined(literal: Primitive, terms: Sequence[_Term]) -> Primitive:
    """One primitive for the sum; equal members once."""
    summed: dict[BottleneckMLP, float] = {}
    for term in terms:
        assert isinstance(term.node, BottleneckMLP)
        summed[term.node] = summed.get(term.node, 0.0) + term.weight
    members, weights = tuple(summed), tuple(summed.values())
    quiet = not any(member.dropout or member.depth_drop for member in members)
    if len(members) == 1 and isinstance(members[0].scale, float) and (quiet or len(terms) == 1):
        return replace(members[0], scale=members[0].scale * weights[0])
    return ConcatenatedBottlenecks(members, weights, literal)


def _neighbours(node: Chain) -> Primitive:
    """Runs of parallel adapters in a chain as one each."""
    members: list[Primitive] = []
    for key, run in groupby(node.members, key=_parallel):
        found = list(run)
        if key is None or len(found) == 1:
            members += found
        else:
            terms = list(_terms(found, [1.0] * len(found)))
            members.append(_joined(Chain(tuple(found)), terms))
    if len(members) == len(node.members):
        return node
    return members[0] if len(members) == 1 else Chain(tuple(members))


def _parallel(node: Primitive) -> tuple[bool] | None:
    """What neighbours must share to be joined; None for what reads more than x."""
    first = node.members[0] if isinstance(node, ConcatenatedBottlenecks) else node
    if not isinstance(first, BottleneckMLP) or _alone(first):
        return None
    place = node.placement
    if place.reads != "input" or place.residual != "output" or not place.followed_by_norm:
        return None
    return (first.norm_before,)
