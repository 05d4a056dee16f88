"""The folded fusion equals the literal one: at inference, in training, after a change in place."""

from __future__ import annotations

import pytest
import torch

from adaptcompose.compiler.passes.fold_fusion import FoldedMixture, fold_fusion
from adaptcompose.compiler.passes.pass_log import PassLog
from adaptcompose.ir.fusion import Mixture
from adaptcompose.ir.program import Program
from adaptcompose.runtime.model import ComposedModel
from adaptcompose.runtime.ops.folded_fusion import FoldedMixtureModule
from tests.tiny import backbone, batch, composed, distance, hidden

A, B = "bottleneck(reduction=4)", "bottleneck(reduction=3, activation=gelu)"

FOLDED = [
    f"fuse({A}, {B})",
    f"fuse({A}, {A}, {A}, value=false)",
    f"fuse({A}, {B}, query=before)",
    "fuse(bottleneck(scale=learned), bottleneck(scale=channel), bottleneck(scale=2.5))",
    "fuse(bottleneck(ln_before=true), bottleneck(ln_before=true, reduction=2))",
    "fuse(bottleneck(ln_before=true), bottleneck(reduction=5))",
    "fuse(bottleneck(gate=true), bottleneck(reduction=2))",
    "fuse(bottleneck(parallel=true), bottleneck(parallel=true, reduction=2))",
    "fuse(houlsby(reduction=4), houlsby(reduction=2))",
    f"stack({A}, fuse({A}, {B})) | drop(bottom=1)",
    f"fuse(bottleneck(leave_out=0), {B}, bottleneck(leave_out=1..2))",
]
LITERAL = [
    "fuse(bottleneck(ln_after=true), bottleneck())",
    "fuse(stack(bottleneck(), bottleneck()), bottleneck())",
]


def mixtures(program: Program) -> list[Mixture]:
    found = []
    pending = list(program.sites.values())
    while pending:
        node = pending.pop()
        found += [node] if isinstance(node, Mixture) else []
        pending += node.inner()
    return found


@pytest.mark.parametrize("text", FOLDED)
def test_folds_and_equals_the_literal_program(text: str) -> None:
    folded, literal = composed(text), composed(text, optimise=False)
    assert all(isinstance(found, FoldedMixture) for found in mixtures(folded.program))
    assert not any(isinstance(found, FoldedMixture) for found in mixtures(literal.program))
    assert distance(hidden(folded.double()), hidden(literal.double())) < 1e-12


@pytest.mark.parametrize("text", LITERAL)
def test_declines(text: str) -> None:
    folded, literal = composed(text), composed(text, optimise=False)
    assert not any(isinstance(found, FoldedMixture) for found in mixtures(folded.program))
    assert torch.equal(hidden(folded), hidden(literal))


def train(model: ComposedModel, steps: int = 20) -> list[float]:
    model.update(frozenset({"fuse"}))
    model.train()
    optimiser = torch.optim.AdamW([value for _, value in model.trained()], lr=1e-2)
    losses = []
    for _ in range(steps):
        loss = model(**batch()).last_hidden_state.square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


@pytest.fixture(params=[True, False], ids=["of matrices", "of tokens"])
def order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both orders of the products in training, whatever the number of tokens."""
    monkeypatch.setattr(FoldedMixtureModule, "_is_folding_cheaper", lambda *_: request.param)


@pytest.mark.usefixtures("order")
def test_training_gives_the_same_losses() -> None:
    text = f"fuse({A}, {B}, bottleneck(gate=true, scale=2.0))"
    folded, literal = composed(text).double(), composed(text, optimise=False).double()
    assert train(folded) == pytest.approx(train(literal), rel=1e-9)


@pytest.mark.usefixtures("order")
@pytest.mark.parametrize("text", FOLDED)
def test_every_weight_of_the_fusion_has_the_literal_gradient(text: str) -> None:
    gradients = []
    for optimise in (True, False):
        model = composed(text, optimise=optimise).double()
        model.update(frozenset(model.parts.names))
        model(**batch()).last_hidden_state.square().mean().backward()
        gradients.append({n: p.grad for n, p in model.parts.named_parameters() if p.requires_grad})
    assert gradients[0].keys() == gradients[1].keys()
    for name, found in gradients[0].items():
        wanted = gradients[1][name]
        assert (found is None) == (wanted is None), name
        if wanted is not None:
            assert torch.allclose(found, wanted, rtol=1e-7, atol=1e-10), name


@pytest.mark.usefixtures("order")
@pytest.mark.parametrize("kind", ["weights", "autocast"])
def test_training_in_bfloat16_is_as_exact_as_the_literal_form(kind: str) -> None:
    text = f"fuse({A}, {B}, bottleneck(scale=2.0))"
    exact = hidden(composed(text, optimise=False).double())
    errors = []
    for optimise in (True, False):
        model = composed(text, optimise=optimise).train()
        model.update(frozenset({"fuse"}))
        model = model.bfloat16() if kind == "weights" else model.float()
        with torch.autocast("cpu", torch.bfloat16, enabled=kind == "autocast"):
            errors.append(distance(model(**batch()).last_hidden_state.double(), exact))
    assert errors[0] <= 1.5 * errors[1]


def test_a_step_takes_the_order_with_fewer_multiplications() -> None:
    model = composed(f"fuse({A}, {B})")
    site = next(module for module in model.modules() if isinstance(module, FoldedMixtureModule))
    eight, many = torch.empty(768, 8 * 49), torch.empty(768, 32 * 49)
    assert site._is_folding_cheaper(eight, tokens=8 * 128)
    assert not site._is_folding_cheaper(eight, tokens=128)
    assert not site._is_folding_cheaper(many, tokens=8 * 128)
    assert site._is_folding_cheaper(many, tokens=64 * 128)
    assert not site._is_folding_cheaper(torch.empty(768, 128 * 49), tokens=64 * 128)


def test_a_change_in_place_rebuilds_the_constants() -> None:
    text = f"fuse({A}, {B})"
    folded, literal = composed(text).double(), composed(text, optimise=False).double()
    for model in (folded, literal):
        model.requires_grad_(False)
    hidden(folded)
    for model in (folded, literal):
        with torch.no_grad():
            for part in model.parts.names:
                for parameter in model.parts[part].parameters():
                    parameter.mul_(1.1)
    assert distance(hidden(folded), hidden(literal)) < 1e-12


def test_dropout_inside_members_is_read_literally() -> None:
    text = "fuse(bottleneck(dropout=0.5), bottleneck(dropout=0.5))"
    outputs = []
    for optimise in (True, False):
        model = composed(text, optimise=optimise).train()
        torch.manual_seed(3)
        outputs.append(model(**batch()).last_hidden_state)
    assert torch.equal(*outputs)


def test_multiplications_of_a_fusion_of_eight_on_bert_base() -> None:
    """At most 1.13 times the plain backbone's, and 1.50 times for thirty-two members."""
    from adaptcompose.backbones.layout import read_facts
    from adaptcompose.catalogue.cards import Catalogue
    from adaptcompose.compiler.lower import lower
    from adaptcompose.composition.checker import CheckContext, check_source

    facts = read_facts(
        {
            "model_type": "bert",
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "intermediate_size": 3072,
            "vocab_size": 30522,
            "max_position_embeddings": 512,
            "type_vocab_size": 2,
        }
    )
    plain = 12 * (4 * 768**2 + 2 * 768 * 3072 + 2 * 128 * 768)  # attention over 128 tokens
    for members, most in ((8, 1.13), (32, 1.50)):
        text = f"fuse({', '.join(['bottleneck()'] * members)})"
        graph = check_source(text, CheckContext(Catalogue.open(), facts)).raise_errors()
        literal = lower(graph, facts)
        folded = fold_fusion(literal, PassLog())
        assert 1 + folded.multiplications() / plain <= most
        assert folded.multiplications() < literal.multiplications()


def test_backbone_is_untouched() -> None:
    before = {name: value.clone() for name, value in backbone().state_dict().items()}
    hidden(composed(f"fuse({A}, {B})"))
    after = backbone().state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
