"""Primitives that change a map of the backbone: a linear map, or a norm.

A map f becomes another one, f'; a chain changes it from left to right. So LoRAs on one map add up,
what scales the input scales it for all that is there already, and DoRA normalises the weight that
it finds. `W` and `b` are the weight and the bias of f.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from adaptcompose.ir.mixing import TokenSplit
from adaptcompose.ir.primitives import Chain, MergeRecipe, ParametricPrimitive, Placement, Primitive


@dataclass(frozen=True)
class LinearUpdate(ParametricPrimitive):
    """A primitive that changes a map of `width` outputs."""

    stackable: ClassVar[bool] = True

    width: int

    @property
    def placement(self) -> Placement:
        return Placement("output", "output")


@dataclass(frozen=True)
class LowRank(LinearUpdate):
    """f'(x) = f(x) + s·B A x (Hu et al., 2022).

    In a `lookup`, x stands for a token by its number, and A x is a column of A. `gate` has
    σ(w·x + v), its mean over the tokens, in place of s. `bias`: `own` adds s·c to it, `backbone`
    replaces b.
    """

    label: ClassVar[str] = "low-rank"

    width_in: int
    rank: int
    scale: float = 1.0
    gate: bool = False
    bias: Literal["none", "own", "backbone"] = "none"
    dropout: float = 0.0
    lookup: bool = False

    merge_ignored_fields: ClassVar[tuple[str, ...]] = (
        *ParametricPrimitive.merge_ignored_fields,
        "rank",
        "scale",
        "dropout",
    )

    def with_recipe(self, name: str, recipe: MergeRecipe) -> ParametricPrimitive:
        """Ranks add up in a sum; what TIES or DARE leaves of B A has any rank."""
        most = min(self.width, self.width_in)
        ranks = [leaf.rank for leaf in recipe.members if isinstance(leaf, LowRank)]
        rank = sum(ranks) if recipe.method == "linear" else most
        if recipe.rank is not None:
            rank = min(recipe.rank, most)
        return replace(super().with_recipe(name, recipe), rank=rank, scale=1.0)  # type: ignore[call-arg]

    def why_not_mergeable(self) -> str | None:
        if self.gate:
            return "a gate"
        return "a bias in place of the backbone's" if self.bias == "backbone" else None

    def multiplications(self) -> int:
        read = 0 if self.lookup else self.width_in
        return self.rank * (read + self.width) + (read if self.gate else 0)

    def __str__(self) -> str:
        scale = "" if self.scale == 1.0 or self.gate else f" ×{self.scale:.6g}"
        bias = "" if self.bias == "none" else f" bias={self.bias}"
        words = f"{scale}{' gate' if self.gate else ''}{bias}{self.source_label}"
        return f"{self.label} {self.part} {self.width_in}→{self.rank}→{self.width}{words}"


@dataclass(frozen=True)
class DecomposedLowRank(LowRank):
    """f'(x) = m ⊙ V x / ‖V‖ + b, V = W + s·B A, norms row by row (DoRA, Liu et al., 2024).

    The norms count as constants where gradients are taken, as in the paper. With `peer` it is what
    AdapterHub's files were trained with: ‖W + B A‖ without s, and b is multiplied, too.
    """

    label: ClassVar[str] = "decomposed"

    adapterhub_norm: bool = False


@dataclass(frozen=True)
class SharedLowRank(LinearUpdate):
    """f'(x) = f(x) + s·Λ_b B Λ_d A x, A and B shared by all sites (VeRA, Kopiczko et al., 2024).

    A and B have as many columns and rows as the widest site needs; the first ones are used. They
    come out of the generator `seed`, or are stored in the part `projection`.
    """

    width_in: int
    rank: int
    projection_size: tuple[int, int]
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
class Rescale(LinearUpdate):
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
class BiasDelta(LinearUpdate):
    """f'(x) = f(x) + δ: another bias (BitFit, Ben Zaken et al., 2022).

    `whole` says that the bias itself is stored: δ is what it is more than the backbone's.
    """

    replaces_bias: bool = False

    def why_not_mergeable(self) -> str | None:
        return "a bias in place of the backbone's" if self.replaces_bias else None

    def __str__(self) -> str:
        return f"shift {self.part} {self.width}{' bias=backbone' if self.replaces_bias else ''}"


@dataclass(frozen=True)
class WeightReplacement(LinearUpdate):
    """Another weight W' and bias b' of a map: f'(x) = f(x) + (W' − W) x + (b' − b).

    W and b are the backbone's; alone it is the map with W' and b'. In a `lookup`, x stands for a
    token by its number. Its matrices are too large to be stacked.
    """

    stackable: ClassVar[bool] = False

    width_in: int
    bias: bool = True
    lookup: bool = False

    def why_not_mergeable(self) -> str | None:
        return "a weight in place of the backbone's"

    def __str__(self) -> str:
        return f"replace {self.part} {self.width_in}→{self.width}"


@dataclass(frozen=True)
class NormReplacement(LinearUpdate):
    """Another weight w and bias c of a norm: f'(x) = f(x) + (w − w₀) ⊙ x̂ + (c − c₀).

    x̂ is the normalised x, w₀ and c₀ are the backbone's; alone it is the norm with w and c.
    """

    bias: bool = True

    def why_not_mergeable(self) -> str | None:
        return "a weight in place of the backbone's"

    def __str__(self) -> str:
        return f"renorm {self.part} {self.width}"


def is_input_independent(node: Primitive) -> bool:
    """Whether a primitive makes one weight of one weight: the same for all tokens and examples."""
    if isinstance(node, LowRank | Rescale) and node.gate:
        return False
    if not node.inner():
        return isinstance(node, LinearUpdate) and not isinstance(node, NormReplacement)
    return not isinstance(node, TokenSplit) and all(map(is_input_independent, node.inner()))


def find_norms_without_weight(
    node: Primitive, *, below: bool = True
) -> Iterator[DecomposedLowRank]:
    """What normalises a weight where there is none: behind a gate or a split of the tokens."""
    if isinstance(node, DecomposedLowRank) and not below:
        yield node
    if isinstance(node, Chain):
        for member in node.members:
            yield from find_norms_without_weight(member, below=below)
            below = below and is_input_independent(member)
        return
    for inner in node.inner():
        yield from find_norms_without_weight(inner, below=below)
