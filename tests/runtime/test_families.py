"""Every method on models that read from left to right, or decode, with and without a cache."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from adaptcompose.backbones.layout import Facts, Site, read_facts
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.runtime.attach.sites import module_at
from adaptcompose.runtime.compose import compose
from adaptcompose.runtime.model import ComposedModel
from tests.runtime.test_methods import CALLS, method_of, part_of, trained
from tests.sampling import daily
from tests.tiny import (
    ENCODER_DECODERS,
    GENERATING,
    LEFT_TO_RIGHT,
    LENGTH,
    backbone,
    batch,
    composed,
    config,
    distance,
    generated,
    hidden,
    make_backbone,
)

pytestmark = pytest.mark.filterwarnings("ignore")


def facts_of(family: str) -> Facts:
    return read_facts(config(family).to_dict())


def refused(family: str, text: str) -> bool:
    """Whether the settings cannot be had: no biases, no absolute positions, no such place."""
    try:
        method_of(text, facts_of(family))
    except Failed as failed:
        assert "AC209" in str(failed)
        return True
    return False


CASES = [(family, text) for family in GENERATING for text in CALLS if not refused(family, text)]
GATES = ("gate=true", "unipelt")

each = daily(("family", "text"), CASES, ids=str)
TURNS = [
    case for case in CASES if list(GENERATING)[CALLS.index(case[1]) % len(GENERATING)] == case[0]
]
in_turn = pytest.mark.parametrize(("family", "text"), TURNS, ids=str)
"""One family for each method, where what is tested hardly depends on the family."""


def test_few_settings_are_refused() -> None:
    for family in GENERATING:
        kept = [text for one, text in CASES if one == family]
        assert len(kept) >= len(CALLS) - 10
        words = {text.partition("(")[0] for text in kept}
        assert {"lora", "prefix_tuning", "language", "compacter", "ia3", "layernorm"} <= words


@each
def test_it_does_something_and_the_optimised_program_agrees(family: str, text: str) -> None:
    found = hidden(composed(text, backbone(family)))
    assert distance(found, hidden(backbone(family))) > 1e-3
    assert distance(found, hidden(composed(text, backbone(family), optimise=False))) <= 1e-12


@in_turn
def test_the_gradient_reaches_exactly_what_is_trained(family: str, text: str) -> None:
    reached: set[tuple[Site, str]] = set()
    for seed in range(6):  # small layers of relu are dead under some weights
        model = composed(text, backbone(family), seed=seed)
        part = part_of(model)
        model(**batch(seed=seed)).last_hidden_state.square().mean().backward()
        for site in part.sites:
            for name, tensor in part[site].items():
                if tensor.grad is not None and tensor.grad.abs().max() > 0:
                    reached.add((site, name))
        ours = {id(parameter) for parameter in part.parameters()}
        assert all(p.grad is None for p in model.parameters() if id(p) not in ours)
        if reached == trained(part):
            return
    assert reached == trained(part)


def forward(family: str, model: ComposedModel, given: dict[str, Tensor], ids: Tensor) -> Tensor:
    """The logits behind each of the ids, those of the decoder where there is one."""
    with torch.no_grad():
        if family in ENCODER_DECODERS:
            return model(**given, decoder_input_ids=ids).logits
        new = torch.ones(len(ids), ids.shape[1] - LENGTH, dtype=torch.long)
        mask = torch.cat([given["attention_mask"], new], dim=1)
        places = (mask.cumsum(dim=1) - 1).clamp(min=0)
        return model(input_ids=ids, attention_mask=mask, position_ids=places).logits


def again(family: str, model: ComposedModel, given: dict[str, Tensor], ids: Tensor) -> Tensor:
    """The logits of the new ids by one forward."""
    start = 1 if family in ENCODER_DECODERS else LENGTH
    return forward(family, model, given, ids[:, :-1])[:, start - 1 :]


def by_step(family: str, model: ComposedModel, given: dict[str, Tensor], ids: Tensor) -> Tensor:
    """Of each by a forward of what is before it: gates would see what comes after it, too."""
    ends = range(1 if family in ENCODER_DECODERS else LENGTH, ids.shape[1])
    return torch.cat([forward(family, model, given, ids[:, :end])[:, -1:] for end in ends], dim=1)


@each
def test_generation_with_a_cache_is_the_full_forward(family: str, text: str) -> None:
    if "suffix_positions" in text:
        pytest.skip("counts from the end of the prompt, which a call without a cache does not know")
    model = composed(text, backbone(family, GENERATING[family]), head="backbone")
    given = batch(rows=2)
    if family in LEFT_TO_RIGHT:  # padded on the left
        given = {name: value.flip(1) for name, value in given.items()}
    ids, logits = generated(model, given)
    full = by_step if any(word in text for word in GATES) else again
    assert distance(logits, full(family, model, given, ids)) <= 1e-6  # they come in float32
    assert torch.equal(generated(model, given, use_cache=False)[0], ids)


@pytest.mark.parametrize("text", [text for text in CALLS if any(word in text for word in GATES)])
def test_behind_a_cache_a_gate_averages_over_the_newest_token(text: str) -> None:
    """The first token is that of the full forward; later ones have gates of their own."""
    for family in LEFT_TO_RIGHT:
        if (family, text) not in CASES:
            continue
        model = composed(text, backbone(family, GENERATING[family]), head="backbone")
        given = batch(rows=2, pad=False)
        ids, logits = generated(model, given, use_cache=True)
        full = by_step(family, model, given, ids)
        assert distance(logits[:, :1], full[:, :1]) <= 1e-6
        assert distance(logits[:, 1:], full[:, 1:]) > 3e-6


@pytest.mark.parametrize("family", list(GENERATING))
def test_route_generates_for_every_row_what_it_alone_generates(family: str) -> None:
    base = backbone(family, GENERATING[family])
    text = "route(a=pfeiffer(reduction=3), b=lora(rank=2), c=prefix(length=2, flat=true))"
    model = composed(text, base, head="backbone")
    given, rows = batch(pad=False, rows=4), ["c", "a", None, "b"]
    for beams in (1, 3):
        ids = model.generate(**given, rows=rows, max_new_tokens=4, num_beams=beams, do_sample=False)
        for number, name in enumerate(rows):
            one = {key: value[number : number + 1] for key, value in given.items()}
            alone = model.generate(
                **one, rows=[name], max_new_tokens=4, num_beams=beams, do_sample=False
            )
            assert torch.equal(ids[number, : alone.shape[1]], alone[0])
    with pytest.raises(Failed, match="AC505"):
        model.generate(**given, max_new_tokens=4)


@pytest.mark.parametrize("family", LEFT_TO_RIGHT)
def test_route_generates_without_a_cache_where_one_row_is_gated(family: str) -> None:
    text = "route(gated=unipelt(length=2, reduction=3, rank=2), plain=pfeiffer(reduction=3))"
    model = composed(text, backbone(family, GENERATING[family]), head="backbone")
    given, rows = batch(rows=3, pad=False), ["plain", "gated", None]
    ids, logits = generated(model, given, rows=rows)
    for number, name in enumerate(rows):
        one = {key: value[number : number + 1] for key, value in given.items()}
        alone_ids, alone = generated(model, one, rows=[name])
        assert torch.equal(ids[number], alone_ids[0])
        assert distance(logits[number], alone[0]) <= 1e-6
    _, cached = generated(model, given, rows=rows, use_cache=True)
    assert distance(cached[1, 1:], logits[1, 1:]) > 3e-6
    assert distance(cached[0], logits[0]) <= 1e-6


def test_generate_needs_the_backbones_own_head() -> None:
    with pytest.raises(Failed, match="AC508"):
        composed("pfeiffer(reduction=3)", backbone("gpt2")).generate(**batch())
    with pytest.raises(Failed, match="AC508"):
        composed(
            "parallel(a=none, b=none)", backbone("gpt2", GENERATING["gpt2"]), head="backbone"
        ).generate(**batch())


@pytest.mark.parametrize("family", list(GENERATING))
def test_a_cache_is_given_where_it_is_asked_for(family: str) -> None:
    model = composed("pfeiffer(reduction=3)", backbone(family, GENERATING[family]), head="backbone")
    more = {"decoder_input_ids": batch()["input_ids"]} if family in ENCODER_DECODERS else {}
    assert model(**batch(), **more).past_key_values is None
    first = model(**batch(pad=False), **more, use_cache=True)
    assert first.past_key_values.get_seq_length() == LENGTH
    if family in LEFT_TO_RIGHT:
        ids = batch(pad=False)["input_ids"]
        whole = model(input_ids=torch.cat([ids, ids[:, :2]], dim=1)).logits[:, LENGTH:]
        rest = model(input_ids=ids[:, :2], past_key_values=first.past_key_values, use_cache=True)
        assert distance(rest.logits, whole) <= 1e-12


@pytest.mark.parametrize("family", list(GENERATING))
def test_the_backbones_of_a_language_model_and_of_no_head_are_one(family: str) -> None:
    text = "language(reduction=3)"
    bare, whole = backbone(family), backbone(family, GENERATING[family])
    assert torch.equal(hidden(composed(text, bare)), hidden(composed(text, whole)))


@pytest.mark.parametrize("family", list(GENERATING))
def test_the_inverse_stands_before_the_vocabulary(family: str) -> None:
    """With nothing but an invertible part, what enters the vocabulary is undone, and no more."""
    base = backbone(family, GENERATING[family])
    model = composed("language(reduction=3, output=false)", base, head="backbone")
    seen: list[Tensor] = []
    vocabulary = model.body.lm_head
    vocabulary.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    vocabulary.stock.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    more = {"decoder_input_ids": batch()["input_ids"]} if family in ENCODER_DECODERS else {}
    with torch.no_grad():
        model(**batch(), **more)
    assert distance(seen[1], seen[0]) > 1e-3


@pytest.mark.parametrize("family", [*GENERATING, "bert", "distilbert"])
@pytest.mark.parametrize("flag", ["true", "false"])
def test_what_replaces_the_residual_is_exactly_what_it_computes(family: str, flag: str) -> None:
    """original_ln_after=false: the sub-layer's output is the adapter's, x is not added to it."""
    text = f"bottleneck(reduction=3, original_ln_after={flag})"
    model = composed(text, backbone(family))
    site = next(iter(model.program.sites))
    layout = model.program.facts.layout
    inner = module_at(model.body, layout.path(site))
    layer = inner_layer(model, site)
    seen: dict[str, Tensor] = {}
    inner.adapter.register_forward_hook(lambda _, args, out: seen.update(out=out, x=args[0].x))
    layer.register_forward_hook(
        lambda _, args, out: seen.update(after=out[0] if isinstance(out, tuple) else out)
    )
    hidden(model)
    expected = seen["out"] + seen["x"] if flag == "true" else seen["out"]
    if flag == "true" and layout.norm(site):
        expected = module_at(model.body, layout.norm(site))(expected)
    assert torch.equal(seen["after"], expected)


def inner_layer(model: ComposedModel, site: Site) -> nn.Module:
    path = model.program.facts.layout.path(Site("layer.out", site.layer, site.part))
    return module_at(model.body, path)


@pytest.mark.parametrize("family", list(GENERATING))
def test_rows_may_or_may_not_replace_the_residual(family: str) -> None:
    model = composed(
        "route(a=bottleneck(reduction=3, original_ln_after=false), b=pfeiffer(reduction=2))",
        backbone(family),
    )
    rows = ["b", "a", None]
    with torch.no_grad():
        together = model(**batch(), rows=rows).last_hidden_state
        for number, name in enumerate(rows):
            one = {key: value[number : number + 1] for key, value in batch().items()}
            alone = model(**one, rows=[name]).last_hidden_state
            assert distance(together[number : number + 1], alone) <= 1e-12


def test_a_part_of_an_encoder_decoder_can_be_left_alone() -> None:
    base = backbone("t5")
    for part, layers in (("encoder", {0, 1, 2}), ("decoder", {0, 1})):
        model = composed(f"houlsby(reduction=3) | keep(top=3, part={part})", base)
        assert {(s.part, s.layer) for s in model.program.sites} == {(part, n) for n in layers}
    model = composed("bottleneck(cross=true, attention=true) | drop(bottom=1)", base)
    assert {str(site) for site in model.program.sites} == {
        "encoder.1.attn.out",
        "encoder.2.attn.out",
        "encoder.1.ffn.out",
        "encoder.2.ffn.out",
        "decoder.1.attn.out",
        "decoder.1.cross.out",
        "decoder.1.ffn.out",
    }
    with pytest.raises(Failed, match="AC209"):
        composed("pfeiffer() | drop(bottom=1, part=decoder)")
    with pytest.raises(Failed, match="AC311"):
        composed("pfeiffer() | keep(part=encoder, bottom=1) | keep(part=decoder, bottom=1)", base)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("gpt2", {}),
        ("gpt2", {"n_inner": None}),
        ("llama", {}),
        ("llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 8}),
        ("t5", {}),
        ("t5", {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
        ("distilbert", {}),
        ("distilbert", {"sinusoidal_pos_embds": True}),
        ("bart", {"decoder_ffn_dim": 20}),
        ("bart", {"tie_word_embeddings": False}),
        ("mbart", {"decoder_layers": 4}),
    ],
)
def test_parameters_are_those_of_the_model(family: str, changes: dict[str, object]) -> None:
    made = config(family, **changes)
    facts = read_facts(made.to_dict())
    with torch.device("meta"):
        model = AutoModel.from_config(made)
    assert facts.parameters == sum(p.numel() for p in model.parameters())
    for site in facts.sites_of_kind("linear"):
        if facts.layout.sites[site.name].is_outside_base:
            continue
        module = model.get_submodule(facts.layout.path(site))
        shape = tuple(module.weight.shape)
        pieces = facts.layout.sites[site.name].piece[1]
        expected = (facts.width_at(site) * pieces, facts.input_width_at(site))
        assert shape == (expected[::-1] if family == "gpt2" else expected)


def test_the_biases_of_a_llama_are_those_of_its_configuration() -> None:
    for changes, kinds in (
        ({"attention_bias": True}, ("q_proj", "k_proj", "v_proj", "o_proj")),
        ({"mlp_bias": True}, ("gate_proj", "up_proj", "down_proj")),
    ):
        body = make_backbone("llama", **changes).double()
        own = {key: t for key, t in body.named_parameters() if key.endswith(".bias")}
        assert {key.split(".")[-2] for key in own} == set(kinds)
        model = composed("bitfit()", body, head=None)
        (part,) = (part for _, part in model.parts.items())
        assert sum(p.numel() for p in part.parameters()) == sum(t.numel() for t in own.values())


def counted(text: str, made: transformers.PretrainedConfig) -> int:
    facts = read_facts(made.to_dict())
    return method_of(text, facts).parameter_count(facts)


def test_counts_of_the_papers() -> None:
    """With the backbone's norms, which learn beside it (Karimi Mahabadi et al., 2021)."""
    t5 = transformers.T5Config(d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12)
    norms = counted("layernorm()", t5)
    settings = "phm_dim=4, reduction=32"
    assert counted(f"compacter({settings})", t5) + norms == 161_728
    assert counted(f"compacter_pp({settings})", t5) + norms == 104_704


@pytest.mark.parametrize("family", LEFT_TO_RIGHT)
def test_a_classifier_reads_the_last_token(family: str) -> None:
    head = {"task": "text-classification", "labels": ["yes", "no"]}
    model = composed("pfeiffer(reduction=3)", backbone(family), head=head)
    given = batch()
    with torch.no_grad():
        logits = model(**given).logits
        for row, length in enumerate(given["attention_mask"].sum(dim=1).tolist()):
            alone = model(input_ids=given["input_ids"][row : row + 1, :length]).logits
            assert distance(logits[row : row + 1], alone) <= 1e-12


def test_a_classifier_on_t5_reads_the_last_end_mark() -> None:
    head = {"task": "text-classification", "labels": ["yes", "no"]}
    model = composed("pfeiffer(reduction=3)", backbone("t5"), head=head)
    ids = batch(pad=False)["input_ids"].clone()
    ids[:, 3] = 2
    other = ids.clone()
    other[:, 5] = (other[:, 5] + 1).clamp(3)  # the decoder has not read that yet
    states = model.body(input_ids=ids, decoder_input_ids=ids, use_cache=False).last_hidden_state
    assert states.shape[1] == LENGTH
    with torch.no_grad():
        mask = torch.ones_like(ids)
        mask[:, 5] = 0
        first = model(input_ids=ids, attention_mask=mask).logits
        second = model(input_ids=other, attention_mask=mask).logits
    assert torch.equal(first, second)


def test_queries_keys_and_values_are_one_map_or_three() -> None:
    base: PreTrainedModel = backbone("gpt2")
    text = "lora(targets=[attn.qkv], rank=2)"
    whole = composed(text, base)
    three = compose("lora(targets=[attn.q, attn.k, attn.v], rank=2)", base, head=None).double()
    own, part = part_of(whole), part_of(three)
    with torch.no_grad():
        for site in own.sites:
            for number, name in enumerate("qkv"):
                rows = slice(number * 12, (number + 1) * 12)
                piece = part[Site(f"attn.{name}", site.layer)]
                piece["A"].copy_(own[site]["A"])
                piece["B"].copy_(own[site]["B"][rows])
    assert distance(hidden(whole), hidden(three)) <= 1e-12
    both = composed(f"stack({text}, dora(targets=[attn.k], rank=2))", base)
    literal = composed(f"stack({text}, dora(targets=[attn.k], rank=2))", base, optimise=False)
    assert distance(hidden(both), hidden(literal)) <= 1e-12
    assert distance(hidden(both), hidden(whole)) > 1e-3
    with pytest.raises(Failed, match="AC209"):
        compose("lora(targets=[attn.qkv, attn.k])", base)


@pytest.mark.parametrize("optimise", [True, False])
def test_a_layer_without_a_prefix_keeps_the_scores_by_distance(optimise: bool) -> None:
    """The peer loses them in T5's first layer without a prefix, and in those behind it."""
    seen: dict[str, list[Tensor]] = {"with": [], "without": []}
    text = "prefix(length=2, flat=true, leave_out=[1])"
    model = composed(text, backbone("t5"), optimise=optimise)
    for name, one in (("with", model), ("without", composed("none", backbone("t5")))):
        for layer in one.body.encoder.block[1:2]:
            layer.register_forward_pre_hook(lambda _, args, name=name: seen[name].append(args[2]))
        hidden(one)
    assert torch.equal(seen["with"][0], seen["without"][0])
    assert seen["with"][0].abs().max() > 0.1
