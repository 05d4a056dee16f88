"""Primitives that combine others with constants: a weighted mean, a factor, a split of the tokens.

They have no weights of their own. Like any primitive they return r + u. If their branches are added
to different states, r is h, and u is the difference of the result from h. All states are
[batch, tokens, d].
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from adaptcompose.ir.primitives import BottleneckMLP, Placement, Primitive
from adaptcompose.syntax.signature import format_value


def common_placement(branches: Sequence[Primitive]) -> Placement:
    """The placement of the branches, with h as the residual unless all have the same residual."""
    places = [branch.placement for branch in branches]
    if len({place.residual_source for place in places}) == 1:
        return places[0]
    return replace(places[0], residual="output")


@dataclass(frozen=True)
class WeightedMean(Primitive):
    """Σ wᵢ ⟦eᵢ⟧(h) + w₀ h with w₀ + Σ wᵢ = 1 (output averaging, Wang et al., 2021).

    h and each ⟦eᵢ⟧(h) are [batch, tokens, d], wᵢ are the numbers `weights`. `identity_weight` is
    w₀, the sum of the weights of members that have nothing at this site.
    """

    stackable: ClassVar[bool] = True

    branches: tuple[Primitive, ...]
    weights: tuple[float, ...]
    identity_weight: float = 0.0

    def inner(self) -> tuple[Primitive, ...]:
        return self.branches

    def rebuild(self, inner: tuple[Primitive, ...]) -> WeightedMean:
        return replace(self, branches=inner)

    def input_placements(self) -> Iterator[Placement]:
        for branch in self.branches:
            yield from branch.input_placements()

    @property
    def placement(self) -> Placement:
        return common_placement(self.branches)

    def __str__(self) -> str:
        weights = [*self.weights, *([self.identity_weight] if self.identity_weight else [])]
        last = " (the last of h itself)" if self.identity_weight else ""
        return f"mean {', '.join(f'{weight:.6g}' for weight in weights)}{last}"


@dataclass(frozen=True)
class ScaledUpdate(Primitive):
    """h + c (⟦e⟧(h) − h): the update of e [batch, tokens, d] times the number c, the `factor`.

    For a LoRA, c is the scaling factor of its update (Hu et al., 2022, section 4.1).
    """

    stackable: ClassVar[bool] = True

    body: Primitive
    factor: float

    def inner(self) -> tuple[Primitive, ...]:
        return (self.body,)

    def rebuild(self, inner: tuple[Primitive, ...]) -> ScaledUpdate:
        return replace(self, body=inner[0])

    def input_placements(self) -> Iterator[Placement]:
        yield from self.body.input_placements()

    @property
    def placement(self) -> Placement:
        return self.body.placement

    def __str__(self) -> str:
        return f"times {format_value(self.factor)}"


@dataclass(frozen=True)
class TokenSplit(Primitive):
    """y_t = ⟦e_k⟧(h[b_k : b_{k+1}])_t for b_k ≤ t < b_{k+1}: each token passes one branch.

    The b_k are 0, then the numbers `boundaries`; the last branch has all tokens that remain. Branch
    k computes on its own tokens [batch, b_{k+1} − b_k, d] only, and None leaves them as they are.
    It is the block `Split` of AdapterHub (Pfeiffer et al., 2020a).
    """

    stackable: ClassVar[bool] = True

    branches: tuple[Primitive | None, ...]
    boundaries: tuple[int, ...]

    def inner(self) -> tuple[Primitive, ...]:
        return tuple(branch for branch in self.branches if branch is not None)

    def rebuild(self, inner: tuple[Primitive, ...]) -> TokenSplit:
        left = iter(inner)
        branches = tuple(None if branch is None else next(left) for branch in self.branches)
        return replace(self, branches=branches)

    def input_placements(self) -> Iterator[Placement]:
        for branch in self.inner():
            yield from branch.input_placements()

    @property
    def placement(self) -> Placement:
        return common_placement(self.inner())

    def multiplications(self) -> int:
        """Those of the most expensive branch, because a token passes only one."""
        return max(branch.multiplications() for branch in self.inner())

    def lines(self, depth: int = 0) -> Iterator[str]:
        yield "  " * depth + str(self)
        for tokens, branch in zip(self.ranges(), self.branches, strict=True):
            yield "  " * (depth + 1) + f"tokens {tokens}:{'' if branch else ' backbone'}"
            if branch is not None:
                yield from branch.lines(depth + 2)

    def ranges(self) -> list[str]:
        """The tokens of each branch, as a program prints them."""
        starts = ["0", *map(str, self.boundaries)]
        return [
            f"{start}..{end - 1}" for start, end in zip(starts, self.boundaries, strict=False)
        ] + [f"{starts[-1]} and after"]

    def __str__(self) -> str:
        return f"split over {len(self.branches)}"


@dataclass(frozen=True)
class ConcatenatedBottlenecks(Primitive):
    """u = [w₁U₁ … wₙUₙ] σ([D₁; …; Dₙ] z + [b₁; …; bₙ]) + Σ wᵢcᵢ, equal to Σ wᵢ uᵢ.

    The members uᵢ = Uᵢ σ(Dᵢ z + bᵢ) + cᵢ read one state z [batch, tokens, d]. With R the sum of
    their ranks, the products are [R, d] and [d, R]; scales are part of wᵢ. `literal` is the
    primitive from which the pass `concatenate` made this one. It is computed instead of the formula
    in training if dropout acts on each member separately.
    """

    stackable: ClassVar[bool] = True

    members: tuple[BottleneckMLP, ...]
    weights: tuple[float, ...]
    literal: Primitive

    def inner(self) -> tuple[Primitive, ...]:
        return self.members

    def structure(self) -> ConcatenatedBottlenecks:
        shapes = (member.structure() for member in self.members)
        members = tuple(member for member in shapes if isinstance(member, BottleneckMLP))
        return replace(self, members=members, literal=self.literal.structure())

    @property
    def placement(self) -> Placement:
        return self.literal.placement

    def __str__(self) -> str:
        width, ranks = self.members[0].width, "+".join(str(m.rank) for m in self.members)
        return f"joined {width}→{ranks}→{width}  {self.placement}"
