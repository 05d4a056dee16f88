"""Random compositions as trees of our own: a tree writes itself in the language.

`tests.reference` says what it denotes, so that neither knows anything of the package.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

from hypothesis import strategies as st

from tests.tiny import LAYERS

Settings = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Tree:
    def inner(self) -> tuple[Tree, ...]:
        return ()

    def leaves(self) -> Iterator[Leaf]:
        for child in self.inner():
            yield from child.leaves()

    def depth(self) -> int:
        return 1 + max((child.depth() for child in self.inner()), default=0)


@dataclass(frozen=True)
class Leaf(Tree):
    """One new adapter; its name is bound by a `let`, so that it may stand in several places."""

    name: str
    settings: Settings = ()

    def leaves(self) -> Iterator[Leaf]:
        yield self

    def get(self, name: str, default: Any = False) -> Any:
        return dict(self.settings).get(name, default)

    def call(self) -> str:
        return f"bottleneck({', '.join(f'{key}={spelt(value)}' for key, value in self.settings)})"

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Row(Tree):
    members: tuple[Tree, ...]
    piped: bool = False

    def inner(self) -> tuple[Tree, ...]:
        return self.members

    def __str__(self) -> str:
        texts = [str(member) for member in self.members]
        if self.piped:
            return f"({' | '.join(texts)})"
        return f"stack({', '.join(texts)})"


@dataclass(frozen=True)
class Fusion(Tree):
    name: str
    members: tuple[Tree, ...]
    settings: Settings = ()

    def inner(self) -> tuple[Tree, ...]:
        return self.members

    def call(self) -> str:
        options = [f"{key}={spelt(value)}" for key, value in self.settings]
        return f"fuse({', '.join([*map(str, self.members), *options])})"

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Cut(Tree):
    """`drop` or `keep`; `kept` are the layers that are left."""

    body: Tree
    kept: frozenset[int]
    word: str = "drop"

    def inner(self) -> tuple[Tree, ...]:
        return (self.body,)

    def __str__(self) -> str:
        named = self.kept if self.word == "keep" else frozenset(range(LAYERS)) - self.kept
        return f"({self.body} | {self.word}(layers={spelt(named)}))"


def standing(tree: Tree) -> frozenset[int]:
    """The layers in which cuts leave something; a composition that has none is refused."""
    inner = [standing(one) for one in tree.inner()] or [frozenset(range(LAYERS))]
    found = frozenset[int]().union(*inner)
    return found & tree.kept if isinstance(tree, Cut) else found


@dataclass(frozen=True)
class Mean(Tree):
    """`average`; without weights all count the same."""

    members: tuple[Tree, ...]
    weights: tuple[float, ...] | None = None
    normalize: bool = False

    def inner(self) -> tuple[Tree, ...]:
        return self.members

    def __str__(self) -> str:
        flags = ["normalize=true"] if self.normalize else []
        return f"average({', '.join([*weighted(self.members, self.weights), *flags])})"


@dataclass(frozen=True)
class Factor(Tree):
    """`scale`."""

    body: Tree
    by: float

    def inner(self) -> tuple[Tree, ...]:
        return (self.body,)

    def __str__(self) -> str:
        return f"({self.body} | scale(by={self.by}))"


@dataclass(frozen=True)
class Tokens(Tree):
    """`split`."""

    members: tuple[Tree, ...]
    at: tuple[int, ...]

    def inner(self) -> tuple[Tree, ...]:
        return self.members

    def __str__(self) -> str:
        return f"split({', '.join(map(str, self.members))}, at={spelt(self.at)})"


@dataclass(frozen=True)
class Marked(Tree):
    """`train` or `freeze`: nothing for what is computed."""

    body: Tree
    word: str

    def inner(self) -> tuple[Tree, ...]:
        return (self.body,)

    def __str__(self) -> str:
        return f"({self.body} | {self.word}())"


@dataclass(frozen=True)
class Merged(Tree):
    """`merge` of adapters with the settings of the first."""

    members: tuple[Leaf, ...]
    weights: tuple[float, ...] | None = None
    settings: Settings = ()

    def inner(self) -> tuple[Tree, ...]:
        return self.members

    def get(self, name: str, default: Any = None) -> Any:
        return dict(self.settings).get(name, default)

    def __str__(self) -> str:
        options = [f"{key}={spelt(value)}" for key, value in self.settings]
        return f"merge({', '.join([*weighted(self.members, self.weights), *options])})"


@dataclass(frozen=True)
class Nothing(Tree):
    """`none`."""

    def __str__(self) -> str:
        return "none"


def weighted(members: tuple[Tree, ...], weights: tuple[float, ...] | None) -> list[str]:
    if weights is None:
        return [str(member) for member in members]
    return [f"{member}:{weight}" for member, weight in zip(members, weights, strict=True)]


def spelt(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, frozenset | tuple):
        return f"[{', '.join(map(str, sorted(value) if isinstance(value, frozenset) else value))}]"
    return str(value)


def text(tree: Tree) -> str:
    """The expression, with a `let` for everything that has weights."""
    lets: dict[str, str] = {}

    def bind(node: Tree) -> None:
        for child in node.inner():
            bind(child)
        if isinstance(node, Leaf | Fusion):
            lets[node.name] = node.call()

    bind(tree)
    return " ".join([*(f"let {name} = {call};" for name, call in lets.items()), str(tree)])


PLACEMENTS: tuple[Settings, ...] = (
    (),
    (("original_ln_before", False),),
    (("residual_before_ln", False),),
    (("residual_before_ln", "post_add"),),
    (("parallel", True),),
)
LAST = ("original_ln_after", False)

CHANCE = ("dropout", "stochastic_depth")
"""Settings that leave something out by chance: in training, and never in eval."""


def without_chance(tree: Tree) -> Tree:
    """The same composition with no dropout anywhere: what it is in training, too."""
    changes: dict[str, Any] = {}
    for entry in fields(tree):
        value = getattr(tree, entry.name)
        if isinstance(value, Tree):
            changes[entry.name] = without_chance(value)
        elif entry.name == "members":
            changes[entry.name] = tuple(map(without_chance, value))
        elif entry.name == "settings":
            changes[entry.name] = tuple(one for one in value if one[0] not in CHANCE)
    return replace(tree, **changes)


layers = st.sets(st.integers(0, LAYERS - 1), min_size=1, max_size=LAYERS).map(frozenset)


@dataclass
class Names:
    """What has been named so far in one composition."""

    leaves: list[tuple[Settings, Leaf]] = field(default_factory=list)
    fusions: int = 0


@st.composite
def leaf(draw: st.DrawFn, names: Names, place: Settings | None = None, fused: bool = False) -> Leaf:
    placed = draw(st.sampled_from(PLACEMENTS)) if place is None else place
    known = [old for where, old in names.leaves if where == placed]
    known = [old for old in known if not (fused and old.get("invertible"))]
    if known and draw(st.integers(0, 5)) == 0:
        return draw(st.sampled_from(known))
    attention, output = draw(st.sampled_from([(False, True), (True, False), (True, True)]))
    options = {
        "reduction": draw(st.sampled_from([2, 3.5, 6, (6, 2), (3, 4, 12)])),
        "activation": draw(st.sampled_from(["relu", "gelu", "swish", "tanh", "leakyrelu"])),
        "attention": attention,
        "output": output,
        "scale": draw(st.sampled_from([1, 1, 0.5, -2.5, 0, "learned", "channel"])),
        "leave_out": draw(st.sampled_from([frozenset(), frozenset(), frozenset({0, 2})])),
    }
    for name in CHANCE:
        if draw(st.booleans()):
            options[name] = draw(st.sampled_from([0.25, 0.5]))
    for flag in ("gate", "ln_before", "ln_after", "adapter_residual_before_ln"):
        options[flag] = draw(st.integers(0, 3)) == 0
    if not fused and draw(st.integers(0, 3)) == 0:
        options |= {"invertible": "nice", "invertible_reduction": draw(st.sampled_from([1, 2]))}
    made = Leaf(f"a{len(names.leaves)}", (*placed, *options.items()))
    names.leaves.append((placed, made))
    return made


WEIGHTS: dict[int, tuple[tuple[float, ...] | None, ...]] = {
    1: (None, (1.0,)),
    2: (None, (0.25, 0.75), (1.5, -0.5), (1.0, 0.0)),
    3: (None, (0.5, 0.25, 0.25), (2.0, -1.0, 0.0)),
}


@st.composite
def mean(draw: st.DrawFn, names: Names, depth: int, place: Settings | None, bare: bool) -> Mean:
    member = tree(names, depth - 1, place, bare)
    if place is None:  # a fusion takes no `none` inside
        member = st.one_of(member, member, member, st.just(Nothing()))
    members = tuple(draw(st.lists(member, min_size=1, max_size=3)))
    weights = draw(st.sampled_from(WEIGHTS[len(members)]))
    normalize = draw(st.booleans())
    if normalize and weights is not None:
        weights = tuple(3 * weight for weight in weights)
    return Mean(members, weights, normalize)


@st.composite
def tokens(draw: st.DrawFn, names: Names, depth: int, place: Settings | None) -> Tokens:
    members = draw(
        st.lists(tree(names, depth - 1, place, place is not None), min_size=2, max_size=3)
    )
    edges = draw(st.sets(st.integers(0, 8), min_size=len(members) - 1, max_size=len(members) - 1))
    return Tokens(tuple(members), tuple(sorted(edges)))


@st.composite
def merged(draw: st.DrawFn, names: Names, place: Settings | None, bare: bool) -> Merged:
    first = draw(leaf(names, place, bare))
    members, where = [first], next(where for where, old in names.leaves if old == first)
    for _ in range(draw(st.integers(0, 2))):
        members.append(replace(first, name=f"a{len(names.leaves)}"))
        names.leaves.append((where, members[-1]))
    weights = draw(st.sampled_from((*WEIGHTS[len(members)], (0.7, -1.3, 2.0)[: len(members)])))
    how = draw(st.sampled_from(["linear", "ties", "dare"]))
    settings = {"method": how, "seed": draw(st.integers(0, 3))}
    if how != "linear":
        settings["density"] = draw(st.sampled_from([0.3, 0.5, 0.9, 1]))
    return Merged(tuple(members), weights, tuple(settings.items()))


@st.composite
def fusion(draw: st.DrawFn, names: Names, depth: int, place: Settings | None = None) -> Fusion:
    """Members of one placement; a member that replaces the backbone's norm stands alone."""
    placed = draw(st.sampled_from(PLACEMENTS)) if place is None else place
    member = leaf(names, placed, fused=True)
    if LAST not in placed and depth > 1:
        member = tree(names, depth - 1, placed)
    members = draw(st.lists(member, min_size=2, max_size=3))
    query, value = draw(st.sampled_from(["before", "after"])), draw(st.booleans())
    names.fusions += 1
    settings = (("query", query), ("value", value), ("dropout", draw(st.sampled_from([0, 0.25]))))
    return Fusion(f"f{names.fusions}", tuple(members), settings)


COMBINED = ("mean", "mean", "factor", "tokens", "merged", "marked")


@st.composite
def tree(
    draw: st.DrawFn, names: Names, depth: int, place: Settings | None = None, bare: bool = False
) -> Tree:
    """A block that leaves the backbone's norm in its place; inside fuse, all of one place.

    `bare` without invertible parts.
    """
    fused, bare = place is not None, bare or place is not None
    kinds = ["leaf", "row", "cut"] if fused else ["leaf", *["row", "fusion", "cut"] * 2, "cut"]
    kind = draw(st.sampled_from([*kinds, *COMBINED])) if depth > 1 else "leaf"
    whole = {
        "leaf": lambda: leaf(names, place, bare),
        "fusion": lambda: fusion(names, depth - 1),
        "mean": lambda: mean(names, depth - 1, place, bare),
        "tokens": lambda: tokens(names, depth - 1, place),
        "merged": lambda: merged(names, place, bare),
    }
    if kind in whole:
        return draw(whole[kind]())
    inner = tree(names, depth - 1, place, bare or kind == "factor")
    if kind == "row":
        members = draw(st.lists(inner, min_size=2, max_size=3))
        return Row(tuple(members), draw(st.booleans()))
    body = draw(inner.filter(lambda found: not isinstance(found, Cut)))
    if kind == "factor":
        return Factor(body, draw(st.sampled_from([0.5, -1.5, 2, 1, 0])))
    if kind == "marked":
        return Marked(body, draw(st.sampled_from(["train", "freeze"])))
    kept = draw(layers.filter(lambda found: found & standing(body)))
    return Cut(body, kept, draw(st.sampled_from(["drop", "keep"])))


@st.composite
def compositions(draw: st.DrawFn, depth: int = 4) -> Tree:
    """Any composition that the checker takes."""
    names = Names()
    found = draw(tree(names, depth))
    if draw(st.integers(0, 4)):
        return found
    place = (*draw(st.sampled_from(PLACEMENTS)), LAST)
    last = draw(st.one_of(leaf(names, place), fusion(names, 1, place)))
    return Row((found, last), draw(st.booleans()))


@st.composite
def groups(draw: st.DrawFn, count: int, depth: int = 2) -> tuple[Tree, ...]:
    """Several blocks of one composition."""
    names = Names()
    return tuple(draw(tree(names, depth)) for _ in range(count))
