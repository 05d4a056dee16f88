"""`merge`: one adapter computed from the weights of several."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import ClassVar, Literal

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.composition.graph import Adapter, Block, complete
from adaptcompose.composition.operator import Members, Takes, operator
from adaptcompose.composition.operators.training import Training
from adaptcompose.composition.operators.weights import incomplete, instead, shares
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Diagnostic
from adaptcompose.ir.primitives import Leaf, MergeRecipe, Primitive
from adaptcompose.syntax.signature import option, spell


@operator
@dataclass(frozen=True)
class Merge(Members):
    """One adapter from the weights of several, before anything runs: merge(a:0.7, b:-0.3).

    Weights are free; without any each member has 1/n. `linear` is θ₀ + Σ wᵢ(θᵢ − θ₀), θ₀ what a
    weight is where an adapter does nothing (task arithmetic, Ilharco et al., 2023); `ties` trims to
    `density`, elects signs and averages what agrees (Yadav et al., 2023); `dare` drops all but
    `density` by chance and rescales (Yu et al., 2024). Members are of one shape, at the same sites;
    an invertible part is merged like the rest, and has an inverse. Laws: merge(a:1) = a;
    merge(a, a) = a unless chance drops; merge(merge(a:p, b:q):r, c:s) = merge(a:pr, b:qr, c:s).

    Examples:
        merge(glue/mnli:0.7, glue/rte:0.5)
        merge(glue/*, method=ties, density=0.3)
    """

    word: ClassVar[str] = "merge"
    takes: ClassVar[Takes] = "adapters"
    weighted: ClassVar[bool] = True
    least: ClassVar[int] = 1

    method: Literal["linear", "ties", "dare"] = option("linear", "how weights become one")
    density: float = option(1.0, "share of the weights that ties and dare keep", least=0)
    seed: int = option(0, "of what dare keeps", least=0)
    rank: int | None = option(None, "of a merged LoRA, cut off by SVD; else ranks add up", least=1)

    def at(self, site: Site, facts: Facts) -> Primitive | None:
        pairs = zip(self._leaves(site, facts), shares(self.members), strict=True)
        # of members that do not fit together, AC313 is told by `problems`
        present = [(leaf, share) for leaf, share in pairs if isinstance(leaf, Leaf)]
        if not present:
            return None
        leaves = tuple(leaf for leaf, _ in present)
        written = tuple(share for _, share in present)
        recipe = MergeRecipe(leaves, written, self.method, self.density, self.seed, self.rank)
        names = [f"{leaf.part}:{share:.6g}" for leaf, share in present]
        name = f"{self.word}({', '.join([*names, *self.options()])})"
        first: Leaf = leaves[0]
        return first.merged(name, recipe)

    def _leaves(self, site: Site, facts: Facts) -> list[Primitive | None]:
        return [block.at(site, facts) for block in self.inner()]

    def problems(self, facts: Facts | None) -> Iterator[Diagnostic]:
        yield from incomplete(self.members, self.span)
        if not 0 < self.density <= 1:
            yield self._option("density", "more than 0 and at most 1")
        elif self.density < 1 and self.method == "linear":
            yield self._option("density", "1 with method=linear")
        unfit = [found for block in self.inner() for found in self._unfit(block)]
        yield from unfit
        if facts is not None and complete(self) and not unfit:
            yield from self._shapes(facts)

    def _option(self, name: str, expected: str) -> Diagnostic:
        got = spell(getattr(self, name))
        return codes.AC209.at(self.span, name=name, operator=self.word, expected=expected, got=got)

    def _unfit(self, block: Block) -> Iterator[Diagnostic]:
        """Members are adapters, or merges of some."""
        while isinstance(block, Training):
            block = block.body
        if isinstance(block, Adapter):
            if block.method is not None and not block.method.mergeable:
                name, help = block.method.word, instead(block.method)
                yield codes.AC306.at(
                    block.span, operator=self.word, what="weights", method=name, help=help
                )
        elif not isinstance(block, Merge):
            help = "average(…) combines what blocks compute"
            inner = getattr(block, "word", str(block))
            yield codes.AC305.at(block.span, operator=self.word, inner=inner, help=help)

    def _shapes(self, facts: Facts) -> Iterator[Diagnostic]:
        """What differs at the first site at which the members do."""
        for site in facts.every_site():
            if found := next(self._differing(site, facts), None):
                yield found
                return

    def _differing(self, site: Site, facts: Facts) -> Iterator[Diagnostic]:
        """AC307 or AC313 at a site, AC209 for a rank where nothing has one."""
        found, blocks = self._leaves(site, facts), self.inner()
        there = [leaf is not None for leaf in found]
        if any(there) and not all(there):
            here, gone = (blocks[there.index(sure)] for sure in (True, False))
            told = f"`{here}` is at {site}, `{gone}` is not"
            yield codes.AC307.at(self.span, operator=self.word, detail=told)
        for block, leaf in zip(blocks, found, strict=True):
            if detail := _difference((blocks[0], found[0]), (block, leaf)):
                yield codes.AC313.at(block.span, detail=detail)
            if self.rank is not None and isinstance(leaf, Leaf) and "rank" not in leaf.free:
                yield self._option("rank", "left to merges of LoRA")


def _difference(
    one: tuple[Block, Primitive | None], other: tuple[Block, Primitive | None]
) -> str | None:
    """In words the first thing in which two primitives are not of one shape."""
    (first, a), (second, b) = one, other
    if not isinstance(a, Leaf) or not isinstance(b, Leaf):
        return None
    if obstacle := b.obstacle():
        return f"`{second}` has {obstacle}"
    if type(a) is not type(b):
        return f"`{first}` is a {type(a).__name__.lower()}, `{second}` a {type(b).__name__.lower()}"
    for item in fields(a):
        left, right = getattr(a, item.name), getattr(b, item.name)
        if item.name not in a.free and left != right:
            name = item.name.replace("_", " ")
            return f"`{first}` has {name} {left}, `{second}` has {right}"
    return None
