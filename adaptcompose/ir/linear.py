"""Primitives that change a map of the backbone: a linear map, or a norm.

A map f becomes another one, f'; a chain changes it from left to right. So LoRAs on one map add up,
what scales the input scales it for all that is there already, and DoRA normalises the weight that
it finds. `W` and `b` are the weight and the bias of f.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from adaptcompose.ir.mixing import Split
from adaptcompose.ir.primitives import Chain, Leaf, MergeRecipe, Placement, Primitive


@dataclass(frozen=True)
class Change(Leaf):
    """A primitive that changes a map of `width` outputs."""

    stackable: ClassVar[bool] = True

    width: int

    @property
    def placement(self) -> Placement:
        return Placement("output", "output")


@dataclass(frozen=True)
class LowRank(Change):
    """f'(x) = f(x) + s·B A x (Hu et al., 2022).

    In a `lookup`, x stands for a token by its number, and A x is a column of A. `gate` has
    σ(w·x + v), its mean over the tokens, in place of s. `bias`: `own` adds s·c to it, `backbone`
    replaces b.
    """

    verb: ClassVar[str] = "low-rank"

    width_in: int
    rank: int
    scale: float = 1.0
    gate: bool = False
    bias: Literal["none", "own", "backbone"] = "none"
    dropout: float = 0.0
    lookup: bool = False

    free: ClassVar[tuple[str, ...]] = (*Leaf.free, "rank", "scale", "dropout")

    def merged(self, name: str, recipe: MergeRecipe) -> Leaf:
        """Ranks add up in a sum; what TIES or DARE leaves of B A has any rank."""
        most = min(self.width, self.width_in)
        ranks = [leaf.rank for leaf in recipe.leaves if isinstance(leaf, LowRank)]
        rank = sum(ranks) if recipe.method == "linear" else most
        if recipe.rank is not None:
            rank = min(recipe.rank, most)
        return replace(super().merged(name, recipe), rank=rank, scale=1.0)  # type: ignore[call-arg]

    def obstacle(self) -> str | None:
        if self.gate:
            return "a gate"
        return "a bias in place of the backbone's" if self.bias == "backbone" else None

    def multiplications(self) -> int:
        read = 0 if self.lookup else self.width_in
        return self.rank * (read + self.width) + (read if self.gate else 0)

    def __str__(self) -> str:
        scale = "" if self.scale == 1.0 or self.gate else f" ×{self.scale:.6g}"
        bias = "" if self.bias == "none" else f" bias={self.bias}"
        words = f"{scale}{' gate' if self.gate else ''}{bias}{self.origin}"
        return f"{self.verb} {self.part} {self.width_in}→{self.rank}→{self.width}{words}"


@dataclass(frozen=True)
class Decomposed(LowRank):
    """f'(x) = m ⊙ V x / ‖V‖ + b, V = W + s·B A, norms row by row (DoRA, Liu et al., 2024).

    The norms count as constants where gradients are taken, as in the paper. With `peer` it is what
    AdapterHub's files were trained with: ‖W + B A‖ without s, and b is multiplied, too.
    """

    verb: ClassVar[str] = "decomposed"

    peer: bool = False


@dataclass(frozen=True)
class SharedLowRank(Change):
    """f'(x) = f(x) + s·Λ_b B Λ_d A x, A and B shared by all sites (VeRA, Kopiczko et al., 2024).

    A and B have as many columns and rows as the widest site needs; the first ones are used. They
    come out of the generator `seed`, or are stored in the part `projection`.
    """

    width_in: int
    rank: int
    widest: tuple[int, int]
    scale: float = 1.0
    seed: int = 0
    projection: str | None = None
    dropout: float = 0.0

    def multiplications(self) -> int:
        return self.rank * (self.width_in + self.width)

    def __str__(self) -> str:
        scale = "" if self.scale == 1.0 else f" ×{self.scale:.6g}"
        origin = f"seed {self.seed}" if self.projection is None else "stored"
        sizes = f"{self.width_in}→{self.rank}→{self.width}"
        return f"low-rank {self.part} {sizes}{scale} of a shared projection, {origin}"


@dataclass(frozen=True)
class Rescale(Change):
    """f'(x) = l ⊙ f(x), or f(l ⊙ x) (IA³, Liu et al., 2022).

    `gate` multiplies by σ(w·x + v), its mean over the tokens, in place of `scale`.
    """

    width_in: int
    side: Literal["output", "input"] = "output"
    scale: float = 1.0
    gate: bool = False

    def __str__(self) -> str:
        size = self.width if self.side == "output" else self.width_in
        scale = "" if self.scale == 1.0 or self.gate else f" ×{self.scale:.6g}"
        return f"rescale {self.part} {self.side} {size}{scale}{' gate' if self.gate else ''}"


@dataclass(frozen=True)
class Shift(Change):
    """f'(x) = f(x) + δ: another bias (BitFit, Ben Zaken et al., 2022).

    `whole` says that the bias itself is stored: δ is what it is more than the backbone's.
    """

    whole: bool = False

    def obstacle(self) -> str | None:
        return "a bias in place of the backbone's" if self.whole else None

    def __str__(self) -> str:
        return f"shift {self.part} {self.width}{' bias=backbone' if self.whole else ''}"


@dataclass(frozen=True)
class Replaced(Change):
    """Another weight W' and bias b' of a map: f'(x) = f(x) + (W' − W) x + (b' − b).

    W and b are the backbone's; alone it is the map with W' and b'. In a `lookup`, x stands for a
    token by its number. Its matrices are too large to be stacked.
    """

    stackable: ClassVar[bool] = False

    width_in: int
    bias: bool = True
    lookup: bool = False

    def obstacle(self) -> str | None:
        return "a weight in place of the backbone's"

    def __str__(self) -> str:
        return f"replace {self.part} {self.width_in}→{self.width}"


@dataclass(frozen=True)
class Renorm(Change):
    """Another weight w and bias c of a norm: f'(x) = f(x) + (w − w₀) ⊙ x̂ + (c − c₀).

    x̂ is the normalised x, w₀ and c₀ are the backbone's; alone it is the norm with w and c.
    """

    bias: bool = True

    def obstacle(self) -> str | None:
        return "a weight in place of the backbone's"

    def __str__(self) -> str:
        return f"renorm {self.part} {self.width}"


def affine(node: Primitive) -> bool:
    """Whether a primitive makes one weight of one weight: the same for all tokens and examples."""
    if isinstance(node, LowRank | Rescale) and node.gate:
        return False
    if not node.inner():
        return isinstance(node, Change) and not isinstance(node, Renorm)
    return not isinstance(node, Split) and all(map(affine, node.inner()))


def groundless(node: Primitive, *, below: bool = True) -> Iterator[Decomposed]:
    """What normalises a weight where there is none: behind a gate or a split of the tokens."""
    if isinstance(node, Decomposed) and not below:
        yield node
    if isinstance(node, Chain):
        for member in node.members:
            yield from groundless(member, below=below)
            below = below and affine(member)
        return
    for inner in node.inner():
        yield from groundless(inner, below=below)
