"""Primitives: what a program computes at one site of the backbone.

At a site of a post-norm layer the backbone computes LN(h + x): `h` is the output of the sub-layer
(after its dense map and dropout), `x` the sub-layer's input. An adapter there is a function of h
that may also look at x and LN. It is a residual `r` and a contribution `u`, and returns r + u.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from adaptcompose.backbones.layout import Site

Reads = Literal["output", "norm", "input"]
Residual = Literal["output", "sum", "read"]
ParameterSource = Literal["stored", "computed", "materialised"]


@dataclass(frozen=True)
class Placement:
    """What an adapter reads, what it is added to, and whether the backbone's norm follows.

    reads     `output` h · `norm` LN(h + x) · `input` x
    residual  `output` h · `sum` h + x · `read` what it reads
    finish    the backbone's own LN(· + x) follows; otherwise the adapter replaces it
    """

    reads: Reads = "norm"
    residual: Residual = "output"
    followed_by_norm: bool = True

    @property
    def residual_source(self) -> str:
        """The state that it is added to, under one name: `read` is what it reads."""
        return self.reads if self.residual == "read" else self.residual

    def __str__(self) -> str:
        words = {"output": "h", "norm": "LN(h+x)", "input": "x", "sum": "h+x"}
        words["read"] = words[self.reads]
        return f"{words[self.residual]} + u({words[self.reads]}){'' if self.followed_by_norm else ', no norm'}"


@dataclass(frozen=True)
class Primitive:
    """An operation at one site. `part` names the weights it uses.

    `stackable` says that several of one shape can be computed at once, their weights stacked.
    """

    stackable: ClassVar[bool] = False

    def inner(self) -> tuple[Primitive, ...]:
        """The primitives inside this one."""
        return ()

    def rebuild(self, inner: tuple[Primitive, ...]) -> Primitive:
        """The same primitive around other inner ones."""
        return self

    def structure(self) -> Primitive:
        """The same primitive without names: what computes alike with other weights."""
        return self.rebuild(tuple(child.structure() for child in self.inner()))

    def parts(self) -> Iterator[str]:
        """The names of the parts whose weights this primitive uses."""
        for primitive in self.inner():
            yield from primitive.parts()

    @property
    def placement(self) -> Placement:
        raise NotImplementedError

    def input_placements(self) -> Iterator[Placement]:
        """The placements of all that reads the state in which this primitive stands."""
        yield self.placement

    def multiplications(self) -> int:
        """Multiplications of matrix products per token."""
        return sum(primitive.multiplications() for primitive in self.inner())

    def lines(self, depth: int = 0) -> Iterator[str]:
        yield "  " * depth + str(self)
        for primitive in self.inner():
            yield from primitive.lines(depth + 1)


@dataclass(frozen=True)
class ParametricPrimitive(Primitive):
    """A primitive with weights of its own, at one site.

    `form` says how it comes by them: `stored`, as they are; `computed` in every forward by the
    method, from what is stored at its site and at `sources`; `materialised`, the same, kept until
    something stored changes. With a `recipe` they are computed from those of other leaves, and
    `part` is only a name.
    """

    part: str
    site: Site
    parameter_source: ParameterSource = field(default="stored", kw_only=True)
    source_sites: tuple[Site, ...] = field(default=(), kw_only=True)
    recipe: MergeRecipe | None = field(default=None, kw_only=True)

    def structure(self) -> Primitive:
        return replace(self, part="")

    merge_ignored_fields: ClassVar[tuple[str, ...]] = ("part", "site", "form", "sources", "recipe")
    """What members of a merge may differ in, by name. Passes compare these fields all the same."""

    def with_recipe(self, name: str, recipe: MergeRecipe) -> ParametricPrimitive:
        """The primitive that stands for those of a recipe, of which this is the first."""
        return replace(self, part=name, parameter_source="computed", source_sites=(), recipe=recipe)

    def why_not_mergeable(self) -> str | None:
        """What it has that no merge can have."""
        return None

    def parts(self) -> Iterator[str]:
        if self.recipe is None:
            yield self.part
        for leaf in self.recipe.members if self.recipe else ():
            yield from leaf.parts()

    @property
    def source_label(self) -> str:
        return "" if self.parameter_source == "stored" else f" {self.parameter_source}"


@dataclass(frozen=True)
class MergeRecipe:
    """How the weights of a merge come from those of leaves of one shape."""

    members: tuple[ParametricPrimitive, ...]
    weights: tuple[float, ...]
    method: Literal["linear", "ties", "dare"] = "linear"
    density: float = 1.0
    seed: int = 0
    rank: int | None = None


@dataclass(frozen=True)
class BottleneckMLP(ParametricPrimitive):
    """u = s·(U σ(D z + b) + c), z what it reads (Houlsby et al., 2019, and after).

    `norm_before` puts an own LayerNorm in front of D, `norm_after` one behind; the residual is
    added before the latter if `residual_inside`. `gate` multiplies by mean_t σ(w·z_t + v).
    """

    stackable: ClassVar[bool] = True

    width: int
    rank: int
    activation: str
    where: Placement
    scale: float | Literal["learned", "channel"] = 1.0
    gate: bool = False
    norm_before: bool = False
    norm_after: bool = False
    residual_inside: bool = False
    dropout: float = 0.0
    depth_drop: float = 0.0

    merge_ignored_fields: ClassVar[tuple[str, ...]] = (
        *ParametricPrimitive.merge_ignored_fields,
        "dropout",
        "depth_drop",
    )

    @property
    def placement(self) -> Placement:
        return self.where

    def multiplications(self) -> int:
        return 2 * self.width * self.rank + (self.width if self.gate else 0)

    def __str__(self) -> str:
        shape = f"{self.width}→{self.rank}→{self.width}"
        flags = ("norm_before", "norm_after", "residual_inside", "gate")
        extra = "".join(f" {flag}" for flag in flags if getattr(self, flag))
        scale = "" if self.scale == 1.0 else f" ×{self.scale}"
        words = f"{self.activation}{scale}{extra}{self.source_label}"
        return f"bottleneck {self.part} {shape} {words}  {self.where}"


@dataclass(frozen=True)
class AdditiveCoupling(ParametricPrimitive):
    """Additive coupling, NICE (Dinh et al., 2015; Pfeiffer et al., 2020b), or its inverse.

    y₁ = x₁ + F(x₂), y₂ = x₂ + G(y₁); inverse: x₂ = y₂ − G(y₁), x₁ = y₁ − F(x₂).
    """

    stackable: ClassVar[bool] = True
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
    """One after another: the output of the first is h for the second."""

    stackable: ClassVar[bool] = True

    members: tuple[Primitive, ...]

    def inner(self) -> tuple[Primitive, ...]:
        return self.members

    def rebuild(self, inner: tuple[Primitive, ...]) -> Chain:
        return replace(self, members=inner)

    @property
    def placement(self) -> Placement:
        """Reads and residual of the first; whether the norm follows is for the last to say."""
        return replace(
            self.members[0].placement, followed_by_norm=self.members[-1].placement.followed_by_norm
        )

    def input_placements(self) -> Iterator[Placement]:
        for place in self.members[0].input_placements():
            yield replace(place, followed_by_norm=self.placement.followed_by_norm)

    def __str__(self) -> str:
        return "chain"


@dataclass(frozen=True)
class FusionAttention:
    """How an AdapterFusion weighs its branches (Pfeiffer et al., 2021).

    tₙ = (W_q q + b_q)·(W_k uₙ + b_k) / T, α = softmax(t). An absent map is the identity.
    """

    part: str
    site: Site
    width: int
    query: bool = True
    key: bool = True
    value: bool = True
    query_before_norm: bool = False
    residual_before: bool = False
    dropout: float | None = None
    temperature: bool = False


@dataclass(frozen=True)
class Mixture(Primitive):
    """r + Σ αₙ W_v uₙ over the branches; r the residual of their common placement."""

    branches: tuple[Primitive, ...]
    attention: FusionAttention

    def inner(self) -> tuple[Primitive, ...]:
        return self.branches

    def rebuild(self, inner: tuple[Primitive, ...]) -> Mixture:
        return replace(self, branches=inner)

    def structure(self) -> Primitive:
        anonymous = self.rebuild(tuple(branch.structure() for branch in self.branches))
        return replace(anonymous, attention=replace(self.attention, part=""))

    def parts(self) -> Iterator[str]:
        yield self.attention.part
        yield from super().parts()

    @property
    def placement(self) -> Placement:
        return self.branches[0].placement

    def multiplications(self) -> int:
        maps = self.attention
        square = maps.width * maps.width
        count = len(self.branches)
        own = maps.query * square + count * (maps.key + maps.value) * square
        return super().multiplications() + own + 2 * count * maps.width

    def __str__(self) -> str:
        maps = self.attention
        flags = [f"no {name}" for name in ("query", "key", "value") if not getattr(maps, name)]
        more = ("query_before_norm", "residual_before", "temperature")
        flags += [name for name in more if getattr(maps, name)]
        extra = "".join(f" {flag}" for flag in flags)
        return f"attention {maps.part} {maps.width} over {len(self.branches)}{extra}"


@dataclass(frozen=True)
class Rows(Primitive):
    """Every row of the batch has its own member; None leaves the row to the backbone.

    A member's norm follows or does not follow as its own placement says.
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
    """A primitive with `change` applied to everything inside it and to itself, innermost first."""
    inner = tuple(rewrite(child, change) for child in node.inner())
    return change(node.rebuild(inner) if inner else node)
