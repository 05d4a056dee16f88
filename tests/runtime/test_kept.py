"""What is computed from weights and kept is never older than the weights."""

from __future__ import annotations

import pytest
import torch

from adaptcompose.runtime.model import ComposedModel
from tests.sampling import daily
from tests.tiny import batch, composed, distance, hidden, make_backbone

KEPT = [
    "fuse(bottleneck(reduction=4), bottleneck(reduction=3, activation=gelu))",
    "average(bottleneck(reduction=4), bottleneck(reduction=3))",
    "merge(bottleneck(reduction=4), bottleneck(reduction=4))",
    "lora(rank=2)",
    "stack(compacter(reduction=4, phm_dim=3), ia3())",
    "prefix(length=2)",
]


def both(text: str) -> tuple[ComposedModel, ComposedModel]:
    """Optimised and literal, frozen."""
    models = composed(text), composed(text, optimise=False)
    for model in models:
        model.requires_grad_(requires_grad=False)
    return models


@pytest.mark.parametrize("text", KEPT)
def test_a_change_that_torch_does_not_count_is_seen_after_eval(text: str) -> None:
    quick, literal = both(text)
    before = hidden(quick)
    for model in (quick, literal):
        for parameter in model.parts.parameters():
            parameter.data.mul_(1.5)
    quick.eval()
    assert distance(hidden(quick), before) > 1e-3
    assert distance(hidden(quick), hidden(literal)) < 1e-12


@daily("text", KEPT, days=3)
@pytest.mark.filterwarnings("ignore")
def test_a_model_compiled_after_training_has_the_new_weights(text: str) -> None:
    model = composed(text)
    before = hidden(model)
    model.train()
    optimiser = torch.optim.SGD([value for _, value in model.trained()], lr=0.1)
    for _ in range(2):
        model(**batch()).last_hidden_state.square().mean().backward()
        optimiser.step()
    model.eval()
    torch._dynamo.reset()
    found = hidden(torch.compile(model, backend="eager"))  # without a call before
    assert distance(found, before) > 1e-3
    assert distance(found, hidden(model)) < 1e-12


@pytest.mark.parametrize("text", KEPT)
@pytest.mark.parametrize("loaded", [True, False], ids=["backbone", "composition"])
def test_what_is_made_in_inference_mode_runs_and_learns_outside_of_it(
    text: str, loaded: bool
) -> None:
    with torch.inference_mode(mode=loaded):
        base = make_backbone().double()
    with torch.inference_mode(mode=not loaded):
        model = composed(text, base)
    assert torch.equal(hidden(model), hidden(composed(text)))
    with torch.inference_mode():
        assert torch.equal(model(**batch()).last_hidden_state, hidden(composed(text)))
    before = hidden(model)
    with torch.no_grad():
        for _, parameter in model.trained():
            parameter.mul_(1.5)
    assert distance(hidden(model), before) > 1e-3
    if not loaded:  # gradients cannot pass through the weights of such a backbone
        model(**batch()).last_hidden_state.square().mean().backward()
        assert any(parameter.grad is not None for _, parameter in model.trained())


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_model_has_changed_weights_after_eval() -> None:
    model = composed(KEPT[0]).requires_grad_(requires_grad=False)
    hidden(model)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager")
    before = hidden(compiled)
    with torch.no_grad():
        for parameter in model.parts.parameters():
            parameter.mul_(1.5)
    model.eval()
    found = hidden(compiled)
    assert distance(found, before) > 1e-3
    assert distance(found, hidden(model)) < 1e-12
