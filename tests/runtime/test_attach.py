"""A composition works on a copy of the backbone, shares its storage, and touches nothing else."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.runtime.model import ComposedModel
from tests.tiny import ENCODERS, backbone, batch, composed, distance, hidden, make_backbone

FIRST = "stack(lang=language(reduction=4), task=houlsby(reduction=4))"
SECOND = "fuse(pfeiffer(reduction=4), pfeiffer(reduction=2)) | drop(bottom=1)"
HEADS = ("AutoModel", "AutoModelForMaskedLM", "AutoModelForTokenClassification")


def picture(model: nn.Module) -> dict[str, Any]:
    """Everything of a model that a composition must not change."""
    return {
        "modules": [(name, type(module), id(module)) for name, module in model.named_modules()],
        "keys": list(model.state_dict()),
        "tensors": {key: tensor.clone() for key, tensor in model.state_dict().items()},
        "places": [parameter.data_ptr() for parameter in model.parameters()],
        "objects": [id(parameter) for parameter in model.parameters()],
        "flags": [parameter.requires_grad for parameter in model.parameters()],
        "modes": [module.training for module in model.modules()],
        "hooks": [len(module._forward_hooks) for module in model.modules()],
        "grads": [parameter.grad for parameter in model.parameters()],
    }


def assert_same_picture(before: dict[str, Any], after: dict[str, Any]) -> None:
    tensors, others = before.pop("tensors"), after.pop("tensors")
    assert before == after
    assert all(torch.equal(tensors[key], others[key]) for key in tensors)


def step(model: ComposedModel) -> None:
    """One step of training with everything that training does to a model."""
    model.train()
    optimizer = torch.optim.SGD([value for _, value in model.trained()], lr=0.1)
    model(**batch()).last_hidden_state.square().mean().backward()
    optimizer.step()
    model.eval()


def test_compositions_and_backbone_take_turns_without_influence() -> None:
    body = make_backbone()
    alone = [hidden(composed(FIRST, make_backbone())), hidden(composed(SECOND, make_backbone()))]
    bare = hidden(make_backbone())
    first, second = composed(FIRST, body), composed(SECOND, body)
    for _ in range(2):
        assert torch.equal(hidden(first), alone[0])
        assert torch.equal(hidden(body), bare)
        assert torch.equal(hidden(second), alone[1])
    assert distance(alone[0], bare) > 0.1
    assert distance(alone[1], bare) > 0.1


def test_training_one_leaves_the_others_as_they_were() -> None:
    body = make_backbone()
    first, second = composed(FIRST, body), composed(SECOND, body)
    before = [hidden(model) for model in (first, second, body)]
    step(first)
    assert not torch.equal(hidden(first), before[0])
    assert torch.equal(hidden(second), before[1])
    assert torch.equal(hidden(body), before[2])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", HEADS)
def test_detach_gives_back_what_was_given(kind: str, training: bool) -> None:
    body = make_backbone(kind=kind).train(training)
    for number, parameter in enumerate(body.parameters()):
        parameter.requires_grad_(number % 2 == 0)
    before = picture(body)
    output = body.eval()(**batch())[0].clone()
    body.train(training)
    model = composed(FIRST, body)
    step(model)
    assert model.detach() is body
    assert_same_picture(before, picture(body))
    assert torch.equal(body.eval()(**batch())[0], output)


def test_a_detached_composition_says_that_it_no_longer_runs() -> None:
    model = composed(FIRST)
    model.detach()
    with pytest.raises(Failed, match="AC509"):
        model(**batch())


@pytest.mark.parametrize("family", ENCODERS)
def test_storage_is_shared(family: str) -> None:
    body = make_backbone(family)
    model = composed(FIRST, body)
    own = {value.data_ptr() for part in model.parts.modules() for value in part.parameters()}
    copied = {value.data_ptr() for value in model.body.parameters()} - own
    assert copied == {value.data_ptr() for value in body.parameters()}
    buffers = {value.data_ptr() for value in model.body.buffers()}
    assert buffers == {value.data_ptr() for value in body.buffers()}


def test_tied_weights_stay_tied() -> None:
    body = make_backbone(kind="AutoModelForMaskedLM")
    model = composed("language(reduction=4)", body, head="backbone")
    embeddings = model.body.get_input_embeddings().weight
    decoder = model.body.cls.predictions.decoder.stock
    assert decoder.weight is embeddings
    assert embeddings.data_ptr() == body.get_input_embeddings().weight.data_ptr()


def test_a_copy_shares_tensors_and_nothing_else() -> None:
    model = composed(FIRST)
    twin = model.copy()
    assert torch.equal(hidden(twin), hidden(model))
    ours, theirs = dict(model.named_parameters()), dict(twin.named_parameters())
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert theirs[name] is not value
        assert theirs[name].data_ptr() == value.data_ptr()
        assert theirs[name].requires_grad == value.requires_grad
    assert not {id(m) for m in model.modules()} & {id(m) for m in twin.modules()}
    model.detach()
    hidden(twin)


def test_copies_run_beside_each_other_in_threads() -> None:
    model = composed(FIRST)
    inputs = [batch(seed=seed) for seed in range(4)]
    expected = [hidden(model, **one) for one in inputs]
    wrong: list[int] = []
    started = threading.Barrier(len(inputs))

    def run(number: int) -> None:
        twin = model.copy() if number else model
        started.wait()
        for _ in range(5):
            if not torch.equal(hidden(twin, **inputs[number]), expected[number]):
                wrong.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_another_precision_of_a_composition_leaves_the_backbone_alone(dtype: torch.dtype) -> None:
    body = make_backbone()
    before, other = picture(body), composed(SECOND, body)
    expected = hidden(other)
    model = composed(FIRST, body).to(dtype)
    assert {value.dtype for value in model.parameters()} == {dtype}
    assert hidden(model).dtype == dtype
    assert torch.equal(hidden(other), expected)
    assert_same_picture(before, picture(body))


@pytest.mark.parametrize("text", [FIRST, SECOND])
def test_float32_is_close_to_float64(text: str) -> None:
    exact = hidden(composed(text, make_backbone()).double())
    assert distance(hidden(composed(text, make_backbone())).double(), exact) <= 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "text", [FIRST, SECOND, "bottleneck(reduction=4, parallel=true, gate=true)"]
)
def test_over_a_backbone_in_half_precision_parts_stay_exact(text: str, dtype: torch.dtype) -> None:
    body = make_backbone().to(dtype)
    model = composed(text, body, head={"task": "text-classification", "labels": ["a", "b"]})
    assert {value.dtype for _, value in model.trained()} == {torch.float32}
    out = model(**batch(), labels=torch.tensor([0, 1, 0]))
    assert out.logits.dtype == torch.float32
    out.loss.backward()
    assert all(value.grad is not None for _, value in model.trained())
    states = hidden(composed(text, body))
    assert states.dtype == dtype
    assert distance(states.double(), hidden(composed(text, make_backbone()).double())) < 0.2


@pytest.mark.parametrize("kind", HEADS)
def test_the_given_models_own_head_does_not_matter(kind: str) -> None:
    model = composed(FIRST, make_backbone(kind=kind))
    assert torch.equal(hidden(model), hidden(composed(FIRST, make_backbone())))


def test_backbones_own_head_needs_a_model_that_has_one() -> None:
    with pytest.raises(Failed, match=r"AC508(.|\n)*AutoModelForMaskedLM"):
        composed(FIRST, backbone(), head="backbone")


def test_the_caller_may_deepcopy_a_composition() -> None:
    model = composed(FIRST)
    twin = copy.deepcopy(model)
    assert torch.equal(hidden(twin), hidden(model))
    assert isinstance(twin.composition.backbone, PreTrainedModel)


def test_an_unknown_activation_is_the_users_mistake() -> None:
    with pytest.raises(Failed, match=r"AC212(.|\n)*relu"):
        composed("bottleneck(activation=rellu)")
