"""Members of a merge have one shape; AC313 names the first difference."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from adaptcompose.backbones.layout import Site, read_facts
from adaptcompose.catalogue.cards import Catalogue
from adaptcompose.composition.checker import CheckContext, check_source
from adaptcompose.ir import linear, prefix, tokens
from adaptcompose.ir.primitives import BottleneckMLP, ParametricPrimitive, Placement
from adaptcompose.methods import invertible

SITE = Site("ffn.out", 0)
FACTS = read_facts(
    {
        "model_type": "bert",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "intermediate_size": 128,
        "vocab_size": 100,
        "max_position_embeddings": 32,
        "type_vocab_size": 2,
        "num_attention_heads": 4,
    }
)

KINDS = {
    BottleneckMLP: "bottleneck",
    invertible.AdditiveCoupling: "coupling",
    invertible.AffineCoupling: "affinecoupling",
    linear.LowRank: "lowrank",
    linear.DecomposedLowRank: "decomposed",
    linear.SharedLowRank: "sharedlowrank",
    linear.Rescale: "rescale",
    linear.BiasDelta: "shift",
    linear.WeightReplacement: "replaced",
    linear.NormReplacement: "renorm",
    prefix.KVPrefix: "kvprefix",
    prefix.PositionShift: "shift",
    tokens.VirtualTokens: "tokens",
}


def subclasses(cls: type[ParametricPrimitive]) -> Iterator[type[ParametricPrimitive]]:
    for below in cls.__subclasses__():
        yield from (below, *subclasses(below))


def test_every_primitive_with_weights_has_a_kind_of_its_own() -> None:
    found = {
        cls for cls in subclasses(ParametricPrimitive) if cls.__module__.startswith("adaptcompose.")
    }
    kinds = {cls: cls.kind for cls in found - {linear.LinearUpdate}}
    assert kinds.items() >= KINDS.items()


@pytest.mark.parametrize(
    ("first", "second", "detail"),
    [
        ("lora()", "ia3(targets=[attn.q, attn.v])", "is a lowrank, {second} a rescale"),
        ("lora()", "bitfit(targets=[attn.q, attn.v])", "is a lowrank, {second} a shift"),
        ("language()", "bottleneck(invertible=glow)", "is a coupling, {second} a affinecoupling"),
        ("bottleneck()", "bottleneck(reduction=4)", "has rank 4, {second} has 16"),
        ("bottleneck()", "bottleneck(scale=learned)", "has scale 1.0, {second} has learned"),
        ("bottleneck()", "bottleneck(ln_before=true)", "has norm before False, {second} has True"),
        (
            "bottleneck()",
            "bottleneck(parallel=true)",
            "has where h + u(LN(h+x)), {second} has h + u(x)",
        ),
        ("prefix()", "prefix(length=3)", "has length 30, {second} has 3"),
        ("prefix()", "prefix(gate=true)", "has gates 0, {second} has 1"),
        ("prompt()", "prompt(after_first=true)", "has after first False, {second} has True"),
    ],
)
def test_the_first_difference_is_named(first: str, second: str, detail: str) -> None:
    context = CheckContext(Catalogue(()), FACTS)
    (found,) = check_source(f"merge({first}, {second})", context).diagnostics
    assert found.code == "AC313"
    expected = f"`{first}` {detail.format(second=f'`{second}`')}"
    assert found.message == f"the members of `merge` must have equal shapes: {expected}"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("lora()", "lora(rank=2, alpha=3, dropout=0.1)"),
        ("pfeiffer()", "pfeiffer(dropout=0.1, stochastic_depth=0.1)"),
        ("prefix()", "prefix(flat=true)"),
    ],
)
def test_rank_scale_dropout_and_source_of_weights_may_differ(first: str, second: str) -> None:
    context = CheckContext(Catalogue(()), FACTS)
    assert not check_source(f"merge({first}, {second})", context).diagnostics


def test_the_shape_leaves_out_whose_weights_they_are() -> None:
    one = BottleneckMLP("a", SITE, 64, 16, "relu", Placement(), dropout=0.1)
    other = BottleneckMLP(
        "b", Site("ffn.out", 1), 64, 16, "relu", Placement(), parameter_source="computed"
    )
    assert one.merge_shape() == other.merge_shape()
