"""`average`: the weighted mean of the outputs of its members."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.composition.graph import Block, has_known_methods, walk
from adaptcompose.composition.operator import ArgumentKind, BlockOperator, register_operator
from adaptcompose.composition.operators.member_weights import (
    additivity_problems,
    member_weights,
    weight_sum_problems,
)
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Diagnostic
from adaptcompose.ir.mixing import WeightedMean
from adaptcompose.ir.primitives import Primitive
from adaptcompose.methods.invertible import EMBEDDINGS_SITE, HEAD_SITE
from adaptcompose.syntax.signature import option


@register_operator
@dataclass(frozen=True)
class Average(BlockOperator):
    """The weighted mean of what its members compute: average(a:0.3, b:0.7).

    Use it to combine trained adapters without further training. The weights must sum to 1;
    `normalize=true` divides them by their sum, and members without weights all count the same.
    `average` combines outputs; `merge` combines the weights of adapters.

    ⟦average(e₁:w₁, …)⟧(h) = Σ wᵢ ⟦eᵢ⟧(h), Σ wᵢ = 1. At a site where eᵢ has no part,
    ⟦eᵢ⟧(h) = h.

    Laws: average(a) = a; average(a, a) = a; average(a:1, b:0) = a;
    average(a:p, average(b:q, c:s):1−p) = average(a:p, b:(1−p)q, c:(1−p)s).

    Examples:
        average(lang/en:0.3, lang/sw:0.7)
        stack(lang=average(lang/en, lang/sw), task=ner)
    """

    word: ClassVar[str] = "average"
    takes: ClassVar[ArgumentKind] = "adapters"
    accepts_weights: ClassVar[bool] = True
    min_members: ClassVar[int] = 1

    normalize: bool = option(False, "divide the weights by their sum")

    def normalised_weights(self) -> tuple[float, ...]:
        """The weights divided by their sum, so that they sum to 1 within rounding."""
        written = member_weights(self.members)
        total = math.fsum(written)
        return tuple(weight / total for weight in written)

    def at(self, site: Site, facts: Facts) -> Primitive | None:
        nodes = [block.at(site, facts) for block in self.inner()]
        pairs = list(zip(nodes, self.normalised_weights(), strict=True))
        if site in (EMBEDDINGS_SITE, HEAD_SITE):
            used = {node for node, weight in pairs if weight}
            if len(used) == 1:
                return used.pop()
            if site == HEAD_SITE:
                return None  # `inversion_problems` reports heads that need the inverse of a mean
        present = [(node, weight) for node, weight in pairs if node is not None]
        if not present:
            return None
        branches, weights = zip(*present, strict=True)
        identity_weight = 1 - math.fsum(weights) if len(present) < len(nodes) else 0.0
        return WeightedMean(branches, weights, identity_weight)

    def problems(self, facts: Facts | None) -> Iterator[Diagnostic]:
        yield from weight_sum_problems(self.word, self.members, self.span, normalize=self.normalize)
        yield from additivity_problems(self.word, self)
        if facts is not None and has_known_methods(self):
            yield from mixed_ending_problems(self, facts)


def mixed_ending_problems(block: BlockOperator, facts: Facts) -> Iterator[Diagnostic]:
    """Yield AC320 if some members replace the backbone's norm at a site and others do not."""
    for site in facts.sublayer_sites():
        nodes = [inner.at(site, facts) for inner in block.inner()]
        keeps_norm = [node is None or node.placement.followed_by_norm for node in nodes]
        if any(keeps_norm) and not all(keeps_norm):
            name = block.inner()[keeps_norm.index(False)]
            help = f"use adapters that keep the residual and norm in all branches of `{block.word}`"
            yield codes.AC320.at(name.span, name=name, help=help)
            return


def inversion_problems(graph: Block, facts: Facts) -> Iterator[Diagnostic]:
    """Yield AC318 for every mean of invertible parts, which has no inverse.

    Call this for a head that needs the inverse, such as a language model's.
    """
    for block in walk(graph):
        if isinstance(block, Average) and isinstance(
            block.at(EMBEDDINGS_SITE, facts), WeightedMean
        ):
            yield codes.AC318.at(block.span)
