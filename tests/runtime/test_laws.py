"""The laws of the language on random compositions, and what compositions denote."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from adaptcompose.backbones.layout import Site, read_facts
from adaptcompose.catalogue.cards import Catalogue
from adaptcompose.compiler.lower import lower
from adaptcompose.compiler.passes.pass_log import PassLog
from adaptcompose.compiler.passes.prune import prune
from adaptcompose.composition.checker import CheckContext, check_source
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.resources import resource_folder
from adaptcompose.runtime.model import ComposedModel
from adaptcompose.runtime.ops.norms import norm_of
from adaptcompose.runtime.ops.primitives import State, build_module
from tests import reference
from tests.compositions import (
    Cut,
    Factor,
    Fusion,
    Leaf,
    Marked,
    Mean,
    Merged,
    Names,
    Row,
    Tokens,
    Tree,
    compositions,
    groups,
    layers,
)
from tests.compositions import leaf as leaves
from tests.compositions import text as written
from tests.sampling import sampled
from tests.tiny import (
    ENCODERS,
    LAYERS,
    OTHERS,
    SPECIAL,
    WIDTH,
    backbone,
    batch,
    composed,
    config,
    distance,
    hidden,
    make_backbone,
)

EXACT = 1e-9  # in float64, relative to the largest value
FAMILIES = st.sampled_from(sorted(ENCODERS))
DENOTED = sorted([*SPECIAL, *OTHERS])


def weights(model: ComposedModel) -> dict[tuple[str, str], dict[str, Tensor]]:
    """The tensors of a composition as the reference wants them."""
    found = {}
    for name, part in model.parts.items():
        for site in part.sites:
            found[name, str(site)] = {key: value.detach() for key, value in part[site].items()}
    return found


def lets(*trees: Tree) -> str:
    """The `let`s that several trees need."""
    before = written(Row(trees)).rpartition("; ")[0]
    return f"{before};" if before else ""


def same(first: str, second: str, prelude: str = "", family: str = "bert", **how: bool) -> None:
    one = composed(f"{prelude} {first}", backbone(family), **how)
    two = composed(f"{prelude} {second}", backbone(family))
    assert distance(hidden(one), hidden(two)) <= EXACT


# What compositions denote


@sampled(50, tree=compositions(), family=st.sampled_from(DENOTED))
def test_a_composition_computes_what_it_denotes(tree: Tree, family: str) -> None:
    body = backbone(family)
    for optimise in (True, False):
        model = composed(written(tree), body, optimise=optimise)
        with torch.no_grad():
            expected = reference.forward(body, tree, weights(model), batch())
        assert distance(hidden(model), expected) <= EXACT


@sampled(15, tree=compositions(), family=FAMILIES)
def test_in_float32_it_is_close(tree: Tree, family: str) -> None:
    model = composed(written(tree), make_backbone(family))
    with torch.no_grad():
        exact = {k: {n: t.double() for n, t in v.items()} for k, v in weights(model).items()}
        expected = reference.forward(backbone(family), tree, exact, batch())
    assert distance(hidden(model).double(), expected) <= 1e-5


@pytest.mark.parametrize("family", DENOTED)
def test_the_reference_is_the_backbone_where_there_is_nothing(family: str) -> None:
    body = backbone(family)
    with torch.no_grad():
        expected = reference.forward(body, None, {}, batch())
    assert distance(hidden(body), expected) <= EXACT
    assert torch.equal(hidden(composed("none", body)), hidden(body))


# The algebra


@sampled(15, trees=groups(3))
def test_stack_is_associative_and_the_pipe_is_a_stack(trees: tuple[Tree, ...]) -> None:
    a, b, c = trees
    flat = f"stack({a}, {b}, {c})"
    for other in (f"stack({a}, stack({b}, {c}))", f"stack(stack({a}, {b}), {c})"):
        same(other, flat, lets(*trees))
    same(f"({a} | {b}) | {c}", flat, lets(*trees))
    same(f"stack(x=stack({a}, {b}), y={c})", flat, lets(*trees))


@sampled(15, tree=compositions())
def test_a_stack_of_one_is_that_one(tree: Tree) -> None:
    same(f"stack({tree})", str(tree), lets(tree))
    same(f"stack(none, {tree}, none)", str(tree), lets(tree))


@sampled(15, trees=groups(2, depth=3), s=layers, t=layers)
def test_drops_unite(trees: tuple[Tree, ...], s: frozenset[int], t: frozenset[int]) -> None:
    a, b = trees
    both = s & t or s
    dropped, other = Cut(a, s), Cut(a, both)
    if s & t and not isinstance(a, Cut):
        same(str(Cut(dropped, t)), str(other), lets(a))
    if not isinstance(a, Cut):
        same(str(replace(dropped, word="keep")), str(dropped), lets(a))
        same(f"{a} | drop(bottom=0)", str(a), lets(a))
    if not isinstance(a, Cut) and not isinstance(b, Cut):  # two cuts may leave no layer
        pair = Row((a, b))
        same(str(Cut(pair, s)), f"{Cut(a, s)} | {Cut(b, s)}", lets(a, b))


@sampled(10, trees=groups(1, depth=3), count=st.integers(0, LAYERS - 1))
def test_bottom_and_top_are_layers(trees: tuple[Tree, ...], count: int) -> None:
    (a,) = trees
    if isinstance(a, Cut):
        return  # two of them may leave no layer
    bottom = frozenset(range(count, LAYERS))
    same(f"{a} | drop(bottom={count})", str(Cut(a, bottom)), lets(a))
    top = frozenset(range(LAYERS - count))
    same(f"{a} | drop(top={count})", str(Cut(a, top)), lets(a))
    same(f"{a} | keep(top={LAYERS - count})", str(Cut(a, bottom)), lets(a))


@sampled(15, trees=groups(4))
def test_swap_refills_a_slot(trees: tuple[Tree, ...]) -> None:
    a, b, c, d = trees
    bound = lets(*trees)
    whole = f"stack(x={a}, y={b})"
    same(f"{whole} | swap(x={c}) | swap(x={d})", f"{whole} | swap(x={d})", bound)
    same(f"{whole} | swap(x={c})", f"stack({c}, {b})", bound)
    same(f"{whole} | swap(x={c}, y={d})", f"stack({c}, {d})", bound)
    same(f"{whole} | swap(x=none)", str(b), bound)
    same(f"{whole} | swap(x=none, y=none)", "none", bound)
    same(
        f"stack({d}, z={whole}) | drop(top=1) | swap(x={c})",
        f"stack({d}, {c}, {b}) | drop(top=1)",
        bound,
    )


# Fusion


def pair() -> st.SearchStrategy[tuple[Leaf, Leaf]]:
    """Two adapters of one placement, present at every site."""
    everywhere = {"attention": True, "output": True, "leave_out": frozenset()}

    def spread(leaf: Leaf) -> Leaf:
        return replace(leaf, settings=tuple((dict(leaf.settings) | everywhere).items()))

    def two(names: Names) -> st.SearchStrategy[tuple[Leaf, Leaf]]:
        one = leaves(names, (), fused=True).map(spread)
        return st.tuples(one, one).filter(lambda found: found[0].name != found[1].name)

    return st.builds(Names).flatmap(two)


@sampled(15, members=pair(), kept=layers, value=st.booleans())
def test_one_present_member_still_passes_the_value_map(
    members: tuple[Leaf, Leaf], kept: frozenset[int], value: bool
) -> None:
    a, b = members
    fusion = Fusion("f", (a, Cut(b, kept)), (("query", "after"), ("value", value)))
    model, lone = composed(written(fusion), optimise=False), composed(written(a))
    layer = backbone().encoder.layer[0].output
    for site in model.program.sites:
        h, x = torch.randn(2, 2, 4, WIDTH, dtype=torch.float64)
        state = State(h, x, norm_of(layer.LayerNorm))
        present = model.program.sites[site].inner()
        assert len(present) == 1 + (site.layer in kept)
        with torch.no_grad():
            out = build_module(model.program.sites[site], model.parts).eval()(state)
            residual, u = (
                build_module(lone.program.sites[site], lone.parts).eval().residual_and_update(state)
            )
            if value:
                u = u @ model.parts["f"][site]["value.weight"].T
        close = torch.allclose(out, residual + u, rtol=1e-9)
        assert close or len(present) == 2
    assert len(model.program.sites) == 2 * LAYERS


@sampled(15, members=pair(), copies=st.integers(2, 4))
def test_a_fusion_of_one_and_the_same_is_that_one(members: tuple[Leaf, Leaf], copies: int) -> None:
    a, _ = members
    same(f"fuse({', '.join([a.name] * copies)}, value=false)", a.name, lets(a))


@sampled(8, members=pair(), copies=st.integers(2, 4))
def test_a_fusion_of_one_and_the_same_adds_its_value(
    members: tuple[Leaf, Leaf], copies: int
) -> None:
    a, _ = members
    model = composed(f"{lets(a)} let f = fuse({', '.join([a.name] * copies)}); f", optimise=False)
    lone, layer = composed(written(a)), backbone().encoder.layer[0].output
    assert len(model.program.sites) == 2 * LAYERS
    for site, node in model.program.sites.items():
        h, x = torch.randn(2, 2, 4, WIDTH, dtype=torch.float64)
        state = State(h, x, norm_of(layer.LayerNorm))
        with torch.no_grad():
            residual, u = (
                build_module(lone.program.sites[site], lone.parts).eval().residual_and_update(state)
            )
            added = u @ model.parts["f"][site]["value.weight"].T
            assert (
                distance(build_module(node, model.parts).eval()(state), residual + added) <= EXACT
            )


@sampled(8, members=pair(), value=st.booleans())
def test_the_order_of_members_does_not_matter(members: tuple[Leaf, Leaf], value: bool) -> None:
    a, b = members
    how = f"value={str(value).lower()}"
    bound = f"{lets(a, b)} let f ="
    same(f"fuse({a}, {b}, {how}); f", f"fuse({b}, {a}, {how}); f", bound)
    same(f"fuse({a}, {b}, {a}, {how}); f", f"fuse({a}, {a}, {b}, {how}); f", bound)


@sampled(15, members=pair(), s=layers)
def test_what_is_left_out_is_what_is_dropped(members: tuple[Leaf, Leaf], s: frozenset[int]) -> None:
    a, b = members
    out = frozenset(range(LAYERS)) - s
    short = replace(b, settings=tuple((dict(b.settings) | {"leave_out": out}).items()))
    first = composed(written(Fusion("f", (a, Cut(b, s)))))
    second = composed(written(Fusion("f", (a, short))))
    assert distance(hidden(first), hidden(second)) <= EXACT


@sampled(10, trees=groups(1, depth=3))
def test_members_that_are_nowhere_leave_the_backbone(trees: tuple[Tree, ...]) -> None:
    top = LAYERS - 1
    nowhere = f"fuse(bottleneck(leave_out=[{top}]), bottleneck(leave_out=[{top}])) | keep(top=1)"
    same(f"{trees[0]} | ({nowhere})", str(trees[0]), lets(*trees))


# Invertible parts


@sampled(20, tree=compositions(), family=FAMILIES)
def test_inverses_undo_the_invertible_parts_in_the_opposite_order(tree: Tree, family: str) -> None:
    body = backbone(family, "AutoModelForMaskedLM")
    try:
        model = composed(written(tree), body, head="backbone")
    except Failed as failed:
        assert {found.code for found in failed.diagnostics} == {"AC318"}
        assert any(isinstance(one, Mean) and reference.invertible(one) for one in nodes(tree))
        return
    state = torch.randn(2, 3, model.composition.facts.embedding, dtype=torch.float64)
    w = weights(model)
    there = reference.coupled(tree, state, w)
    back = reference.coupled(tree, there, w, inverse=True)
    assert distance(back, state) <= 1e-12
    if Site("embed.out") not in model.program.sites:
        assert distance(there, state) <= 1e-12
        return
    assert distance(through(model, "embed.out", state), there) <= 1e-12
    assert distance(through(model, "head.in", there), state) <= 1e-12


def through(model: ComposedModel, name: str, state: Tensor) -> Tensor:
    """A state through what runs at a site."""
    with torch.no_grad():
        out: Tensor = build_module(model.program.sites[Site(name)], model.parts).eval()(
            State(state)
        )
    return out


# Text and passes


def context() -> CheckContext:
    return CheckContext(
        Catalogue.open(resource_folder("hub_cards")), read_facts(config().to_dict())
    )


def inlined(tree: Tree) -> str:
    """Without `let`: every adapter and fusion is a call in its place."""
    bound = {node.name: node for node in nodes(tree) if isinstance(node, Leaf | Fusion)}
    text, named = str(tree), re.compile(r"\b[af]\d+\b")
    while named.search(text):
        text = named.sub(lambda found: bound[found.group()].call(), text)
    return text


@sampled(60, tree=compositions())
def test_a_graph_is_written_and_read_again(tree: Tree) -> None:
    graph = check_source(inlined(tree), context()).raise_errors()
    again = check_source(str(graph), context()).raise_errors()
    assert again == graph
    assert str(again) == str(graph)


@sampled(60, tree=compositions())
def test_prune_finds_nothing_twice(tree: Tree) -> None:
    facts = read_facts(config().to_dict())
    program = prune(lower(check_source(written(tree), context()).raise_errors(), facts), PassLog())
    assert prune(program, PassLog()) == program


def test_examples_are_deep_and_varied() -> None:
    """A law that only ever sees a single adapter holds nothing."""
    seen = [*_examples(150)]
    assert sum(tree.depth() >= 3 for tree in seen) >= len(seen) // 3
    for kind in (Fusion, Row, Cut):
        assert sum(kind in kinds(tree) for tree in seen) >= len(seen) // 5, kind
    for kind in (Mean, Factor, Tokens, Merged, Marked):
        assert sum(kind in kinds(tree) for tree in seen) >= len(seen) // 25, kind


def nodes(tree: Tree) -> Iterator[Tree]:
    yield tree
    for inner in tree.inner():
        yield from nodes(inner)


def kinds(tree: Tree) -> set[type[Tree]]:
    return {type(tree)}.union(*map(kinds, tree.inner()))


def _examples(count: int) -> Iterator[Tree]:
    found: list[Tree] = []

    @sampled(count, tree=compositions())
    def collect(tree: Tree) -> None:
        found.append(tree)

    collect()
    yield from found
