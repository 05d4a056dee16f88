"""Computed weights are kept while nothing changes them, and never longer."""

from __future__ import annotations

import pytest
import torch

from adaptcompose.backbones.layout import Site, read_facts
from adaptcompose.compiler.lower import lower, weights_used
from adaptcompose.compiler.passes.materialise import materialise
from adaptcompose.compiler.passes.pass_log import PassLog
from adaptcompose.composition.graph import Adapter
from adaptcompose.ir.primitives import ParametricPrimitive
from adaptcompose.methods.compacter import Compacter, kronecker_sum
from adaptcompose.methods.method import SHARED_SITE
from adaptcompose.runtime.model import ComposedModel
from adaptcompose.runtime.parts import ComputedWeights
from tests.tiny import LAYERS, batch, composed, config, distance, hidden

PHM = "compacter(phm_dim=2, reduction=3)"
FUSED = f"let a = {PHM}; fuse(a, bottleneck(original_ln_before=false, attention=true))"
VARIANTS = [
    PHM,
    "compacter_pp(phm_dim=3, reduction=2, phm_rank=2, shared_phm_rule=false, phm_bias=false)",
    "compacter(phm_dim=2, reduction=6, shared_phm_w=true, factorized_phm_rule=true)",
    "compacter(phm_dim=2, reduction=3, factorized_phm_w=false, scale=channel, gate=true)",
    "compacter(phm_dim=2, reduction=3, ln_before=true, ln_after=true, invertible=nice)",
    f"{PHM} | drop(bottom=1)",
    FUSED,
]


def lone_part(model: ComposedModel) -> str:
    return next(name for name, part in model.parts.items() if isinstance(part.method, Compacter))


@pytest.mark.parametrize("text", VARIANTS)
def test_it_keeps_the_outputs(text: str) -> None:
    literal, quick = composed(text, optimise=False), composed(text)
    assert literal.program != quick.program
    for _ in range(2):  # the second time out of the cache
        assert distance(hidden(quick), hidden(literal)) <= 1e-12


@pytest.mark.parametrize("text", [PHM, FUSED])
def test_a_change_of_any_stored_tensor_is_seen(text: str) -> None:
    quick, literal = composed(text), composed(text, optimise=False)
    name = lone_part(quick)
    hidden(quick)
    for site in (SHARED_SITE, Site("attn.out", 0), Site("ffn.out", LAYERS - 1)):
        for key, tensor in quick.parts[name][site].items():
            before = hidden(quick)
            with torch.no_grad():
                tensor.mul_(1.5)
                literal.parts[name][site][key].mul_(1.5)
            assert distance(hidden(quick), before) > 0, (site, key)
            assert distance(hidden(quick), hidden(literal)) <= 1e-12, (site, key)


def test_a_change_of_the_data_is_seen() -> None:
    quick = composed(PHM)
    before = hidden(quick)
    rule = quick.parts["compacter"][SHARED_SITE]["rule"]
    rule.data = rule.data * 2
    assert distance(hidden(quick), before) > 0


@pytest.mark.parametrize("text", [PHM, FUSED])
def test_while_it_learns_gradients_reach_what_is_stored(text: str) -> None:
    quick, literal = composed(text), composed(text, optimise=False)
    hidden(quick)
    for model in (quick, literal):
        model(**batch()).last_hidden_state.square().mean().backward()
    found, expected = (
        {(site, key): t.grad for site in part.sites for key, t in part[site].items()}
        for part in (model.parts[lone_part(model)] for model in (quick, literal))
    )
    assert found.keys() == expected.keys()
    for place, gradient in found.items():
        wanted = expected[place]
        assert gradient is not None and wanted is not None and gradient.abs().max() > 0, place
        assert torch.allclose(gradient, wanted, rtol=1e-9, atol=1e-14), place


def test_a_cache_made_in_inference_mode_serves_training() -> None:
    model = composed(f"let a = {PHM}; let b = pfeiffer(); stack(a, b)")
    model.update(frozenset({"b"}))
    with torch.inference_mode():
        model(**batch())
    model(**batch()).last_hidden_state.square().mean().backward()
    assert all(parameter.grad is not None for _, parameter in model.trained())


def test_a_copy_follows_changes_of_the_original() -> None:
    model = composed(PHM)
    twin = model.copy()
    assert torch.equal(hidden(twin), hidden(model))
    with torch.no_grad():
        model.parts["compacter"][SHARED_SITE]["rule"].mul_(2)
    assert torch.equal(hidden(twin), hidden(model))


def test_kept_weights_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = composed(PHM)
    count = 0
    compute = ComputedWeights._compute

    def counting(self: ComputedWeights) -> object:
        nonlocal count
        count += 1
        return compute(self)

    monkeypatch.setattr(ComputedWeights, "_compute", counting)
    hidden(model)
    hidden(model)
    assert count == 2 * LAYERS


def test_it_fires_where_weights_are_computed_and_nowhere_else() -> None:
    facts = read_facts(config().to_dict())
    adapter = Adapter("a", Compacter(phm_dim=2, reduction=3.0, invertible="nice"))
    program, log = lower(adapter, facts), PassLog()
    marked = materialise(program, log)
    forms = {
        site: node.parameter_source
        for site, node in marked.sites.items()
        if isinstance(node, ParametricPrimitive)
    }
    assert forms.pop(Site("embed.out")) == forms.pop(Site("head.in")) == "stored"
    assert set(forms.values()) == {"materialised"}
    assert log.applied_at == list(forms)
    assert materialise(marked, PassLog()) == marked


def test_shared_tensors_are_used_wherever_the_part_is() -> None:
    facts = read_facts(config().to_dict())
    method = Compacter(phm_dim=2, reduction=3.0)
    used = weights_used(lower(Adapter("a", method), facts))["a"]
    assert set(used) == set(method.sites(facts))
    own = Compacter(phm_dim=2, reduction=3.0, shared_phm_rule=False)
    assert SHARED_SITE not in weights_used(lower(Adapter("a", own), facts))["a"]


def test_a_sum_of_kronecker_products() -> None:
    left, right = torch.randn(3, 2, 4), torch.randn(3, 5, 2)
    expected = sum(torch.kron(a, b) for a, b in zip(left, right, strict=True))
    assert torch.allclose(kronecker_sum(left, right), expected, atol=1e-6)  # type: ignore[arg-type]
