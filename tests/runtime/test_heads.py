"""What heads compute, and their losses, against the same worked out by hand."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest
import torch
from torch.nn import functional

from adaptcompose.composition.graph import Head
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.runtime.model import ComposedModel
from tests.tiny import ENCODERS, LENGTH, VOCABULARY, WIDTH, backbone, batch, composed, hidden

TEXT = "stack(lang=language(reduction=4), task=pfeiffer(reduction=4))"


def weights(model: ComposedModel) -> dict[str, torch.Tensor]:
    assert model.head is not None
    return dict(model.head.slots.named_parameters())


def run(model: ComposedModel, labels: torch.Tensor | None = None) -> Any:
    with torch.no_grad():
        return model(**batch(), labels=labels)


def test_classification() -> None:
    model = composed(TEXT, head={"task": "text-classification", "labels": ["a", "b", "c"]})
    w, first = weights(model), hidden(composed(TEXT))[:, 0]
    inner = torch.tanh(first @ w["1.weight"].T + w["1.bias"])
    expected = inner @ w["4.weight"].T + w["4.bias"]
    labels = torch.tensor([2, 0, 1])
    out = run(model, labels)
    assert torch.allclose(out.logits, expected, rtol=1e-12)
    by_hand = -expected.log_softmax(-1)[torch.arange(3), labels].mean()
    assert out.loss.item() == pytest.approx(by_hand.item(), rel=1e-12)
    assert out.last_hidden_state is None


def test_one_label_is_a_regression() -> None:
    head = Head("head", {"head_type": "classification", "layers": 1, "num_labels": 1})
    model = composed(TEXT, head=head)
    w, first = weights(model), hidden(composed(TEXT))[:, 0]
    expected = first @ w["1.weight"].T + w["1.bias"]
    labels = torch.tensor([0.5, -1.0, 2.0])
    out = run(model, labels)
    by_hand = (expected[:, 0] - labels).square().mean()
    assert out.loss.item() == pytest.approx(by_hand.item(), rel=1e-12)


def test_spans_have_a_start_and_an_end() -> None:
    config = {"head_type": "question_answering", "layers": 1, "num_labels": 2}
    model = composed(TEXT, head=Head("head", config))
    w, states = weights(model), hidden(composed(TEXT))
    expected = states @ w["1.weight"].T + w["1.bias"]
    out = run(model, torch.tensor([[1, 3], [0, 5], [2, LENGTH]]))  # the last end is cut off
    assert torch.allclose(out.logits, expected, rtol=1e-12)
    assert out.logits.shape == (3, LENGTH, 2)
    scores = expected.log_softmax(1)
    starts = scores[torch.arange(3), torch.tensor([1, 0, 2]), 0].mean()
    ends = scores[torch.arange(2), torch.tensor([3, 5]), 1].mean()
    assert out.loss.item() == pytest.approx(-(starts + ends).item() / 2, rel=1e-12)


def test_the_choices_of_an_example_are_rows() -> None:
    config = {"head_type": "multiple_choice", "layers": 1, "num_choices": 3}
    model = composed(TEXT, head=Head("head", config))
    w, first = weights(model), hidden(composed(TEXT))[:, 0]
    expected = (first @ w["1.weight"].T + w["1.bias"]).view(1, 3)
    out = run(model, torch.tensor([2]))
    assert w["1.weight"].shape == (1, WIDTH)
    assert torch.allclose(out.logits, expected, rtol=1e-12)
    assert out.loss.item() == pytest.approx(-expected.log_softmax(-1)[0, 2].item(), rel=1e-12)


def test_choices_may_have_an_axis_of_their_own() -> None:
    """Then their number is that of the input: classes of transformers do not store it."""
    config = {"head_type": "multiple_choice", "layers": 1, "num_choices": 2}
    model = composed(TEXT, head=Head("head", config))
    w, first = weights(model), hidden(composed(TEXT))[:, 0]
    with torch.no_grad():
        out = model(**{name: tensor[None] for name, tensor in batch().items()})
        expected = (first @ w["1.weight"].T + w["1.bias"]).view(1, 3)
    assert torch.allclose(out.logits, expected, rtol=1e-12)
    with pytest.raises(Failed, match=r"AC519(.|\n)*the batch has 3 rows"):
        run(model)
    with pytest.raises(Failed, match=r"AC519(.|\n)*route"):
        composed(f"route(one={TEXT}, two={TEXT})", head=Head("head", config))


def test_token_classification_skips_ignored_labels_and_padding() -> None:
    model = composed(TEXT, head={"task": "token-classification", "labels": ["O", "B-PER"]})
    w, states = weights(model), hidden(composed(TEXT))
    expected = states @ w["1.weight"].T + w["1.bias"]
    labels = torch.arange(3 * LENGTH).view(3, LENGTH) % 2
    labels[0, 0] = -100
    out = run(model, labels)
    assert torch.allclose(out.logits, expected, rtol=1e-12)
    counted = (labels != -100) & (batch()["attention_mask"] == 1)
    rows = expected.log_softmax(-1)[counted]
    by_hand = -rows[torch.arange(len(rows)), labels[counted]].mean()
    assert out.loss.item() == pytest.approx(by_hand.item(), rel=1e-12)


def uncoupled(model: ComposedModel, part: str, state: torch.Tensor) -> torch.Tensor:
    """x₂ = y₂ − G(y₁), x₁ = y₁ − F(x₂), with the weights of the part."""
    (site,) = [place for place in model.parts[part].sites if place.name == "embed.out"]
    w = model.parts[part][site]

    def net(name: str, half: torch.Tensor) -> torch.Tensor:
        inner = torch.relu(half @ w[f"{name}.0.weight"].T + w[f"{name}.0.bias"])
        return inner @ w[f"{name}.2.weight"].T + w[f"{name}.2.bias"]

    middle = state.shape[-1] // 2
    one, two = state[..., :middle], state[..., middle:]
    two = two - net("G", one)
    return torch.cat([one - net("F", two), two], dim=-1)


@pytest.mark.parametrize("family", ENCODERS)
def test_new_language_model_head_undoes_the_invertible_part_before_the_vocabulary(
    family: str,
) -> None:
    model = composed(TEXT, backbone(family), head={"task": "masked-lm"})
    w, state = weights(model), hidden(composed(TEXT, backbone(family)))
    state = functional.gelu(state @ w["0.weight"].T + w["0.bias"])
    width = state.shape[-1]
    state = functional.layer_norm(state, (width,), w["2.weight"], w["2.bias"], 1e-12)
    state = uncoupled(model, "lang", state)
    labels = torch.full((3, LENGTH), -100)
    labels[0, 1], labels[1, 2] = 7, 9
    with torch.no_grad():
        expected = state @ w["3.weight"].T + w["3.bias"]
        out = model(**batch(), labels=labels)
        by_hand = -expected.log_softmax(-1)[[0, 1], [1, 2], [7, 9]].mean()
    assert torch.allclose(out.logits, expected, rtol=1e-9)
    assert out.loss.item() == pytest.approx(by_hand.item(), rel=1e-12)


@pytest.mark.parametrize("family", ENCODERS)
def test_backbones_own_language_model_head_gets_the_inverse(family: str) -> None:
    body = backbone(family, "AutoModelForMaskedLM")
    model = composed(TEXT, body, head="backbone")
    labels = torch.full((3, LENGTH), -100)
    labels[0, 1] = 7
    with torch.no_grad():
        out = model(**batch(), labels=labels)
        state = hidden(composed(TEXT, body))
        if family == "bert":
            head = body.cls.predictions
            state, decoder = head.transform(state), head.decoder
        elif family == "electra":
            state, decoder = body.generator_predictions(state), body.generator_lm_head
        elif family == "distilbert":
            state = body.vocab_layer_norm(functional.gelu(body.vocab_transform(state)))
            decoder = body.vocab_projector
        else:
            head = body.lm_head
            state = head.layer_norm(functional.gelu(head.dense(state)))
            decoder = head.decoder
        expected = decoder(uncoupled(model, "lang", state))
    assert torch.allclose(out.logits, expected, rtol=1e-9)
    assert out.logits.shape == (3, LENGTH, VOCABULARY)
    by_hand = -expected[0, 1].log_softmax(-1)[7]
    assert out.loss.item() == pytest.approx(by_hand.item(), rel=1e-12)
    plain = composed("pfeiffer(reduction=4)", body, head="backbone")
    assert run(plain).logits.shape == out.logits.shape


def test_the_inverses_of_a_stack_run_in_the_opposite_order() -> None:
    body = backbone("bert", "AutoModelForMaskedLM")
    text = "stack(first=language(reduction=4), second=language(reduction=4))"
    model = composed(text, body, head="backbone")
    with torch.no_grad():
        state = body.cls.predictions.transform(hidden(composed(text, body)))
        right = uncoupled(model, "first", uncoupled(model, "second", state))
        wrong = uncoupled(model, "second", uncoupled(model, "first", state))
        logits = model(**batch()).logits
        assert torch.allclose(logits, body.cls.predictions.decoder(right), rtol=1e-9)
        assert not torch.allclose(logits, body.cls.predictions.decoder(wrong), rtol=1e-3)


def test_a_token_classification_head_sees_no_inverse() -> None:
    body = backbone("bert", "AutoModelForTokenClassification")
    model = composed(TEXT, body, head="backbone")
    with torch.no_grad():
        expected = body.classifier(hidden(composed(TEXT, body)))
        assert torch.equal(model(**batch()).logits, expected)


def test_pooled_classification() -> None:
    config = {"head_type": "classification", "layers": 1, "num_labels": 2, "use_pooler": True}
    model = composed(TEXT, head=Head("head", config))
    with torch.no_grad():
        pooled = backbone().pooler(hidden(composed(TEXT)))
        w = weights(model)
        expected = pooled @ w["1.weight"].T + w["1.bias"]
    assert torch.allclose(run(model).logits, expected, rtol=1e-12)
    for body in (backbone("electra"), backbone("bert", "AutoModelForMaskedLM")):
        with pytest.raises(Failed, match=r"AC416(.|\n)*pooler"):
            composed(TEXT, body, head=Head("head", config))


@pytest.mark.parametrize(
    "config",
    [
        {"head_type": "tagging"},
        {"head_type": "tagging", "num_labels": "many"},
        {"head_type": "tagging", "num_labels": -2},
        {"head_type": "tagging", "num_labels": 2, "layers": 2, "activation_function": "bent"},
        {"head_type": "tagging", "num_labels": 2, "layers": 0},
        {"head_type": "tagging", "num_labels": 2, "dropout_prob": 7},
    ],
)
def test_a_head_that_means_nothing_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(Failed, match=r"AC413|AC212"):
        composed(TEXT, head=Head("ner", config))


def test_an_unknown_kind_of_head_is_refused() -> None:
    with pytest.raises(Failed, match="AC416"):
        composed(TEXT, head=Head("x", {"head_type": "dependency_parsing", "num_labels": 2}))


def test_without_a_head_there_are_states() -> None:
    out = run(composed(TEXT))
    assert out.logits is None
    assert out.last_hidden_state.shape == (3, LENGTH, WIDTH)


def test_the_signature_names_its_columns() -> None:
    """What Trainer keeps of a data set are the columns that it finds here."""
    names = list(inspect.signature(ComposedModel.forward).parameters)
    assert names[:3] == ["self", "input_ids", "attention_mask"]
    assert "labels" in names
    assert not any(name.startswith(("args", "kwargs")) for name in names)


def test_the_gate_is_a_mean_over_the_whole_row_padding_included() -> None:
    """As published weights were trained: so the same row, padded further, gives another gate."""
    text = "a=bottleneck(reduction=4, gate=true, leave_out=[0, 1])"
    model = composed(f"stack({text})")
    inputs = batch(rows=1, pad=False)
    longer = {key: functional.pad(value, (0, 2)) for key, value in inputs.items()}
    short, long = hidden(model, **inputs), hidden(model, **longer)[:, :LENGTH]
    assert not torch.allclose(short, long, rtol=1e-6)
    plain = composed("bottleneck(reduction=4)")
    assert torch.allclose(
        hidden(plain, **inputs), hidden(plain, **longer)[:, :LENGTH], rtol=1e-9, atol=1e-12
    )
    assert math.isfinite(long.sum().item())
