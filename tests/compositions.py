"""Random compositions as trees of our own: a tree writes itself in the language.

`tests.reference` says what it denotes, so that neither knows anything of the package.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
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
    for flag in ("gate", "ln_before", "ln_after", "adapter_residual_before_ln"):
        options[flag] = draw(st.integers(0, 3)) == 0
    if not fused and draw(st.integers(0, 3)) == 0:
        options |= {"invertible": "nice", "invertible_reduction": draw(st.sampled_from([1, 2]))}
    made = Leaf(f"a{len(names.leaves)}", (*placed, *options.items()))
    names.leaves.append((placed, made))
    return made


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
    settings = (("query", query), ("value", value), ("dropout", 0.25))
    return Fusion(f"f{names.fusions}", tuple(members), settings)


@st.composite
def tree(draw: st.DrawFn, names: Names, depth: int, place: Settings | None = None) -> Tree:
    """A block that leaves the backbone's norm in its place; inside fuse, all of one place."""
    fused = place is not None
    kinds = ["leaf", "row", "cut"] if fused else ["leaf", "row", "row", "fusion", "fusion", "cut"]
    kind = draw(st.sampled_from(kinds)) if depth > 1 else "leaf"
    if kind == "leaf":
        return draw(leaf(names, place, fused))
    if kind == "fusion":
        return draw(fusion(names, depth - 1))
    inner = tree(names, depth - 1, place)
    if kind == "row":
        members = draw(st.lists(inner, min_size=2, max_size=3))
        return Row(tuple(members), draw(st.booleans()))
    body = draw(inner.filter(lambda found: not isinstance(found, Cut)))
    return Cut(body, draw(layers), draw(st.sampled_from(["drop", "keep"])))


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
