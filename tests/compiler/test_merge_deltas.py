"""Changes of linear maps become weights at inference, and only where that is the same."""

from __future__ import annotations

import pytest
import torch

from adaptcompose.backbones.layout import Facts, Site, read_facts
from adaptcompose.catalogue.cards import Catalogue
from adaptcompose.compiler.lower import lower
from adaptcompose.compiler.passes.merge_deltas import MergedLinear, merge_deltas
from adaptcompose.compiler.passes.pass_log import PassLog
from adaptcompose.composition.checker import CheckContext, check_source
from adaptcompose.resources import resource_folder
from adaptcompose.runtime.model import ComposedModel
from adaptcompose.runtime.ops.linear import MergedLinearModule
from tests.tiny import LAYERS, batch, composed, config, distance, hidden, make_backbone

LORA = "lora(rank=2, alpha=3)"
FIRES = [
    LORA,
    "dora(rank=2, alpha=3)",
    "vera(rank=4)",
    "ia3()",
    f"stack({LORA}, ia3(), dora(rank=2, bias=backbone), bitfit(without=[pooler]))",
    f"let a = {LORA}; let b = lora(rank=3); average(a:0.3, b:0.7) | scale(by=2)",
    f"stack({LORA}, bottleneck(reduction=3, attention=true), layernorm())",
    f"{LORA} | drop(bottom=1)",
]


@pytest.fixture(scope="module")
def facts() -> Facts:
    return read_facts(config().to_dict())


def logged(text: str, facts: Facts) -> PassLog:
    graph = check_source(
        text, CheckContext(Catalogue.open(resource_folder("hub_cards")), facts)
    ).raise_errors()
    log = PassLog()
    merge_deltas(lower(graph, facts), log)
    return log


def merged(model: ComposedModel) -> list[MergedLinearModule]:
    return [module for module in model.modules() if isinstance(module, MergedLinearModule)]


@pytest.mark.parametrize("text", FIRES)
def test_it_keeps_the_outputs(text: str) -> None:
    quick, literal = composed(text), composed(text, optimise=False)
    assert any(isinstance(node, MergedLinear) for node in quick.program.sites.values())
    assert distance(hidden(quick), hidden(literal)) <= 1e-12
    assert all(module._cache._value is not None for module in merged(quick))


def test_what_is_kept_is_in_the_program(facts: Facts) -> None:
    model = composed(LORA)
    sites = [site for site, node in model.program.sites.items() if isinstance(node, MergedLinear)]
    assert sites == [Site(name, layer) for layer in range(LAYERS) for name in ("attn.q", "attn.v")]
    assert "merged 12→12, 144 numbers cached" in str(model.program)
    assert model.program.multiplications() == 0
    assert composed(LORA, optimise=False).program.multiplications() == 6 * 2 * 2 * 12


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f"route(a={LORA}, b=lora(rank=3))", "rows use different updates"),
        ("lora(rank=2, gate=true)", "an update depends on the example or the token"),
        (f"split({LORA}, ia3(targets=[attn.q, attn.v]), at=2)", "an update depends on"),
        ("bitfit(targets=[attn.q])", "only the bias changes, which is cheaper than a new weight"),
    ],
)
def test_it_declines(text: str, why: str, facts: Facts) -> None:
    log = logged(text, facts)
    assert not log.applied_at
    assert all(why in reason for reason in log.reasons()) and list(log.reasons())


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"dtype": "bfloat16"}, "a weight in bfloat16"),
        ({"torch_dtype": "float16"}, "a weight in float16"),
        ({"quantization_config": {"load_in_8bit": True}}, "is quantised"),
    ],
)
def test_it_declines_where_the_run_would(changes: dict[str, object], why: str) -> None:
    log = logged(LORA, read_facts(config().to_dict() | {"dtype": None} | changes))
    assert not log.applied_at
    assert all(why in reason for reason in log.reasons()) and list(log.reasons())


def test_the_program_says_what_runs_in_half_precision() -> None:
    model = composed(LORA, make_backbone().to(torch.bfloat16))
    assert not merged(model)
    assert model.program.multiplications() == 6 * 2 * 2 * 12


def test_norms_are_none_of_its_business(facts: Facts) -> None:
    log = logged("layernorm()", facts)
    assert not log.applied_at and not log.declined_at


def test_a_changed_weight_is_seen() -> None:
    base = make_backbone().double()
    quick, literal = composed(LORA, base), composed(LORA, base, optimise=False)
    before = hidden(quick)
    with torch.no_grad():
        for model in (quick, literal):
            for _, parameter in model.trained():
                parameter.add_(0.1)
    assert distance(hidden(quick), before) > 1e-3
    assert distance(hidden(quick), hidden(literal)) <= 1e-12
    with torch.no_grad():
        base.encoder.layer[0].attention.self.query.weight.mul_(1.5)
    assert distance(hidden(quick), hidden(literal)) <= 1e-12


def test_the_backbone_keeps_its_weight() -> None:
    base = make_backbone()
    weight = base.encoder.layer[0].attention.self.query.weight.clone()
    model = composed(LORA, base)
    hidden(model)
    assert torch.equal(model.detach().encoder.layer[0].attention.self.query.weight, weight)


def test_training_runs_the_literal_form() -> None:
    """Gradients reach the factors, and dropout acts on them, not on a merged weight."""
    model = composed("lora(rank=2, dropout=0.5)")
    quiet = hidden(model)
    model.train()
    torch.manual_seed(0)
    first, second = (model(**batch()).last_hidden_state for _ in range(2))
    assert not torch.equal(first, second)
    second.square().mean().backward()
    assert all(parameter.grad is not None for _, parameter in model.trained())
    model.eval()
    assert torch.equal(hidden(model), quiet)


def test_half_precision_is_left_alone() -> None:
    model = composed(LORA, make_backbone()).to(torch.bfloat16)  # after it was compiled
    hidden(model)
    assert merged(model) and all(module._cache._value is None for module in merged(model))
