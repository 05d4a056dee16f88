"""What every method owes, whatever it is: held for each call of the language that makes an adapter.

A method added under `adaptcompose/methods/` is tested here without a line, as long as its default
settings fit a backbone of width 12 and three layers; otherwise SETTINGS has some that do. VARIANTS
are further settings that have code of their own.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import adaptcompose as ac
from adaptcompose.backbones.layout import Facts, Site, read_facts
from adaptcompose.catalogue.cards import Catalogue
from adaptcompose.compiler.lower import lower, weights_used
from adaptcompose.composition.checker import CheckContext, check_source
from adaptcompose.composition.graph import Adapter
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.methods import Method, registered_methods
from adaptcompose.resources import resource_folder
from adaptcompose.runtime.compose import compose
from adaptcompose.runtime.model import ComposedModel
from adaptcompose.runtime.parts import Part
from tests.tiny import backbone, batch, composed, config, distance, hidden, make_backbone

SETTINGS = {
    "bottleneck": "reduction=3",
    "pfeiffer": "reduction=3",
    "houlsby": "reduction=3",
    "language": "reduction=3",
    "seq_bn": "reduction=3",
    "seq_bn_inv": "reduction=3",
    "double_seq_bn": "reduction=3",
    "double_seq_bn_inv": "reduction=3",
    "compacter": "phm_dim=2, reduction=3",
    "compacter_pp": "phm_dim=2, reduction=3",
    "adapter_plus": "reduction=3, stochastic_depth=0",
    "deep_prompt": "length=3",
    "mam": "length=3, hidden=5, reduction=3",
    "unipelt": "length=3, hidden=5, reduction=3, rank=2",
    "loreft": "rank=2",
    "lora": "rank=2",
    "dora": "rank=2",
    "vera": "rank=4",
    "bitfit": "without=[pooler]",  # the states of the last layer do not depend on the pooler
}
VARIANTS = [
    "prefix(length=2, hidden=5, gate=true, leave_out=[1], activation=relu)",
    "prefix(length=3, flat=true, gate=true, shared_gate=false, positions=shifted)",
    "prompt(length=3, positions=shifted)",
    "prompt(length=2, after_first=true)",
    "ptuning(length=2, encoder=mlp, hidden=4, positions=kept)",
    "ptuning(length=2, layers=1)",
    "mam(length=2, flat=true, reduction=2, positions=shifted, scale=learned)",
    "unipelt(length=2, flat=true, reduction=2, shared_gate=false, leave_out=[1])",
    "bottleneck(invertible=glow, reduction=2)",
    "bottleneck(ln_before=true, ln_after=true, gate=true, scale=channel, reduction=[2, 3, 4])",
    "bottleneck(attention=true, leave_out=[1], reduction=2)",
    "compacter(phm_dim=3, reduction=2, phm_rank=2, shared_phm_rule=false, phm_bias=false)",
    "compacter(phm_dim=2, reduction=6, shared_phm_w=true, factorized_phm_rule=true)",
    "compacter(phm_dim=2, reduction=3, factorized_phm_w=false, learn_phm=false)",
    "compacter_pp(phm_dim=2, reduction=3, invertible=nice, leave_out=[0])",
    "lora(rank=2, alpha=3, targets=[attn.o, ffn.in, ffn.mid], gate=true, init=bert)",
    'lora(rank=2, rslora=true, bias=own, leave_out=[1], ranks=["attn.v=3"], alphas=["2.attn.q=5"])',
    "lora(rank=2, targets=[attn.q, attn.k], without=[1.attn.k], bias=backbone)",
    "lora(rank=2, bias=all, leave_out=[1], without=[pooler, 2.attn.k])",
    "lora(rank=2, targets=[attn.v, embed.tokens], bias=all, without=[pooler])",
    "lora(rank=2, targets=[embed.tokens], bias=own)",
    "dora(rank=2, targets=[embed.tokens, ffn.in], rslora=true)",
    "lora(rank=2, whole=[embed.tokens, attn.norm, ffn.in], leave_out=[1])",
    "dora(rank=2, bias=all, without=[pooler], whole=[embed.norm, attn.o])",
    "dora(rank=2, bias=all, without=[pooler])",
    "dora(rank=2, alpha=3, norm=adapterhub, bias=own, targets=[attn.q, ffn.mid])",
    "dora(rank=2, alpha=3, gate=true, bias=backbone)",
    "vera(rank=4, scale=2, targets=[attn.v, ffn.in, ffn.mid], stored=true)",
    "vera(rank=3, stored=true, matrices=true, leave_out=[0])",
    "vera(rank=3, stored=true, matrices=true, dora=true)",
    "vera(rank=3, stored=true, matrices=true, gate=true)",
    "ia3(targets=[attn.q, ffn.in], inputs=[], scale=1.5, leave_out=[2])",
    "ia3(gate=true)",
    "bitfit(targets=[attn.q, ffn.in, ffn.norm])",
    "layernorm(targets=[ffn.norm, embed.norm])",
    "loreft(rank=2, prefix_positions=1, suffix_positions=1, leave_out=[1])",
    "loreft(rank=3, prefix_positions=2, suffix_positions=1, tied_weights=true, activation=tanh)",
]
NAMED = {
    settings: f"{word}({SETTINGS.get(word, '')})" for word, settings in registered_methods().items()
}
CALLS = [*NAMED.values(), *VARIANTS]  # names of equal settings once

VIRTUAL_START = "virtual keys and tokens start random, and attention sees them"
STARTS_ELSEWHERE: dict[str, str] = dict.fromkeys(
    ("prefix", "prefix_tuning", "prefix_tuning_flat", "deep_prompt", "prompt", "prompt_tuning",
     "ptuning", "mam", "unipelt"), VIRTUAL_START
) | dict.fromkeys(
    ("loreft", "noreft", "direft"), "W starts as torch starts a linear map, and so does the edit"
)  # fmt: skip
"""Methods whose papers start them with something that is not almost the backbone, and why."""

each = pytest.mark.parametrize("text", CALLS)


@pytest.fixture(scope="module")
def facts() -> Facts:
    return read_facts(config().to_dict())


def method_of(text: str, facts: Facts) -> Method:
    context = CheckContext(Catalogue.open(resource_folder("hub_cards")), facts)
    graph = check_source(text, context).raise_errors()
    assert isinstance(graph, Adapter) and graph.method is not None
    return graph.method


def part_of(model: ComposedModel) -> Part:
    ((_, part),) = model.parts.items()
    return part


@pytest.mark.parametrize("text", [text for text in CALLS if "ln_after=true" not in text])
def test_it_starts_as_almost_the_backbone(text: str) -> None:
    word = text.partition("(")[0]
    if word in STARTS_ELSEWHERE:
        pytest.skip(STARTS_ELSEWHERE[word])
    torch.manual_seed(0)
    new = compose(text, backbone(), head=None).double()
    assert distance(hidden(new), hidden(backbone())) <= 0.02
    for _, tensor in part_of(new).tensors().items():
        assert tensor.isfinite().all()


@each
def test_its_weights_do_something(text: str) -> None:
    assert distance(hidden(composed(text)), hidden(backbone())) > 1e-3


@each
def test_the_literal_and_the_optimised_program_agree(text: str) -> None:
    assert distance(hidden(composed(text)), hidden(composed(text, optimise=False))) <= 1e-12


@each
@pytest.mark.parametrize("optimise", [True, False], ids=["optimised", "literal"])
def test_the_gradient_reaches_exactly_what_is_trained(text: str, optimise: bool) -> None:
    reached: set[tuple[Site, str]] = set()
    for seed in range(4):  # small layers of relu are dead under some weights
        model = composed(text, seed=seed, optimise=optimise)
        part = part_of(model)
        model(**batch(seed=seed)).last_hidden_state.square().mean().backward()
        for site in part.sites:
            for name, tensor in part[site].items():
                assert tensor.requires_grad == part.method.is_trainable(name), (site, name)
                if tensor.grad is not None and tensor.grad.abs().max() > 0:
                    reached.add((site, name))
        assert reached <= trained(part)
        ours = {id(parameter) for parameter in part.parameters()}
        others = [p for p in model.parameters() if id(p) not in ours]
        assert others and all(p.grad is None and not p.requires_grad for p in others)
    assert reached == trained(part)


@each
def test_a_training_step_is_seen_by_both_programs(text: str) -> None:
    models = [composed(text), composed(text, optimise=False)]
    before = hidden(models[0])
    for model in models:
        optimiser = torch.optim.SGD([p for _, p in model.trained()], lr=0.1)
        model(**batch()).last_hidden_state.square().mean().backward()
        optimiser.step()
    assert distance(hidden(models[0]), before) > 0
    assert distance(hidden(models[0]), hidden(models[1])) <= 1e-9


@each
def test_sites_and_tensors_are_what_the_program_reads(text: str, facts: Facts) -> None:
    method, part = method_of(text, facts), part_of(composed(text))
    expected = {
        (site, name): shape
        for site in method.sites(facts)
        for name, shape in method.tensors(site, facts).items()
    }
    assert {place: tuple(t.shape) for place, t in part.tensors().items()} == expected
    assert method.parameter_count(facts) == sum(math.prod(shape) for shape in expected.values())
    used = weights_used(lower(Adapter("a", method), facts))["a"]
    assert {site for site, _ in expected} <= set(used)


@each
def test_dropped_layers_hold_nothing(text: str, facts: Facts) -> None:
    layers = [s.layer for s in method_of(text, facts).sites(facts) if s.layer is not None]
    if not layers:
        pytest.skip("it stands in no layer")
    lost = min(layers)
    model = composed(f"{text} | drop(layers=[{lost}])")
    part = part_of(model)
    assert all(site.layer != lost for site in part.sites)
    assert part.sites == part.method.sites(facts)
    whole = composed(text)
    for site in part.sites:
        assert part[site].names == part_of(whole)[site].names


@each
def test_none_of_it_is_the_backbone_and_equal_members_are_one(text: str, facts: Facts) -> None:
    """What cannot be averaged or merged says so."""
    method, prelude = method_of(text, facts), f"let a = {text};"
    one = hidden(composed(f"{prelude} a"))
    assert torch.equal(hidden(composed(f"{prelude} a | scale(by=0)")), hidden(backbone()))
    for law, possible in (
        ("average(a:0.25, a:0.75)", method.additive),
        ("merge(a:1)", method.mergeable),
    ):
        try:
            found = hidden(composed(f"{prelude} {law}"))
        except Failed as failed:
            assert "AC313" in str(failed) if possible else "AC306" in str(failed)
        else:
            assert possible and distance(found, one) <= 1e-10


@each
def test_it_is_written_as_it_is_read(text: str, facts: Facts) -> None:
    method = method_of(text, facts)
    assert method_of(str(method), facts) == method


@each
def test_it_is_saved_and_loaded_bit_for_bit(text: str, tmp_path: Path) -> None:
    base = make_backbone()
    model = composed(text, base)
    model.save(str(tmp_path))
    expected = hidden(model)
    assert torch.equal(hidden(ac.load(tmp_path, base)), expected)

    (name,) = {path.parent.name for path in tmp_path.glob("*/adapter_config.json")}
    loaded = compose(f"./{name}", base, root=tmp_path, head=None)
    assert torch.equal(hidden(loaded), expected)
    again, part = part_of(loaded), part_of(model)
    assert str(again.method) == str(part.method)
    assert not again.is_trained
    for place, tensor in part.tensors().items():
        assert torch.equal(again.tensors()[place], tensor), place


@each
def test_loaded_weights_train_what_new_ones_train(text: str, tmp_path: Path) -> None:
    base = make_backbone()
    model = composed(text, base)
    model.save(str(tmp_path))
    (name,) = {path.parent.name for path in tmp_path.glob("*/adapter_config.json")}
    loaded = compose(f"./{name}", base, root=tmp_path, head=None)
    part_of(loaded).requires_grad_(True)
    assert trained(part_of(loaded)) == trained(part_of(model))


def trained(part: Part) -> set[tuple[Site, str]]:
    return {(s, name) for s in part.sites for name, t in part[s].items() if t.requires_grad}


@each
def test_the_backbone_is_never_changed(text: str) -> None:
    base = make_backbone()
    before = {name: value.clone() for name, value in base.state_dict().items()}
    flags = {name: value.requires_grad for name, value in base.named_parameters()}
    modules, expected = [name for name, _ in base.named_modules()], hidden(base)
    model = composed(text, base)
    model.train()
    model(**batch()).last_hidden_state.square().mean().backward()
    optimiser = torch.optim.SGD([p for _, p in model.trained()], lr=0.1)
    optimiser.step()
    model.eval()
    hidden(model)
    assert model.detach() is base
    assert torch.equal(hidden(base), expected)
    assert [name for name, _ in base.named_modules()] == modules
    assert {name: value.requires_grad for name, value in base.named_parameters()} == flags
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())
    with pytest.raises(Failed, match="AC509"):
        model(**batch())


@each
def test_a_copy_shares_its_weights(text: str) -> None:
    model = composed(text)
    twin = model.copy()
    with torch.no_grad():
        for _, parameter in model.trained():
            parameter.mul_(1.5)
    assert torch.equal(hidden(twin), hidden(model))


@each
def test_half_precision_backbones_take_it(text: str) -> None:
    base = make_backbone().to(torch.bfloat16)
    model = composed(text, base)
    assert hidden(model).dtype == torch.bfloat16
    assert all(p.dtype == torch.float32 for _, p in model.trained())
    assert distance(hidden(model).float(), hidden(composed(text, make_backbone()))) <= 0.1
