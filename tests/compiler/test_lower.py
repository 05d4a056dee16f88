"""A composition becomes primitives at sites: which, where, and which weights they read."""

from __future__ import annotations

import pytest

from adaptcompose.backbones.layout import Facts, Site, read_facts
from adaptcompose.catalogue.cards import Catalogue
from adaptcompose.compiler.lower import lower, weights_used
from adaptcompose.composition.checker import CheckContext, check_source
from adaptcompose.ir.fusion import Mixture
from adaptcompose.ir.primitives import AdditiveCoupling, BottleneckMLP, Chain
from adaptcompose.ir.program import Program

CONFIG = {
    "model_type": "bert",
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "vocab_size": 60,
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
}
EMBEDDINGS, HEAD = Site("embed.out"), Site("head.in")


def facts() -> Facts:
    return read_facts(CONFIG)


def program(text: str) -> Program:
    graph = check_source(text, CheckContext(Catalogue.open(), facts())).raise_errors()
    return lower(graph, facts())


def outs(*layers: int, name: str = "ffn.out") -> list[Site]:
    return [Site(name, layer) for layer in layers]


def test_the_flagships_shape() -> None:
    text = "stack(lang=language(), task=pfeiffer()) | fuse(pfeiffer(), pfeiffer()) | drop(bottom=1)"
    found = program(text)
    assert list(found.sites) == [EMBEDDINGS, *outs(1, 2), HEAD]
    couple, uncouple = found.sites[EMBEDDINGS], found.sites[HEAD]
    assert isinstance(couple, AdditiveCoupling)
    assert isinstance(uncouple, AdditiveCoupling)
    assert (couple.inverse, uncouple.inverse) == (False, True)
    for site in outs(1, 2):
        row = found.sites[site]
        assert isinstance(row, Chain)
        lang, task, fuse = row.members
        assert isinstance(lang, BottleneckMLP)
        assert isinstance(task, BottleneckMLP)
        assert isinstance(fuse, Mixture)
        assert (lang.part, task.part) == ("lang", "task")
        assert fuse.attention.part == "fuse"
        assert [branch.part for branch in fuse.branches] == ["bottleneck", "bottleneck2"]
        assert {primitive.site for primitive in (lang, task, *fuse.branches)} == {site}


def test_nothing_is_the_backbone() -> None:
    assert program("none").sites == {}
    assert program("stack(x=none)").sites == {}
    assert str(program("none")) == "backbone only"


@pytest.mark.parametrize(
    ("text", "sites"),
    [
        ("pfeiffer()", outs(0, 1, 2)),
        ("houlsby(output=false)", outs(0, 1, 2, name="attn.out")),
        ("pfeiffer(leave_out=1)", outs(0, 2)),
        ("pfeiffer() | drop(layers=[0, 2])", outs(1)),
        ("pfeiffer() | keep(top=1)", outs(2)),
        ("pfeiffer() | drop(bottom=1) | drop(top=1)", outs(1)),
        ("(pfeiffer() | drop(bottom=2)) | (pfeiffer() | drop(top=2))", outs(0, 2)),
        ("language() | drop(bottom=2)", [EMBEDDINGS, *outs(2), HEAD]),
    ],
)
def test_where_there_is_something(text: str, sites: list[Site]) -> None:
    assert list(program(text).sites) == sites


def test_sites_come_in_the_order_in_which_they_run() -> None:
    names = [str(site) for site in program("houlsby() | drop(top=1)").sites]
    assert names == ["0.attn.out", "0.ffn.out", "1.attn.out", "1.ffn.out"]


@pytest.mark.parametrize(
    ("arguments", "reads", "residual", "finish"),
    [
        ("", "norm", "output", True),
        ("residual_before_ln=false", "norm", "read", True),
        ("residual_before_ln=post_add", "norm", "sum", True),
        ("original_ln_before=false", "output", "output", True),
        ("original_ln_before=false, residual_before_ln=false", "output", "output", True),
        ("parallel=true", "input", "output", True),
        ("parallel=true, residual_before_ln=false", "input", "output", True),
        ("original_ln_after=false", "norm", "output", False),
    ],
)
def test_placements(arguments: str, reads: str, residual: str, finish: bool) -> None:
    (node,) = {program(f"bottleneck({arguments})").sites[Site("ffn.out", 1)]}
    found = node.placement
    assert (found.reads, found.residual, found.followed_by_norm) == (reads, residual, finish)


def test_a_rank_per_layer() -> None:
    found = program("bottleneck(reduction=[2, 5])").sites
    assert [found[site].rank for site in outs(0, 1, 2)] == [8, 3, 3]  # type: ignore[attr-defined]


def test_absent_members_are_no_branches() -> None:
    found = program("fuse(pfeiffer(), pfeiffer(leave_out=[0, 1]), pfeiffer(leave_out=1))")
    assert [len(found.sites[site].inner()) for site in outs(0, 1, 2)] == [2, 1, 3]


def test_inverses_stand_in_the_opposite_order() -> None:
    found = program("stack(a=language(), b=stack(c=language(), d=language()))")
    there, back = found.sites[EMBEDDINGS], found.sites[HEAD]
    assert list(there.parts()) == ["a", "c", "d"]
    assert list(back.parts()) == ["d", "c", "a"]


def test_only_the_weights_that_are_read() -> None:
    found = weights_used(program("let a = language(); stack(a, a) | drop(bottom=2)"))
    assert found["a"] == (EMBEDDINGS, Site("ffn.out", 2))


def test_a_let_is_one_part_and_two_calls_are_two() -> None:
    assert program("let a = pfeiffer(); stack(a, a)").parts() == {"a"}
    assert program("stack(pfeiffer(), pfeiffer())").parts() == {"bottleneck", "bottleneck2"}
    # whatever the names of their slots are
    assert program("stack(x=pfeiffer(), y=stack(x=houlsby()))").parts() == {"x", "x2"}
    assert program("fuse(stack(x=pfeiffer()), stack(x=pfeiffer()))").parts() == {"fuse", "x", "x2"}
    # a let stands for one object, so that what is inside is shared, too
    assert len(program("let e = stack(pfeiffer(), houlsby()); e | e").parts()) == 2
    assert program("stack(x=none, y=stack(x=none)) | swap(x=houlsby())").parts() == {"x"}
