"""Primitives: what a program computes at one site of the backbone.

At a site of a post-norm layer the backbone computes LN(h + x). The tensor h [batch, tokens, d] is
the output of the sub-layer (after its dense map and dropout), x [batch, tokens, d] is the input of
the sub-layer. An adapter at the site is a function of h that can also read x and LN. It returns
r + u: a residual r and an update u, both [batch, tokens, d].

Formulas write ⟦e⟧(h) for what the primitive e returns. Weights are matrices [out, in] and act on
the last dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal

from adaptcompose.backbones.layout import Site

Reads = Literal["output", "norm", "input"]
Residual = Literal["output", "sum", "read"]
ParameterSource = Literal["stored", "computed", "materialised"]

_SYMBOLS = {"output": "h", "norm": "LN(h+x)", "input": "x", "sum": "h+x"}


@dataclass(frozen=True)
class Placement:
    """Which state an adapter reads, which state it is added to, and whether the norm follows.

    reads             `output`: h; `norm`: LN(h + x); `input`: x
    residual          `output`: h; `sum`: h + x; `read`: the state that the adapter reads
    followed_by_norm  whether the backbone's LN(· + x) follows; otherwise the adapter replaces it

    >>> print(Placement("norm", "sum"))
    h+x + u(LN(h+x))
    """

    reads: Reads = "norm"
    residual: Residual = "output"
    followed_by_norm: bool = True

    @property
    def residual_source(self) -> str:
        """The state that the adapter is added to, with `read` replaced by the state it reads."""
        return self.reads if self.residual == "read" else self.residual

    def __str__(self) -> str:
        norm = "" if self.followed_by_norm else ", no norm"
        return f"{_SYMBOLS[self.residual_source]} + u({_SYMBOLS[self.reads]}){norm}"


@dataclass(frozen=True)
class Primitive:
    """An operation at one site.

    `stackable` says whether several primitives of one shape can be computed at once, with their
    weights stacked.
    """

    stackable: ClassVar[bool] = False

    def inner(self) -> tuple[Primitive, ...]:
        """The primitives inside this one."""
        return ()

    def rebuild(self, inner: tuple[Primitive, ...]) -> Primitive:
        """A copy of this primitive with other primitives inside."""
        return self

    def structure(self) -> Primitive:
        """A copy without names: primitives of equal structure differ only in their weights."""
        return self.rebuild(tuple(child.structure() for child in self.inner()))

    def parts(self) -> Iterator[str]:
        """The names of the parts whose weights this primitive uses."""
        for primitive in self.inner():
            yield from primitive.parts()

    @property
    def placement(self) -> Placement:
        """The state that this primitive reads, and the state that it is added to."""
        raise NotImplementedError

    def input_placements(self) -> Iterator[Placement]:
        """The placements of all inner primitives that read the state given to this primitive."""
        yield self.placement

    def multiplications(self) -> int:
        """The number of scalar multiplications in matrix products, per token."""
        return sum(primitive.multiplications() for primitive in self.inner())

    def lines(self, depth: int = 0) -> Iterator[str]:
        """The lines that a program prints for this primitive, indented by 2 · `depth` spaces."""
        yield "  " * depth + str(self)
        for primitive in self.inner():
            yield from primitive.lines(depth + 1)


FREE_IN_MERGE: Mapping[str, Any] = {"free_in_merge": True}
"""Metadata of a field in which the members of a merge may differ."""


@dataclass(frozen=True)
class ParametricPrimitive(Primitive):
    """A primitive with weights, which belong to the part `part` and the site `site`.

    `parameter_source` says where the weights come from. `stored` weights are used as they are.
    `computed` weights are made by the method in every forward, from the tensors stored at `site`
    and at `source_sites`. `materialised` weights are computed in the same way, but only again after
    a stored tensor has changed. With a `recipe`, the weights are computed from those of the
    recipe's members, and `part` is only a name.
    """

    kind: ClassVar[str]
    """The name of the primitive in messages."""
    is_rank_free_in_merge: ClassVar[bool] = False
    """Whether a merge can have any rank, whatever the ranks of its members."""

    part: str = field(metadata=FREE_IN_MERGE)
    site: Site = field(metadata=FREE_IN_MERGE)
    parameter_source: ParameterSource = field(
        default="stored", kw_only=True, metadata=FREE_IN_MERGE
    )
    source_sites: tuple[Site, ...] = field(default=(), kw_only=True, metadata=FREE_IN_MERGE)
    recipe: MergeRecipe | None = field(default=None, kw_only=True, metadata=FREE_IN_MERGE)

    def structure(self) -> Primitive:
        return replace(self, part="")

    def merge_shape(self) -> dict[str, Any]:
        """The values that must be equal in all members of a merge, by their names in messages.

        A field takes part unless its metadata are `FREE_IN_MERGE`. Its name in messages is the
        metadata's `label`, or else the name of the field.
        """
        return {
            item.metadata.get("label", item.name.replace("_", " ")): getattr(self, item.name)
            for item in fields(self)
            if not item.metadata.get("free_in_merge")
        }

    def with_recipe(self, name: str, recipe: MergeRecipe) -> ParametricPrimitive:
        """The primitive of a merge whose first member is this one."""
        return replace(self, part=name, parameter_source="computed", source_sites=(), recipe=recipe)

    def why_not_mergeable(self) -> str | None:
        """The property that rules this primitive out as a member of a merge; None if it can be."""
        return None

    @property
    def averages_over_tokens(self) -> bool:
        """Whether a gate multiplies by a mean over the tokens of the call."""
        return False

    def parts(self) -> Iterator[str]:
        if self.recipe is None:
            yield self.part
        for leaf in self.recipe.members if self.recipe else ():
            yield from leaf.parts()

    @property
    def source_label(self) -> str:
        """What a program prints about `parameter_source`."""
        return "" if self.parameter_source == "stored" else f" {self.parameter_source}"


@dataclass(frozen=True)
class MergeRecipe:
    """How the weights of a merge are computed from those of its members, all of one shape.

    θ₀ are the weights of an adapter that changes nothing, θᵢ those of member i, wᵢ its weight.

    linear  θ₀ + Σ wᵢ(θᵢ − θ₀) (task arithmetic, Ilharco et al., 2023)
    ties    trim to `density`, elect signs, average the values that agree (Yadav et al., 2023)
    dare    randomly drop all but `density`, with `seed`, and rescale (Yu et al., 2024)
    """

    members: tuple[ParametricPrimitive, ...]
    weights: tuple[float, ...]
    method: Literal["linear", "ties", "dare"] = "linear"
    density: float = 1.0
    seed: int = 0
    rank: int | None = None


@dataclass(frozen=True)
class BottleneckMLP(ParametricPrimitive):
    """u = s·(U σ(D z + b) + c) (Houlsby et al., 2019; Pfeiffer et al., 2021; He et al., 2022).

    The state z [batch, tokens, d] and the residual follow from the placement `where`. With d the
    `width` and r the `rank`: D [r, d], b [r], U [d, r], c [d]. `scale` s is a number, one learned
    number [1], or one per `channel` [d].

    `norm_before` applies a LayerNorm to z first, and `norm_after` one to the result, with weights
    of the adapter [d]. `residual_inside` adds the residual before the second one. `gate` multiplies
    by g = mean_t σ(w·z_t + v), one number per example, w [1, d], v [1] (Mao et al., 2022).
    In training, `dropout` acts on the result, and `depth_drop` is the probability with which an
    example skips the adapter (Huang et al., 2016).
    """

    stackable: ClassVar[bool] = True
    kind: ClassVar[str] = "bottleneck"

    width: int
    rank: int
    activation: str
    where: Placement
    scale: float | Literal["learned", "channel"] = 1.0
    gate: bool = False
    norm_before: bool = False
    norm_after: bool = False
    residual_inside: bool = False
    dropout: float = field(default=0.0, metadata=FREE_IN_MERGE)
    depth_drop: float = field(default=0.0, metadata=FREE_IN_MERGE)

    @property
    def placement(self) -> Placement:
        return self.where

    @property
    def averages_over_tokens(self) -> bool:
        return self.gate

    def multiplications(self) -> int:
        return 2 * self.width * self.rank + (self.width if self.gate else 0)

    def __str__(self) -> str:
        shape = f"{self.width}→{self.rank}→{self.width}"
        flags = {
            "norm_before": self.norm_before,
            "norm_after": self.norm_after,
            "residual_inside": self.residual_inside,
            "gate": self.gate,
        }
        extra = "".join(f" {name}" for name, is_set in flags.items() if is_set)
        scale = "" if self.scale == 1.0 else f" ×{self.scale}"
        words = f"{self.activation}{scale}{extra}{self.source_label}"
        return f"bottleneck {self.part} {shape} {words}  {self.where}"


@dataclass(frozen=True)
class AdditiveCoupling(ParametricPrimitive):
    """Additive coupling, NICE (Dinh et al., 2015; Pfeiffer et al., 2020b), or its inverse.

    y₁ = x₁ + F(x₂), y₂ = x₂ + G(y₁); inverse: x₂ = y₂ − G(y₁), x₁ = y₁ − F(x₂).

    The halves are x₁ [batch, tokens, ⌊d/2⌋] and x₂ [batch, tokens, ⌈d/2⌉], with d the `width`. F
    and G have one hidden layer. That of F has `rank` units: F(x) = U σ(D x + b) + c with
    D [r, ⌈d/2⌉], b [r], U [⌊d/2⌋, r], c [⌊d/2⌋]. G maps the other way.
    """

    stackable: ClassVar[bool] = True
    kind: ClassVar[str] = "coupling"
    label: ClassVar[str] = "couple"

    width: int
    rank: int
    activation: str
    inverse: bool = False

    @property
    def placement(self) -> Placement:
        return Placement("output", "output", False)

    def multiplications(self) -> int:
        return 2 * self.width * self.rank

    def __str__(self) -> str:
        name = f"{'un' if self.inverse else ''}{self.label}"
        first = self.width // 2
        shape = f"{self.width - first}→{self.rank}→{first}"
        return f"{name} {self.part} {shape} {self.activation}"


@dataclass(frozen=True)
class Chain(Primitive):
    """⟦eₙ⟧(… ⟦e₂⟧(⟦e₁⟧(h))): the output of each member is h for the next one.

    h and the result are [batch, tokens, d]. Language and task adapters of MAD-X
    (Pfeiffer et al., 2020b) form such a chain.
    """

    stackable: ClassVar[bool] = True

    members: tuple[Primitive, ...]

    def inner(self) -> tuple[Primitive, ...]:
        return self.members

    def rebuild(self, inner: tuple[Primitive, ...]) -> Chain:
        return replace(self, members=inner)

    @property
    def placement(self) -> Placement:
        """What the first member reads and is added to; whether a norm follows the last one."""
        return replace(
            self.members[0].placement, followed_by_norm=self.members[-1].placement.followed_by_norm
        )

    def input_placements(self) -> Iterator[Placement]:
        for place in self.members[0].input_placements():
            yield replace(place, followed_by_norm=self.placement.followed_by_norm)

    def __str__(self) -> str:
        return "chain"


@dataclass(frozen=True)
class Rows(Primitive):
    """Each row of the batch passes one of the members, [tokens, d] → [tokens, d].

    `names` are the names of the compositions among which a row chooses, and `members` are their
    primitives at this site. None leaves a row as the backbone computes it. Whether the backbone's
    norm follows is decided per member, by its own placement.
    """

    names: tuple[str, ...]
    members: tuple[Primitive | None, ...]

    def inner(self) -> tuple[Primitive, ...]:
        return tuple(member for member in self.members if member is not None)

    def rebuild(self, inner: tuple[Primitive, ...]) -> Rows:
        left = iter(inner)
        return replace(self, members=tuple(None if m is None else next(left) for m in self.members))

    @property
    def placement(self) -> Placement:
        return replace(self.inner()[0].placement, followed_by_norm=False)

    def lines(self, depth: int = 0) -> Iterator[str]:
        yield "  " * depth + str(self)
        for name, member in zip(self.names, self.members, strict=True):
            yield "  " * (depth + 1) + f"{name}:" + (" backbone" if member is None else "")
            if member is not None:
                yield from member.lines(depth + 2)

    def __str__(self) -> str:
        return f"rows of {len(self.names)}"


def rewrite(node: Primitive, change: Callable[[Primitive], Primitive]) -> Primitive:
    """A primitive with `change` applied to each primitive inside it, then to itself."""
    inner = tuple(rewrite(child, change) for child in node.inner())
    return change(node.rebuild(inner) if inner else node)


def walk_primitives(node: Primitive) -> Iterator[Primitive]:
    """A primitive and all primitives inside it, the outermost first."""
    yield node
    for child in node.inner():
        yield from walk_primitives(child)
