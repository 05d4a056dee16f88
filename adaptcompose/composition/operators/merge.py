"""`merge`: one adapter computed from the weights of several."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.composition.graph import Adapter, Block, has_known_methods
from adaptcompose.composition.operator import ArgumentKind, BlockOperator, register_operator
from adaptcompose.composition.operators.member_weights import (
    member_weights,
    missing_weight_problems,
    suggest_operators,
)
from adaptcompose.composition.operators.trainability import Trainability
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Diagnostic
from adaptcompose.ir.primitives import MergeRecipe, ParametricPrimitive, Primitive
from adaptcompose.syntax.signature import format_value, option


@register_operator
@dataclass(frozen=True)
class Merge(BlockOperator):
    """One adapter computed from the weights of several, before anything runs: merge(a:0.7, b:-0.3).

    Use it to combine adapters at the cost of one. The members must have the same shapes at the
    same sites; use `average` for members that differ. Weights can be any numbers, and without
    weights each member has 1/n. An invertible part is merged like any other, and the result has
    an inverse.

    `method=linear` is θ₀ + Σ wᵢ(θᵢ − θ₀), with θ₀ the weights of an adapter that does nothing
    (task arithmetic, Ilharco et al., 2023). `ties` trims to `density`, elects signs and averages
    the values that agree (Yadav et al., 2023). `dare` randomly drops all but `density` and
    rescales (Yu et al., 2024).

    Laws: merge(a:1) = a; merge(a, a) = a unless `dare` drops values;
    merge(merge(a:p, b:q):r, c:s) = merge(a:pr, b:qr, c:s).

    Examples:
        merge(glue/mnli:0.7, glue/rte:0.5)
        merge(glue/*, method=ties, density=0.3)
    """

    word: ClassVar[str] = "merge"
    takes: ClassVar[ArgumentKind] = "adapters"
    accepts_weights: ClassVar[bool] = True
    min_members: ClassVar[int] = 1

    method: Literal["linear", "ties", "dare"] = option("linear", "how to merge the weights")
    density: float = option(1.0, "share of the values that ties and dare keep", minimum=0)
    seed: int = option(0, "seed of the random choice of dare", minimum=0)
    rank: int | None = option(
        None, "rank of a merged LoRA, reduced by SVD (default: the sum of the ranks)", minimum=1
    )

    def at(self, site: Site, facts: Facts) -> Primitive | None:
        pairs = zip(self._members_at(site, facts), member_weights(self.members), strict=True)
        # `problems` reports members that do not fit together, with AC313
        present = [(leaf, share) for leaf, share in pairs if isinstance(leaf, ParametricPrimitive)]
        if not present:
            return None
        leaves = tuple(leaf for leaf, _ in present)
        written = tuple(share for _, share in present)
        recipe = MergeRecipe(leaves, written, self.method, self.density, self.seed, self.rank)
        names = [f"{leaf.part}:{share:.6g}" for leaf, share in present]
        name = f"{self.word}({', '.join([*names, *self.format_options()])})"
        first: ParametricPrimitive = leaves[0]
        return first.with_recipe(name, recipe)

    def _members_at(self, site: Site, facts: Facts) -> list[Primitive | None]:
        return [block.at(site, facts) for block in self.inner()]

    def problems(self, facts: Facts | None) -> Iterator[Diagnostic]:
        yield from missing_weight_problems(self.members, self.span)
        if not 0 < self.density <= 1:
            yield self._option_problem("density", "above 0 and at most 1")
        elif self.density < 1 and self.method == "linear":
            yield self._option_problem("density", "1 with `method=linear`")
        unfit = [problem for block in self.inner() for problem in self._member_problems(block)]
        yield from unfit
        if facts is not None and has_known_methods(self) and not unfit:
            yield from self._shape_problems(facts)

    def _option_problem(self, name: str, expected: str) -> Diagnostic:
        got = format_value(getattr(self, name))
        return codes.AC209.at(self.span, name=name, operator=self.word, expected=expected, got=got)

    def _member_problems(self, block: Block) -> Iterator[Diagnostic]:
        """Yield AC305 or AC306 for a member that is neither a mergeable adapter nor a merge."""
        while isinstance(block, Trainability):
            block = block.body
        if isinstance(block, Adapter):
            if block.method is not None and not block.method.mergeable:
                name, help = block.method.word, suggest_operators(block.method)
                yield codes.AC306.at(
                    block.span, operator=self.word, what="weights", method=name, help=help
                )
        elif not isinstance(block, Merge):
            help = "use `average(…)`, which combines what blocks compute"
            inner = getattr(block, "word", str(block))
            yield codes.AC305.at(block.span, operator=self.word, inner=inner, help=help)

    def _shape_problems(self, facts: Facts) -> Iterator[Diagnostic]:
        """Yield the first difference between the members at the first site at which they differ."""
        for site in facts.all_sites():
            if problem := next(self._site_problems(site, facts), None):
                yield problem
                return

    def _site_problems(self, site: Site, facts: Facts) -> Iterator[Diagnostic]:
        """Yield AC307 or AC313 for a difference at a site, AC209 for `rank` without a LoRA."""
        leaves, blocks = self._members_at(site, facts), self.inner()
        is_present = [leaf is not None for leaf in leaves]
        if any(is_present) and not all(is_present):
            present, absent = (blocks[is_present.index(value)] for value in (True, False))
            detail = f"`{present}` adapts {site}, `{absent}` does not"
            yield codes.AC307.at(self.span, operator=self.word, detail=detail)
        for block, leaf in zip(blocks, leaves, strict=True):
            if difference := _describe_difference((blocks[0], leaves[0]), (block, leaf)):
                yield codes.AC313.at(block.span, detail=difference)
            if (
                self.rank is not None
                and isinstance(leaf, ParametricPrimitive)
                and not leaf.is_rank_free_in_merge
            ):
                yield self._option_problem("rank", "left out unless LoRA adapters are merged")


def _describe_difference(
    one: tuple[Block, Primitive | None], other: tuple[Block, Primitive | None]
) -> str | None:
    """The first difference in shape between two primitives, in words; None if there is none."""
    (first, a), (second, b) = one, other
    if not isinstance(a, ParametricPrimitive) or not isinstance(b, ParametricPrimitive):
        return None
    if obstacle := b.why_not_mergeable():
        return f"`{second}` has {obstacle}"
    if type(a) is not type(b):
        return f"`{first}` is a {a.kind}, `{second}` a {b.kind}"
    other_shape = b.merge_shape()
    for name, value in a.merge_shape().items():
        if value != other_shape[name]:
            return f"`{first}` has {name} {value}, `{second}` has {other_shape[name]}"
    return None
