"""Changes of embeddings and of the last map of a language model: their formulas, and what stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import adaptcompose as ac
from adaptcompose.backbones.layout import Site, read_facts
from adaptcompose.compiler.passes.merge_deltas import MergedLinear
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.methods.lora import Lora
from adaptcompose.runtime.attach.sites import module_at
from adaptcompose.runtime.model import ComposedModel
from tests.tiny import VOCABULARY, backbone, batch, composed, config, distance, make_backbone

KINDS = {
    "bert": "AutoModelForMaskedLM",
    "roberta": "AutoModelForMaskedLM",
    "electra": "AutoModelForMaskedLM",
    "distilbert": "AutoModelForMaskedLM",
    "gpt2": "AutoModelForCausalLM",
    "llama": "AutoModelForCausalLM",
    "t5": "AutoModelForSeq2SeqLM",
    "bart": "AutoModelForSeq2SeqLM",
    "mbart": "AutoModelForSeq2SeqLM",
}
WORDS, LAST = Site("embed.tokens"), Site("vocabulary")
BOTH = "lora(rank=2, alpha=3, targets=[embed.tokens, vocabulary])"
CALLS = (
    BOTH,
    "dora(rank=2, alpha=3, targets=[embed.tokens, vocabulary])",
    "ia3(targets=[attn.v, vocabulary], inputs=[])",
    "vera(rank=4, targets=[attn.v, vocabulary])",
    f"stack({BOTH}, language(reduction=3))",
    f"stack(prompt(length=2), {BOTH})",
)

each_family = pytest.mark.parametrize("family", list(KINDS))


def model_of(family: str, text: str, **options: Any) -> ComposedModel:
    return composed(text, backbone(family, KINDS[family]), head="backbone", **options)


def logits(model: Any, **inputs: Any) -> Tensor:
    given = batch() | decoded(model) | inputs
    with torch.no_grad():
        out: Tensor = model(**given).logits
    return out


def decoded(model: Any) -> dict[str, Tensor]:
    """What an encoder-decoder is given to decode."""
    return {"decoder_input_ids": batch()["input_ids"]} if model.config.is_encoder_decoder else {}


def weights_at(model: ComposedModel, site: Site) -> dict[str, Tensor]:
    ((_, part),) = model.parts.items()
    return {key: tensor.detach() for key, tensor in part[site].items()}


def words_of(model: Any) -> list[Any]:
    """The embeddings of every stack of a stock model."""
    if model.config.is_encoder_decoder:
        base = model.base_model
        return [base.encoder.embed_tokens, base.decoder.embed_tokens]
    return [model.get_input_embeddings()]


@each_family
@pytest.mark.parametrize("optimise", [True, False])
def test_factors_add_to_both_matrices(family: str, optimise: bool) -> None:
    """Tied or not: each matrix gets its own change, and none of the other one."""
    model = model_of(family, BOTH, optimise=optimise)
    base: Any = make_backbone(family, KINDS[family]).double()
    parts = model.program.facts.layers_by_part
    with torch.no_grad():
        own = base.get_output_embeddings().weight.clone()
        for part, module in zip(parts, words_of(base), strict=True):
            w = weights_at(model, Site("embed.tokens", None, part))
            module.weight = torch.nn.Parameter(module.weight + 1.5 * (w["B"] @ w["A"]).T)
        w = weights_at(model, LAST)
        base.get_output_embeddings().weight = torch.nn.Parameter(own + 1.5 * w["B"] @ w["A"])
    assert distance(logits(model), logits(base)) <= 1e-12


@each_family
@pytest.mark.parametrize("text", CALLS)
def test_the_literal_and_the_optimised_program_agree(family: str, text: str) -> None:
    found = [logits(model_of(family, text, optimise=optimise)) for optimise in (True, False)]
    assert distance(*found) <= 1e-12
    assert distance(found[0], logits(backbone(family, KINDS[family]))) > 1e-3


def test_the_last_map_is_merged_and_what_is_looked_up_is_not() -> None:
    """A matrix of the whole vocabulary would be made for the few tokens of a text."""
    sites = model_of("gpt2", BOTH).program.sites
    assert isinstance(sites[LAST], MergedLinear) and not isinstance(sites[WORDS], MergedLinear)
    assert sites[WORDS].multiplications() == 2 * 12


@each_family
def test_it_starts_as_the_backbone_and_trains(family: str) -> None:
    torch.manual_seed(0)
    base = make_backbone(family, KINDS[family])
    model = ac.compose(BOTH, base, head="backbone")
    assert distance(logits(model), logits(base)) <= 1e-5
    given = batch() | decoded(base) | {"labels": batch()["input_ids"]}
    before = {name: value.clone() for name, value in base.state_dict().items()}
    optimiser = torch.optim.SGD([p for _, p in model.trained()], lr=0.5)
    for _ in range(2):  # the zeros of one factor hide the other one in the first step
        optimiser.zero_grad()
        model(**given).loss.backward()
        optimiser.step()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for _, p in model.trained())
    assert distance(logits(model), logits(base)) > 1e-4
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())


@each_family
def test_without_the_head_the_last_map_does_nothing(family: str) -> None:
    base = backbone(family)
    model = composed("lora(rank=2, targets=[vocabulary])", base)
    with torch.no_grad():
        out, expected = (m(**batch(), **decoded(base)).last_hidden_state for m in (model, base))
    assert torch.equal(out, expected)


@each_family
def test_rows_and_branches_have_their_own(family: str) -> None:
    last = "lora(rank=2, targets=[vocabulary])"
    texts = {"a": BOTH, "b": last, "c": "lora(rank=3, targets=[embed.tokens])"}
    lets = "".join(f"let {name} = {text}; " for name, text in texts.items())
    alone = {
        name: logits(model_of(family, f"let {name} = {t}; {name}")) for name, t in texts.items()
    }
    bare = logits(backbone(family, KINDS[family]))
    routed = model_of(family, f"{lets} route(a=a, b=b, c=c)")
    out = logits(routed, rows=["c", "a", None])
    for row, expected in enumerate((alone["c"], alone["a"], bare)):
        assert distance(out[row], expected[row]) <= 1e-12
    pair = model_of(family, f"let d = {last}; {lets} route(b=b, d=d)")
    assert distance(logits(pair, rows=["b", "d", "b"])[0], alone["b"][0]) <= 1e-12
    for names in (("a", "b", "c"), ("b", "c"), ("b", "b2")):
        more = f"let b2 = {last};"
        inner = ", ".join(f"{name}={name}" for name in names)
        with torch.no_grad():
            model = model_of(family, f"{lets} {more} parallel({inner})")
            outs = model(**batch(), **decoded(model))
        assert all(distance(outs[n].logits, alone[n]) <= 1e-12 for n in names if n in alone)


@each_family
@pytest.mark.parametrize("text", CALLS[:3])
def test_it_is_saved_and_loaded_bit_for_bit(family: str, text: str, tmp_path: Path) -> None:
    base = make_backbone(family, KINDS[family])
    model = composed(text, base, head="backbone")
    model.save(str(tmp_path))
    assert torch.equal(logits(ac.load(tmp_path, base)), logits(model))
    assert model.detach() is base


@pytest.mark.parametrize(
    "text",
    [
        "lora(rank=2, targets=[attn.v, vocabulary])",
        "lora(rank=2, gate=true, targets=[attn.v], whole=[embed.tokens, attn.q, attn.k])",
        "lora(rank=2, targets=[embed.tokens], bias=own, whole=[attn.qkv])",
        "lora(rank=2, targets=[attn.v], whole=[attn.o, ffn.in, attn.norm])",
    ],
)
def test_what_peft_has_no_form_for_is_saved_too(text: str, tmp_path: Path) -> None:
    """The last map without its head, maps that are pieces of one module, gates beside it all."""
    base = make_backbone("gpt2")
    model = composed(text, base)
    model.save(str(tmp_path))
    again = ac.load(tmp_path, base)
    with torch.no_grad():
        out, expected = (m(**batch()).last_hidden_state for m in (again, model))
    assert torch.equal(out, expected)
    for (_, part), (_, other) in zip(again.parts.items(), model.parts.items(), strict=True):
        assert part.tensors().keys() == other.tensors().keys()
        assert all(torch.equal(t, other.tensors()[key]) for key, t in part.tensors().items())


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
@pytest.mark.parametrize("text", CALLS)
def test_text_with_a_cache_is_text_without(family: str, text: str) -> None:
    model = model_of(family, text)
    given = batch(pad=False) | {"max_new_tokens": 4, "do_sample": False}
    ids = model.generate(**given)
    assert torch.equal(ids, model.generate(**given, use_cache=False))


def test_ranges_of_tokens_have_their_own_embeddings() -> None:
    """What is left out of a split is told."""
    text = "split(lora(rank=2, targets=[embed.tokens]), none, at=3)"
    model = model_of("bert", text)
    whole = model_of("bert", "lora(rank=2, targets=[embed.tokens])")
    ids = batch(pad=False)["input_ids"]
    path = "bert.embeddings.word_embeddings"
    with torch.no_grad():
        found, changed, stock = (
            module_at(body, path)(ids)
            for body in (model.body, whole.body, backbone("bert", KINDS["bert"]))
        )
    assert distance(found[:, :3], changed[:, :3]) <= 1e-12
    assert torch.equal(found[:, 3:], stock[:, 3:])
    with pytest.raises(Failed, match="AC209"):
        model_of("bert", "lora(targets=[vocabulary], gate=true)")
    with pytest.raises(Failed, match="AC209"):
        model_of("bert", "ia3(targets=[embed.tokens])")


def test_counts_are_told_by_the_configuration() -> None:
    facts = read_facts(config("electra").to_dict())
    method = Lora(rank=2, targets=("embed.tokens", "vocabulary"))
    assert method.parameter_count(facts) == 2 * 2 * (VOCABULARY + 7)
    decoder = read_facts(config("t5").to_dict())
    assert [str(s) for s in method.sites(decoder)] == [
        *("encoder.embed.tokens", "decoder.embed.tokens", "vocabulary")
    ]
    assert method.parameter_count(decoder) == 3 * 2 * (VOCABULARY + 12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_backbones_take_it(dtype: torch.dtype) -> None:
    base = make_backbone("llama", KINDS["llama"]).to(dtype)
    assert logits(composed(BOTH, base, head="backbone")).dtype == dtype
