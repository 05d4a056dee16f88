"""Primitives that change a map of the backbone: a linear map, or a norm.

A map f: [batch, tokens, in] → [batch, tokens, out] becomes another map f'. At a linear map, f(x) is
W x + b with the backbone's W [out, in] and b [out]. The members of a chain change the map from left
to right: LoRAs on one map add up, an update that scales the input scales it for all members before
it, and DoRA normalises the weight that the members before it have made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from adaptcompose.ir.mixing import TokenSplit
from adaptcompose.ir.primitives import (
    FREE_IN_MERGE,
    Chain,
    MergeRecipe,
    ParametricPrimitive,
    Placement,
    Primitive,
)


@dataclass(frozen=True)
class LinearUpdate(ParametricPrimitive):
    """A change of one map; `width` is the number of its outputs."""

    stackable: ClassVar[bool] = True

    width: int

    @property
    def placement(self) -> Placement:
        return Placement("output", "output")


@dataclass(frozen=True)
class LowRank(LinearUpdate):
    """f'(x) = f(x) + s·B A x (LoRA, Hu et al., 2022).

    x is [batch, tokens, in], A [rank, in], B [out, rank], s the number `scale`.

    With `lookup`, x are token numbers [batch, tokens], and A x is the column of A with that number.
    `gate` replaces s by g = mean_t σ(w·x_t + v), one number per example, w [1, in], v [1] (Mao et
    al., 2022). `bias` set to `own` adds s·c, c [out]; set to `backbone`, it replaces b. In
    training, `dropout` acts on x in front of A.
    """

    kind: ClassVar[str] = "lowrank"
    label: ClassVar[str] = "low-rank"
    is_rank_free_in_merge: ClassVar[bool] = True

    width_in: int
    rank: int = field(metadata=FREE_IN_MERGE)
    scale: float = field(default=1.0, metadata=FREE_IN_MERGE)
    gate: bool = False
    bias: Literal["none", "own", "backbone"] = "none"
    dropout: float = field(default=0.0, metadata=FREE_IN_MERGE)
    lookup: bool = False

    @property
    def averages_over_tokens(self) -> bool:
        return self.gate

    def with_recipe(self, name: str, recipe: MergeRecipe) -> ParametricPrimitive:
        """In a sum, ranks add up; what TIES or DARE leaves of B A can have any rank."""
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
    """f'(x) = m ⊙ V x / ‖V‖ + b with V = W + s·B A (DoRA, Liu et al., 2024, equation 5).

    V is [out, in], its norm ‖V‖ [out] is taken row by row, and m is [out]. The norm counts as a
    constant where gradients are computed, as in section 4.3 of the paper. With `adapterhub_norm` it
    is what the files of AdapterHub were trained with: ‖W + B A‖ without s, and m/‖V‖ multiplies b,
    too.
    """

    kind: ClassVar[str] = "decomposed"
    label: ClassVar[str] = "decomposed"

    adapterhub_norm: bool = field(default=False, metadata={"label": "peer"})


@dataclass(frozen=True)
class SharedLowRank(LinearUpdate):
    """f'(x) = f(x) + s·Λ_b B Λ_d A x (VeRA, Kopiczko et al., 2024, equation 2).

    Λ_b and Λ_d are the diagonal matrices of the site's vectors b [out] and d [rank]. All sites
    share A [rank, columns] and B [rows, rank], and `projection_size` is (columns, rows): the sizes
    of the widest site. A narrower site uses the first columns and rows. A and B are made by a
    generator with `seed`, or they are stored in the part `projection`.
    """

    kind: ClassVar[str] = "sharedlowrank"

    width_in: int
    rank: int
    projection_size: tuple[int, int] = field(metadata={"label": "widest"})
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
    """f'(x) = s·l ⊙ f(x), or f(s·l ⊙ x) (IA³, Liu et al., 2022, section 3.3).

    `side` says which one: with `output`, l is [out], with `input`, l is [in]. s is the number
    `scale`; `gate` replaces it by g = mean_t σ(w·x_t + v), one number per example, w [1, in],
    v [1].
    """

    kind: ClassVar[str] = "rescale"

    width_in: int
    side: Literal["output", "input"] = "output"
    scale: float = 1.0
    gate: bool = False

    @property
    def averages_over_tokens(self) -> bool:
        return self.gate

    def __str__(self) -> str:
        size = self.width if self.side == "output" else self.width_in
        scale = "" if self.scale == 1.0 or self.gate else f" ×{self.scale:.6g}"
        return f"rescale {self.part} {self.side} {size}{scale}{' gate' if self.gate else ''}"


@dataclass(frozen=True)
class BiasDelta(LinearUpdate):
    """f'(x) = f(x) + δ, δ [out]: a trained bias (BitFit, Ben Zaken et al., 2022).

    With `replaces_bias`, the trained bias b' [out] itself is stored, and δ = b' − b.
    """

    kind: ClassVar[str] = "shift"

    replaces_bias: bool = False

    def why_not_mergeable(self) -> str | None:
        return "a bias in place of the backbone's" if self.replaces_bias else None

    def __str__(self) -> str:
        return f"shift {self.part} {self.width}{' bias=backbone' if self.replaces_bias else ''}"


@dataclass(frozen=True)
class WeightReplacement(LinearUpdate):
    """f'(x) = f(x) + (W' − W) x + (b' − b): a map whose weight and bias are trained as a whole.

    W' is [out, in], and b' is [out] if there is a `bias`; W and b are the backbone's. Alone on a
    map, the result is W' x + b'. PEFT calls such maps `modules_to_save`. With `lookup`, x are token
    numbers [batch, tokens]. The matrices are too large to be stacked.
    """

    kind: ClassVar[str] = "replaced"
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
    """f'(x) = f(x) + (w − w₀) ⊙ x̂ + (c − c₀): a norm with trained weight and bias.

    w is [d], and c is [d] if there is a `bias`; x̂ [batch, tokens, d] is the normalised x, w₀ and c₀
    are the backbone's. Alone on a norm, the result is w ⊙ x̂ + c (Zhao et al., 2024).
    """

    kind: ClassVar[str] = "renorm"

    bias: bool = True

    def why_not_mergeable(self) -> str | None:
        return "a weight in place of the backbone's"

    def __str__(self) -> str:
        return f"renorm {self.part} {self.width}"


def is_input_independent(node: Primitive) -> bool:
    """Whether a primitive makes one weight from one weight, for all tokens and examples alike."""
    if isinstance(node, NormReplacement):
        return False
    if not node.inner():
        return isinstance(node, LinearUpdate) and not node.averages_over_tokens
    return not isinstance(node, TokenSplit) and all(map(is_input_independent, node.inner()))


def find_norms_without_weight(
    node: Primitive, *, has_weight: bool = True
) -> Iterator[DecomposedLowRank]:
    """The primitives that normalise a weight where there is none: after a gate or a token split.

    `has_weight` says whether the map that `node` changes has one weight for all tokens.
    """
    if isinstance(node, DecomposedLowRank) and not has_weight:
        yield node
    if isinstance(node, Chain):
        for member in node.members:
            yield from find_norms_without_weight(member, has_weight=has_weight)
            has_weight = has_weight and is_input_independent(member)
        return
    for inner in node.inner():
        yield from find_norms_without_weight(inner, has_weight=has_weight)
