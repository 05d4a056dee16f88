"""Primitives that combine others by constants: a weighted mean, a factor, a split of the tokens.

None of them has weights of its own. Each is r + u like any other: where its branches are added to
different states, r is h, and u is what the whole adds to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from adaptcompose.ir.primitives import BottleneckMLP, Placement, Primitive
from adaptcompose.syntax.signature import format_value


def common_placement(branches: Sequence[Primitive]) -> Placement:
    """What the branches read and are added to if they agree; else the whole is added to h."""
    places = [branch.placement for branch in branches]
    if len({place.residual_source for place in places}) == 1:
        return places[0]
    return replace(places[0], residual="output")


@dataclass(frozen=True)
class WeightedMean(Primitive):
    """Σ wᵢ ⟦eᵢ⟧(h) + w₀ h with w₀ + Σ wᵢ = 1; `still` is w₀, of members that have nothing here."""

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
    """h + c (⟦e⟧(h) − h)."""

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
    """Tokens before the first of `at` through the first branch, then to the next one's, and so on.

    None leaves its tokens as they are. A branch sees its own tokens only.
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
        """Of its dearest branch: a token passes one of them."""
        return max(branch.multiplications() for branch in self.inner())

    def lines(self, depth: int = 0) -> Iterator[str]:
        yield "  " * depth + str(self)
        for tokens, branch in zip(self.ranges(), self.branches, strict=True):
            yield "  " * (depth + 1) + f"tokens {tokens}:{'' if branch else ' backbone'}"
            if branch is not None:
                yield from branch.lines(depth + 2)

    def ranges(self) -> list[str]:
        """The tokens of each branch, in words."""
        starts = ["0", *map(str, self.boundaries)]
        return [
            f"{start}..{end - 1}" for start, end in zip(starts, self.boundaries, strict=False)
        ] + [f"{starts[-1]} and after"]

    def __str__(self) -> str:
        return f"split over {len(self.branches)}"


@dataclass(frozen=True)
class ConcatenatedBottlenecks(Primitive):
    """Σ wᵢ uᵢ of bottlenecks that read one state, as one bottleneck with all their ranks.

    `literal` is what it was made from, and what is computed where chance decides per member.
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
