"""The trunk of a training: the lowest layers, whose states training does not change.

Below the lowest site with a trained part, a composition computes the same states for an example in
every epoch (Rücklé et al., 2021, remove adapters from these layers for that reason). If they are
cached, they are computed once, and later epochs start at the first trained layer.

Condition: nothing is trained at the embeddings, every row has the same trunk, no gate averages over
padding, whose states are not kept. Law: the same losses and gradients, up to rounding, where the
backbone has no dropout; where it has, the trunk computes without it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from adaptcompose.backbones.layout import Site
from adaptcompose.compiler.lower import weights_used
from adaptcompose.ir.primitives import ParametricPrimitive, Primitive, Rows, walk_primitives
from adaptcompose.ir.program import Program


@dataclass(frozen=True)
class TrunkPlan:
    """The number of layers in the trunk, counted from the lowest; `reason` says why it has none.

    >>> print(TrunkPlan(5), TrunkPlan(0, "something is trained at the embeddings"), sep="; ")
    layers 0..4; none: something is trained at the embeddings
    """

    layers: int
    reason: str = ""

    def __bool__(self) -> bool:
        return self.layers > 0

    def __str__(self) -> str:
        if not self.layers:
            return f"none: {self.reason}"
        return "layer 0" if self.layers == 1 else f"layers 0..{self.layers - 1}"


def trunk_of(program: Program, trained: Collection[str]) -> TrunkPlan:
    """The trunk of a program, below the parts with the names `trained`."""
    sites = {s for part, sites in weights_used(program).items() if part in trained for s in sites}
    outside = [site for site in sites if site.layer is None]
    if outside:
        return TrunkPlan(0, f"something is trained at {outside[0]}")
    if any(site.part for site in program.sites):
        return TrunkPlan(0, "an encoder-decoder has more than one stack of layers")
    level = min((s.layer for s in sites if s.layer is not None), default=program.facts.layers)
    if level == 0:
        return TrunkPlan(0, "something is trained in the lowest layer")
    if program.branch_layer is not None and program.branch_layer < level:
        return TrunkPlan(0, "the branches differ below the first trained layer")
    for site, node in program.sites.items():
        if why := _obstacle(site, node, level):
            return TrunkPlan(0, why)
    return TrunkPlan(level)


def _obstacle(site: Site, node: Primitive, level: int) -> str | None:
    if site.name == "tokens":
        return "virtual tokens are added to the input"
    if isinstance(node, Rows) and (site.layer is None or site.layer < level):
        return "rows have different compositions below the first trained layer"
    return (
        "a gate averages over padding, whose states are not cached"
        if averages_over_tokens(node)
        else None
    )


def averages_over_tokens(node: Primitive) -> bool:
    """Whether a primitive, or one inside it, has a gate that averages over the tokens of a call."""
    return any(
        inner.averages_over_tokens
        for inner in walk_primitives(node)
        if isinstance(inner, ParametricPrimitive)
    )
