"""The laws of average, scale, split, merge, train and freeze on random compositions."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import assume
from hypothesis import strategies as st

from adaptcompose.backbones.layout import Site
from adaptcompose.compiler.passes import run_passes
from adaptcompose.composition.fusion_activations import format_activations
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.ir.mixing import ConcatenatedBottlenecks, WeightedMean
from adaptcompose.runtime.fusion_attention import measure_attention
from tests import reference
from tests.compositions import (
    Leaf,
    Merged,
    Names,
    Settings,
    Tree,
    compositions,
    fusion,
    groups,
    merged,
    standing,
    tree,
    without_chance,
)
from tests.compositions import leaf as leaves
from tests.runtime.test_laws import EXACT, lets, same
from tests.sampling import sampled
from tests.tiny import LAYERS, backbone, batch, composed, distance, hidden

NUMBERS = st.sampled_from([-1.5, -0.25, 0.25, 0.5, 0.75, 2.0])


@st.composite
def bare(draw: st.DrawFn, count: int = 1, depth: int = 3) -> tuple[Tree, ...]:
    """Blocks without invertible parts."""
    names = Names()
    return tuple(draw(tree(names, depth, bare=True)) for _ in range(count))


@st.composite
def plain(draw: st.DrawFn, count: int, place: Settings = ()) -> tuple[Leaf, ...]:
    """Adapters that look at one token at a time."""
    names = Names()
    one = leaves(names, place, fused=True).filter(lambda leaf: not leaf.get("gate"))
    return tuple(draw(one) for _ in range(count))


@sampled(8, trees=groups(2), p=NUMBERS)
def test_a_mean_of_equals_is_one_of_them(trees: tuple[Tree, ...], p: float) -> None:
    a, b = trees
    bound = lets(a, b)
    same(f"average({a})", str(a), bound)
    same(f"average({a}, {a}, {a})", str(a), bound)
    same(f"average({a}:{p}, {a}:{1 - p})", str(a), bound)
    same(f"average({a}:1, {b}:0)", str(a), bound)
    same(f"average({a}:3, {b}:0, normalize=true)", str(a), bound)


@sampled(8, trees=groups(3, depth=2), p=NUMBERS, q=NUMBERS)
def test_means_of_means_flatten(trees: tuple[Tree, ...], p: float, q: float) -> None:
    a, b, c = trees
    inner, rest = f"average({b}:{q}, {c}:{1 - q})", 1 - p
    flat = f"average({a}:{p}, {b}:{rest * q}, {c}:{rest * (1 - q)})"
    same(f"average({a}:{p}, {inner}:{rest})", flat, lets(a, b, c))
    same(f"average({c}:{rest * (1 - q)}, {b}:{rest * q}, {a}:{p})", flat, lets(a, b, c))


@sampled(6, trees=bare(2), p=NUMBERS, q=NUMBERS)
def test_factors_multiply(trees: tuple[Tree, ...], p: float, q: float) -> None:
    a, b = trees
    bound = lets(a, b)
    same(f"({a} | scale(by={p})) | scale(by={q})", f"{a} | scale(by={p * q})", bound)
    same(f"{a} | scale(by=1)", str(a), bound)
    same(f"average(({a}):{p}, none:{1 - p})", f"{a} | scale(by={p})", bound)
    same(f"({a} | scale(by=0)) | ({b})", str(b), bound)


@sampled(10, trees=groups(1, depth=3), top=st.integers(0, LAYERS - 1))
def test_a_factor_of_nothing_is_the_backbone(trees: tuple[Tree, ...], top: int) -> None:
    (a,) = trees
    model = composed(f"{lets(a)} {a} | scale(by=0)")
    assert not model.program.sites
    assert torch.equal(hidden(model), hidden(backbone()))


@sampled(6, trees=plain(2), at=st.integers(0, 9))
def test_ranges_of_one_and_the_same_are_that_one(trees: tuple[Leaf, ...], at: int) -> None:
    a, b = trees
    bound = lets(a, b)
    same(f"split({a}, {a}, at={at})", str(a), bound)
    same(f"split({b}, {a}, at=0)", str(a), bound)
    same(f"split({a}, {b}, at=100)", str(a), bound)
    twice = f"split(split({a}, {b}, at={at}), {a}, at={at + 2})"
    same(twice, f"split({a}, {b}, {a}, at=[{at}, {at + 2}])", bound)


@sampled(10, trees=bare(2, depth=2), at=st.integers(1, 5))
def test_a_range_is_what_its_block_is_at_the_first_site(trees: tuple[Tree, ...], at: int) -> None:
    """Token i of the output of a single layer's last site depends on its own block only."""
    a, b = trees
    assume(all(LAYERS - 1 in standing(one) for one in trees))
    both = composed(f"{lets(a, b)} split({a}, {b}, at={at}) | keep(layers={LAYERS - 1})")
    for one, there in ((a, slice(0, at)), (b, slice(at, None))):
        alone = composed(f"{lets(a, b)} split({one}, {one}, at={at}) | keep(layers={LAYERS - 1})")
        top = Site("attn.out", LAYERS - 1)
        if top not in both.program.sites and top not in alone.program.sites:
            assert distance(hidden(both)[:, there], hidden(alone)[:, there]) <= EXACT


@st.composite
def mergers(draw: st.DrawFn) -> Tree:
    return draw(merged(Names(), None, False))


@sampled(5, tree=mergers(), p=NUMBERS, q=NUMBERS)
def test_a_merge_of_equals_is_one_of_them(tree: Tree, p: float, q: float) -> None:
    a, bound = tree.inner()[0], lets(tree)
    for method in ("linear", "ties", "dare"):
        same(f"merge({a}:1, method={method})", str(a), bound)
        same(f"merge({a}, {a}, method={method})", str(a), bound)
    same(f"merge({a}:{p}, {a}:{1 - p})", str(a), bound)
    same(f"merge(merge({a}:{p}):{q})", f"merge({a}:{p * q})", bound)
    other = tree.inner()[-1]
    flat = f"merge({a}:{p * q}, {other}:{p * p}, {a}:-1)"
    same(f"merge(merge({a}:{q}, {other}:{p}):{p}, {a}:-1)", flat, bound)


@sampled(10, tree=compositions(depth=3))
def test_what_is_trained_changes_no_output(tree: Tree) -> None:
    same(f"({tree}) | freeze()", str(tree), lets(tree))
    same(f"({tree}) | train()", str(tree), lets(tree))
    frozen = composed(f"{lets(tree)} ({tree}) | train() | freeze()")
    assert not list(frozen.trained())
    for part in {leaf.name for leaf in tree.leaves()}:  # none where all of it is `none`
        model = composed(f"{lets(tree)} ({tree}) | freeze() | train({part})")
        assert {name for name, found in model.parts.items() if found.is_trained} <= {part}


@sampled(10, tree=compositions())
def test_detaching_undoes_attaching(tree: Tree) -> None:
    body = backbone()
    before = {key: value.clone() for key, value in body.state_dict().items()}
    expected = hidden(body)
    model = composed(str(lets(tree)) + str(tree), body)
    hidden(model)
    bare = model.detach()
    assert bare is body
    assert torch.equal(hidden(bare), expected)
    assert before.keys() == bare.state_dict().keys()
    assert all(torch.equal(bare.state_dict()[key], value) for key, value in before.items())


@sampled(8, trees=bare(2, depth=3))
def test_every_number_has_its_gradient_with_and_without_passes(trees: tuple[Tree, ...]) -> None:
    a, b = map(without_chance, trees)
    gradients = []
    for optimise in (True, False):
        model = composed(f"{lets(a, b)} average({a}:0.3, {b}:0.7)", optimise=optimise).train()
        assume(any(one.requires_grad for one in model.parameters()))  # it may stand in no layer
        model(**batch()).last_hidden_state.square().sum().backward()
        gradients.append({name: value.grad for name, value in model.parts.named_parameters()})
    first, second = gradients
    assert first.keys() == second.keys()
    for name, gradient in first.items():
        other = second[name]
        missing = torch.zeros(())
        one, two = (missing if g is None else g for g in (gradient, other))
        scale = max(float(two.abs().max()), 1e-3)
        assert float((one - two).abs().max()) <= 1e-7 * scale, name


def test_a_learned_member_moves_its_merge() -> None:
    text = "let a = pfeiffer(); let b = pfeiffer(); merge(a:0.5, b:-2) | freeze(b)"
    model = composed(text)
    before = hidden(model)
    model.train()
    model(**batch()).last_hidden_state.square().sum().backward()
    grads = {name: p.grad is not None for name, p in model.named_parameters() if p.requires_grad}
    assert grads
    assert all(grads.values())
    with torch.no_grad():
        for _, parameter in model.trained():
            parameter.add_(0.1)
    model.eval()
    assert distance(hidden(model), before) > 1e-3


def test_a_merge_notices_a_change_in_place() -> None:
    text = "let a = pfeiffer(); let b = pfeiffer(); merge(a, b, method=ties)"
    models = [composed(text), composed(text, optimise=False)]
    before = hidden(models[0])
    for model in models:
        with torch.no_grad():
            for _, parameter in model.trained():
                parameter.mul_(2)
    assert torch.equal(hidden(models[0]), hidden(models[1]))
    assert distance(hidden(models[0]), before) > 1e-3


PLAIN = "let a = pfeiffer(); let b = bottleneck(reduction=4, activation=gelu);"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("average(a, b)", 2),
        ("average(a:0.25, b:0.5, none:0.25)", 2),
        ("average(a:0.5, average(b, pfeiffer()):0.5)", 3),
        ("average((a | scale(by=3)):0.5, b:0.5)", 2),
        ("average(a, b) | scale(by=2)", 2),
        ("stack(bottleneck(parallel=true), bottleneck(parallel=true, reduction=2))", 2),
        ("stack(b, bottleneck(parallel=true), bottleneck(parallel=true), a)", 2),
        ("average(bottleneck(ln_before=true), bottleneck(ln_before=true))", 2),
        ("average(bottleneck(scale=learned), bottleneck(scale=channel))", 2),
    ],
)
def test_bottlenecks_of_one_state_are_joined(text: str, count: int) -> None:
    model, literal = composed(f"{PLAIN} {text}"), composed(f"{PLAIN} {text}", optimise=False)
    joined = [node for node in found(model, "ffn.out") if isinstance(node, ConcatenatedBottlenecks)]
    assert [len(node.members) for node in joined] == [count]
    assert distance(hidden(model), hidden(literal)) <= EXACT


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("average(a, houlsby(attention=false))", "read different states"),
        ("average(a, bottleneck(ln_after=true))", "LayerNorm of its own after it"),
        ("average(a, bottleneck(gate=true))", "gate"),
        ("average(a, bottleneck(ln_before=true))", "read different states"),
        ("average(a, stack(a, b))", "not a single bottleneck"),
        ("average(a, bottleneck(residual_before_ln=false))", "added to different states"),
    ],
)
def test_what_differs_is_computed_as_it_is(text: str, why: str) -> None:
    model, literal = composed(f"{PLAIN} {text}"), composed(f"{PLAIN} {text}", optimise=False)
    nodes = [*found(model, "ffn.out")]
    assert any(isinstance(node, WeightedMean) for node in nodes)
    assert not any(isinstance(node, ConcatenatedBottlenecks) for node in nodes)
    logs = {name: log for name, _, log in run_passes(literal.program)}
    assert any(why in reason for reason in logs["concatenate"].reasons())
    assert distance(hidden(model), hidden(literal)) <= EXACT


def test_with_dropout_the_literal_mean_is_trained() -> None:
    text = "average(bottleneck(dropout=0.5), bottleneck(dropout=0.5))"
    outs = []
    for optimise in (True, False):
        model = composed(text, optimise=optimise).train()
        torch.manual_seed(0)
        outs.append(hidden(model))
    assert torch.equal(*outs)


def found(model: object, name: str) -> list[object]:
    """Everything at a site of the first layer."""
    pending = [model.program.sites[Site(name, 0)]]  # type: ignore[attr-defined]
    nodes = []
    while pending:
        node = pending.pop()
        nodes.append(node)
        pending += node.inner()
    return nodes


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("average(a:0.5, bottleneck(original_ln_after=false):0.5)", "AC320"),
        ("average(bottleneck(original_ln_after=false), none)", "AC320"),
        ("split(bottleneck(original_ln_after=false), a)", "AC320"),
        ("bottleneck(original_ln_after=false) | scale(by=2)", "AC319"),
        ("language() | scale(by=2)", "AC319"),
        ("stack(a, language()) | scale(by=-1)", "AC319"),
        ("fuse(a, average(b, houlsby()))", "AC314"),
        ("fuse(average(a, houlsby()), b)", "AC314"),
        ("fuse(a, split(b, houlsby()))", "AC314"),
        ("merge(pfeiffer(), houlsby())", "AC307"),
        ("merge(a, b)", "AC313"),
        ("merge(pfeiffer(), bottleneck(ln_before=true))", "AC313"),
        ("merge(pfeiffer(), stack(a, b))", "AC305"),
        ("merge(average(a, b))", "AC305"),
    ],
)
def test_what_has_no_meaning_is_refused(text: str, code: str) -> None:
    with pytest.raises(Failed) as failed:
        composed(f"{PLAIN} {text}")
    assert {found.code for found in failed.value.diagnostics} == {code}


@pytest.mark.parametrize(
    "text",
    [
        "average(fuse(a, b), fuse(b, a))",
        "fuse(average(a, b), stack(a, b), a | scale(by=2))",
        "fuse(split(a, b, at=2), merge(a, pfeiffer()), b)",
        "split(fuse(a, b), stack(a, b), none, at=[1, 4])",
        "average(stack(x=a, y=b):2, split(a, none, at=3):-1) | swap(x=b) | drop(top=1)",
        "stack(language(), average(language():3, language():0, normalize=true))",
        "(stack(language(), a) | scale(by=0)) | fuse(a, b)",
        "average(bottleneck(original_ln_after=false), bottleneck(original_ln_after=false))",
        "fuse(merge(a:2, merge(pfeiffer()):-1), a | freeze())",
        "average(bottleneck(parallel=true), houlsby(), pfeiffer())",
    ],
)
def test_nesting_is_free_where_it_has_a_meaning(text: str) -> None:
    model, literal = composed(f"{PLAIN} {text}"), composed(f"{PLAIN} {text}", optimise=False)
    assert distance(hidden(model), hidden(literal)) <= EXACT
    assert distance(hidden(model), hidden(backbone())) > 1e-6


@st.composite
def mixtures(draw: st.DrawFn) -> Tree:
    return draw(fusion(Names(), 2))


@sampled(6, tree=mixtures(), keep=st.integers(1, 3), more=st.integers(1, 3))
def test_the_smaller_number_of_members_stays(tree: Tree, keep: int, more: int) -> None:
    whole = composed(f"{lets(tree)} {tree}", optimise=False)
    if not whole.program.sites:
        return
    found = measure_attention(whole, [batch()])
    for name, sites in found.items():
        assert name == tree.name  # type: ignore[attr-defined]
        assert all(abs(sum(means) - 1) <= EXACT for means in sites.values())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "activations.yaml"
        path.write_text(format_activations(found))
        by = f'by="{path}"'
        one = f"{tree} | prune(keep={keep}, {by})"
        same(f"{tree} | prune(keep=9, {by})", str(tree), lets(tree))
        both = f"{one} | prune(keep={more}, {by})"
        same(both, f"{tree} | prune(keep={min(keep, more)}, {by})", lets(tree))
        model = composed(f"{lets(tree)} {one}", optimise=False)
    for site, node in model.program.sites.items():
        means = found[tree.name][str(site)]  # type: ignore[attr-defined]
        present = len(whole.program.sites[site].inner())
        assert len(node.inner()) == min(keep, present), means


LORAS = "let a = lora(rank=2, alpha=3); let b = lora(rank=4); let c = lora(rank=4);"


def test_a_merge_of_loras_adds_what_each_adds() -> None:
    same("merge(a:0.7, b:-1.3)", "stack(a | scale(by=0.7), b | scale(by=-1.3))", LORAS)
    same("merge(a:1)", "a", LORAS)
    same("merge(merge(a:2, b:1):0.5, c:-1)", "merge(a:1, b:0.5, c:-1)", LORAS)
    for method in ("ties", "dare"):
        same(f"merge(b:1, method={method})", "b", LORAS)
        same(f"merge(b, b, method={method})", "b", LORAS)
    same("merge(a:1, b:1, rank=6)", "merge(a:1, b:1)", LORAS)
    cut = composed(f"{LORAS} merge(a:1, b:1, rank=3)", optimise=False)
    node = cut.program.sites[Site("attn.q", 0)]
    assert node.rank == 3  # type: ignore[attr-defined]
    read = cut.parts.weights(node).read()  # type: ignore[arg-type]
    whole = composed(f"{LORAS} merge(a:1, b:1)", optimise=False)
    full = whole.parts.weights(whole.program.sites[Site("attn.q", 0)]).read()  # type: ignore[arg-type]
    delta, near = ((one["B"] @ one["A"]).detach() for one in (full, read))
    lost = torch.linalg.svdvals(delta)[3:].square().sum().sqrt()
    assert distance(torch.linalg.matrix_norm(delta - near), lost) <= EXACT


@pytest.mark.parametrize("method", ["ties", "dare"])
def test_ties_and_dare_of_loras_are_those_of_their_products(method: str) -> None:
    text = f"{LORAS} merge(b:0.5, c:-2, method={method}, density=0.4, seed=2)"
    model = composed(text, optimise=False)
    node = model.program.sites[Site("attn.q", 1)]
    read = model.parts.weights(node).read()  # type: ignore[arg-type]
    settings = (("method", method), ("density", 0.4), ("seed", 2))
    tree = Merged((Leaf("b"), Leaf("c")), (0.5, -2.0), settings)
    stored = [dict(model.parts[name][Site("attn.q", 1)].items()) for name in ("b", "c")]
    deltas = [2 * (one["B"] @ one["A"]) for one in stored]  # alpha 8, rank 4
    expected = reference.merge_tensors(tree, "1.attn.q", "B A", deltas)
    assert distance((read["B"] @ read["A"]).detach(), expected.detach()) <= EXACT
    assert distance(hidden(model), hidden(composed(text))) <= EXACT


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("merge(lora(gate=true), lora())", "AC313"),
        ("merge(lora(bias=backbone), lora(bias=backbone))", "AC313"),
        ("merge(dora(), dora())", "AC306"),
        ("merge(lora(), pfeiffer())", "AC307"),
        ("merge(lora(targets=[attn.q]), lora())", "AC307"),
        ("merge(pfeiffer(), pfeiffer(), rank=3)", "AC209"),
    ],
)
def test_what_cannot_be_merged_is_told(text: str, code: str) -> None:
    with pytest.raises(Failed) as failed:
        composed(text)
    assert {found.code for found in failed.value.diagnostics} == {code}
