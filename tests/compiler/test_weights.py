"""A new part has weights only where the composition uses them."""

from __future__ import annotations

import pytest
import torch
import transformers

from adaptcompose.backbones.layout import Facts, Site, read_facts
from adaptcompose.compiler.lower import lower, weights_used
from adaptcompose.compiler.planning import make_plan
from adaptcompose.composition.graph import Adapter, Block, Slot
from adaptcompose.composition.heads import new_head
from adaptcompose.composition.operators import Drop, Fuse, Keep, Stack
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.methods.bottleneck import Bottleneck
from adaptcompose.resolution.sources import Sources
from adaptcompose.runtime.build import build
from adaptcompose.runtime.parts import load_part, make_part

CONFIG = {
    "model_type": "bert",
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "vocab_size": 40,
    "max_position_embeddings": 20,
    "type_vocab_size": 2,
}
SW = Adapter("sw", Bottleneck(reduction=2.0, invertible="nice"))
A, B = Adapter("a", Bottleneck(reduction=4.0)), Adapter("b", Bottleneck(leave_out=frozenset({3})))


def fuse(*members: Block) -> Fuse:
    return Fuse(tuple(Slot(None, member) for member in members), name="fuse")


def stack(*members: Block) -> Stack:
    return Stack(tuple(Slot(None, member) for member in members))


@pytest.fixture(scope="module")
def facts() -> Facts:
    return read_facts(CONFIG)


@pytest.fixture(scope="module")
def backbone() -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    return transformers.AutoModel.from_config(transformers.BertConfig(**CONFIG)).eval()


def layers(sites: tuple[Site, ...]) -> list[int | None]:
    return [site.layer for site in sites]


def test_sites_of_a_program(facts: Facts) -> None:
    used = weights_used(lower(Drop(body=stack(SW, fuse(A, B)), bottom=2), facts))
    assert {name: layers(sites) for name, sites in used.items()} == {
        "sw": [None, 2, 3],
        "fuse": [2, 3],
        "a": [2, 3],
        "b": [2],
    }


def test_one_adapter_in_two_places_has_the_weights_of_both(facts: Facts) -> None:
    used = weights_used(lower(stack(Keep(body=A, bottom=1), Keep(body=A, top=2)), facts))
    assert layers(used["a"]) == [0, 2, 3]


def test_new_parts_have_no_weights_in_dropped_layers(
    facts: Facts, backbone: transformers.PreTrainedModel
) -> None:
    graph = Drop(body=stack(SW, fuse(A, B)), bottom=2)
    model = build(graph, facts, backbone, Sources(), head=None)
    assert {name: layers(part.sites) for name, part in model.parts.items()} == {
        "sw": [None, 2, 3],
        "a": [2, 3],
        "b": [2],
        "fuse": [2, 3],
    }
    ids = torch.arange(10).view(2, 5)
    assert model(input_ids=ids).last_hidden_state.shape == (2, 5, 16)


def test_the_method_of_a_new_part_says_where_it_is(
    facts: Facts, backbone: transformers.PreTrainedModel
) -> None:
    model = build(Drop(body=fuse(A, B), bottom=2), facts, backbone, Sources(), head=None)
    for _, part in model.parts.items():
        assert part.sites == part.method.sites(facts)
    assert str(model.parts["a"].method) == "bottleneck(reduction=4, leave_out=[0..1])"


def test_a_part_trained_under_drop_stays_absent_there_without_it(
    facts: Facts, backbone: transformers.PreTrainedModel
) -> None:
    part = build(Drop(body=A, bottom=2), facts, backbone, Sources(), head=None).parts["a"]
    whole = build(A, facts, backbone, Sources(), head=None, existing_parts={"a": part})
    assert [site.layer for site in whole.program.sites] == [2, 3]


def test_a_fusion_that_does_not_cover_a_layer_is_refused(
    facts: Facts, backbone: transformers.PreTrainedModel
) -> None:
    parts = build(Drop(body=fuse(A, A), bottom=2), facts, backbone, Sources(), head=None).parts
    other = Adapter("b", A.method)
    with pytest.raises(Failed, match="AC417"):
        given = {"fuse": parts["fuse"]}
        build(fuse(other, other), facts, backbone, Sources(), head=None, existing_parts=given)


def test_a_loaded_part_keeps_all_weights_and_trains_the_used(facts: Facts) -> None:
    assert A.method is not None
    weights = make_part("a", A.method, facts).tensors()
    upper = A.method.sites(facts)[2:]
    part = load_part("a", A.method, weights, used=upper)
    assert layers(part.sites) == [0, 1, 2, 3]
    assert not part.is_trained
    part.requires_grad_(True)
    trained = sum(p.numel() for p in part.parameters() if p.requires_grad)
    assert trained == A.method.parameter_count_at(upper, facts)
    part.requires_grad_(False)
    assert not part.is_trained


@pytest.mark.parametrize(
    "graph", [Drop(body=stack(SW, fuse(A, B)), bottom=2), fuse(A, B), Keep(body=B, top=2)]
)
def test_the_plan_counts_what_the_model_trains(
    graph: Block, facts: Facts, backbone: transformers.PreTrainedModel
) -> None:
    head = new_head("token-classification", ["O", "B", "I"])
    model = build(graph, facts, backbone, Sources(), head=head)
    plan = make_plan(graph, facts, head=head)
    assert plan.trained_parameters == sum(parameter.numel() for _, parameter in model.trained())
    assert plan.total_parameters == plan.trained_parameters + sum(
        p.numel() for p in backbone.parameters()
    )
