"""Virtual tokens and keys where text is read from left to right, or decoded."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel, StaticCache

from adaptcompose.backbones.layout import Site, read_facts
from adaptcompose.catalogue.cards import Catalogue
from adaptcompose.compiler.planning import make_plan
from adaptcompose.composition.checker import CheckContext, check_source
from adaptcompose.methods.prefix import Prefix
from adaptcompose.methods.prompt import Prompt
from adaptcompose.resources import resource_folder
from tests.tiny import (
    ENCODER_DECODERS,
    GENERATING,
    LENGTH,
    VOCABULARY,
    WIDTH,
    batch,
    composed,
    config,
    distance,
    generated,
    make_backbone,
)

EVERY = (
    "prefix(length=3, hidden=4)",
    "prefix(length=2, flat=true)",
    "prompt(length=3)",
    "ptuning(length=2, hidden=3)",
    "stack(prefix(length=2, flat=true), prompt(length=2), lora(rank=2))",
)
COUNTING = ("prefix(length=3, flat=true, positions=shifted)", "deep_prompt(length=2)")
CASES = [(family, text) for family in GENERATING for text in EVERY]
CASES += [(family, text) for family in GENERATING for text in COUNTING]
CAUSAL = [case for case in CASES if case[0] not in ENCODER_DECODERS]

pytestmark = pytest.mark.filterwarnings("ignore")


def language_model(family: str, way: str = "sdpa") -> PreTrainedModel:
    model = make_backbone(family, GENERATING[family]).double()
    model.set_attn_implementation(way)
    return model


def logits(model: Any, given: dict[str, Tensor], **more: Tensor) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(**given, **more).logits
    return out


@pytest.mark.parametrize(("family", "text"), CASES)
def test_generation_with_a_cache_is_the_full_forward(family: str, text: str) -> None:
    model = composed(text, language_model(family), head="backbone")
    given, steps = batch(pad=False), 4
    sequences, found = generated(model, given, steps)
    for step in range(steps):
        if family in ENCODER_DECODERS:
            full = logits(model, given, decoder_input_ids=sequences[:, : step + 1])
        else:
            ids = sequences[:, : LENGTH + step]
            full = logits(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
        assert distance(found[:, step], full[:, -1]) <= 1e-6  # they come in float32


@pytest.mark.parametrize(("family", "text"), CAUSAL)
def test_nothing_looks_ahead(family: str, text: str) -> None:
    model = composed(text, language_model(family), head="backbone")
    given = batch(pad=False)
    other = given["input_ids"].clone()
    other[:, -1] = (other[:, -1] + 1) % VOCABULARY
    first, second = logits(model, given), logits(model, given | {"input_ids": other})
    assert distance(first[:, :-1], second[:, :-1]) <= 1e-12
    assert distance(first[:, -1], second[:, -1]) > 1e-3


@pytest.mark.parametrize(("family", "text"), CASES)
def test_every_way_to_compute_attention_gives_the_same(family: str, text: str) -> None:
    found = []
    for way in ("sdpa", "eager"):
        model = composed(text, language_model(family, way), head="backbone")
        more = {"decoder_input_ids": batch()["input_ids"]} if family in ENCODER_DECODERS else {}
        found.append(logits(model, batch(), **more)[batch()["attention_mask"].bool()])
        found.append(logits(model, {"input_ids": batch()["input_ids"]}, **more))
    exact = 1e-5 if family == "llama" else 1e-12  # its eager function rounds to float32
    assert distance(found[0], found[2]) <= exact
    assert distance(found[1], found[3]) <= exact


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("positions", ["kept", "shifted"])
def test_a_prefix_is_a_cache_that_is_there_before(family: str, positions: str) -> None:
    """transformers' own cache holds the same keys and values in front of those of the tokens."""
    base = language_model(family)
    model = composed(f"prefix(length=3, flat=true, positions={positions})", base, head="backbone")
    ((_, part),) = model.parts.items()
    cache, given = DynamicCache(config=base.config), batch(pad=False)
    heads = 2
    for layer in range(base.config.num_hidden_layers):
        own = part[Site("attn.kv", layer)]
        key, value = (
            own[name].detach().view(1, 3, heads, -1).transpose(1, 2).expand(3, -1, -1, -1)
            for name in ("key", "value")
        )
        cache.update(key, value, layer)
    start = 3 if positions == "shifted" else 0
    places = torch.arange(start, start + LENGTH).expand(3, -1)
    mask = torch.ones(3, LENGTH + 3, dtype=torch.long)
    with torch.no_grad():
        expected = base(
            input_ids=given["input_ids"],
            attention_mask=mask,
            past_key_values=cache,
            position_ids=places,
        ).logits
    assert distance(logits(model, given), expected) <= 1e-12


@pytest.mark.parametrize("family", ENCODER_DECODERS)
def test_a_decoders_prefix_is_a_cache_where_it_counts_as_the_first_positions(family: str) -> None:
    """T5's scores by distance, others' positions are those of the cache of transformers."""
    base = language_model(family)
    text = "prefix(length=3, flat=true, encoder=false, cross=false, positions={})"
    model = composed(text.format("shifted"), base, head="backbone")
    ((_, part),) = model.parts.items()
    layers = model.program.facts.layers_by_part["decoder"]
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    for layer in range(layers):
        own = part[Site("attn.kv", layer, "decoder")]
        key, value = (
            own[name].detach().view(1, 3, 2, -1).transpose(1, 2).expand(3, -1, -1, -1)
            for name in ("key", "value")
        )
        cache.self_attention_cache.update(key, value, layer)
    given = batch() | {"decoder_input_ids": batch()["input_ids"]}
    with torch.no_grad():
        expected = base(**given, past_key_values=cache).logits
    assert distance(logits(model, given), expected) <= 1e-12
    kept = composed(text.format("kept"), base, head="backbone")
    ((_, other),) = kept.parts.items()
    with torch.no_grad():
        for place, tensor in part.tensors().items():
            other[place[0]][place[1]].copy_(tensor)
    assert distance(logits(kept, given), expected) > 1e-3


@pytest.mark.parametrize("family", ENCODER_DECODERS)
def test_rows_may_count_their_prefixes_in_different_ways(family: str) -> None:
    """A row with a prefix of either convention is the row alone."""
    base = language_model(family)
    one = "a=prefix(length=3, flat=true, positions=shifted)"
    text = f"route({one}, b=prefix(length=2, flat=true), c=none)"
    model = composed(text, base, head="backbone")
    given = batch(pad=False) | {"decoder_input_ids": batch(pad=False)["input_ids"]}
    with torch.no_grad():
        mixed = model(**given, rows=["a", "b", "c"]).logits
        for row, name in enumerate("abc"):
            alone = {key: tensor[row : row + 1] for key, tensor in given.items()}
            assert distance(mixed[row], model(**alone, rows=[name]).logits[0]) <= 1e-12


@pytest.mark.parametrize("way", ["sdpa", "eager"])
@pytest.mark.parametrize(("family", "text"), CAUSAL)
def test_a_cache_of_fixed_size_is_the_full_forward(family: str, text: str, way: str) -> None:
    """An empty one has more places than there are tokens, and sdpa is then given no mask."""
    base = language_model(family, way)
    model = composed(text, base, head="backbone")
    given = batch(pad=False)
    cache = StaticCache(config=base.config, max_cache_len=LENGTH + 6)
    exact = 1e-5 if (family, way) == ("llama", "eager") else 1e-12  # it rounds to float32
    with torch.no_grad():
        first = model(**given, past_key_values=cache, use_cache=True).logits
        assert distance(first, logits(model, given)) <= exact
        new = first[:, -1:].argmax(dim=-1)
        ids = torch.cat([given["input_ids"], new], dim=1)
        mask = torch.ones_like(ids)
        second = model(
            input_ids=new, attention_mask=mask, past_key_values=cache, use_cache=True
        ).logits
    full = logits(model, {"input_ids": ids, "attention_mask": mask})
    assert distance(second[:, -1], full[:, -1]) <= exact


@pytest.mark.parametrize("family", list(GENERATING))
def test_a_prompt_is_more_embeddings(family: str) -> None:
    base = language_model(family)
    model = composed("prompt(length=3)", base, head="backbone")
    ((_, part),) = model.parts.items()
    own = part[Site("tokens")]["embedding"].detach().expand(3, -1, -1)
    given = batch(pad=family in ENCODER_DECODERS)
    words = base.get_input_embeddings()(given["input_ids"])
    mask = torch.cat([torch.ones(3, 3, dtype=torch.long), given["attention_mask"]], dim=1)
    more = {"decoder_input_ids": given["input_ids"]} if family in ENCODER_DECODERS else {}
    with torch.no_grad():
        embeds = torch.cat([own, words], dim=1)
        expected = base(inputs_embeds=embeds, attention_mask=mask, **more).logits
    assert distance(logits(model, given, **more), expected[:, 0 if more else 3 :]) <= 1e-12


@pytest.mark.parametrize("family", list(GENERATING))
def test_a_row_is_the_row_alone(family: str) -> None:
    texts = (*EVERY, "bottleneck(reduction=3)") + (COUNTING if family != "t5" else ())
    names = "abcdefgh"[: len(texts)]
    members = ", ".join(f"{name}={text}" for name, text in zip(names, texts, strict=True))
    model = composed(f"route({members})", language_model(family), head="backbone")
    rows = [*names, None]
    given = batch(rows=len(rows), pad=False)
    more = {"decoder_input_ids": given["input_ids"]} if family in ENCODER_DECODERS else {}
    given |= more
    with torch.no_grad():
        together = model(**given, rows=rows).logits
        for number, name in enumerate(rows):
            one = {key: value[number : number + 1] for key, value in given.items()}
            own = model(**one, rows=[name]).logits
            assert distance(together[number : number + 1], own) <= 1e-11


def planned(method: Any, model: Any) -> int:
    facts = read_facts(model.to_dict())
    graph = check_source(
        str(method), CheckContext(Catalogue.open(resource_folder("hub_cards")), facts)
    )
    return make_plan(graph.raise_errors(), facts).trained_parameters


def test_counts_of_the_papers() -> None:
    medium = transformers.GPT2Config(n_embd=1024, n_layer=24, n_head=16)
    assert planned(Prefix(length=5, flat=True), medium) == 245_760
    t5 = transformers.T5Config(d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12)
    assert planned(Prompt(length=100), t5) == 76_800


def test_the_network_of_a_prefix_is_trained_and_not_needed_afterwards() -> None:
    medium = transformers.GPT2Config(n_embd=1024, n_layer=24, n_head=16)
    network = 5 * 1024 + 513 * 1024 - 512 + 24 * 2 * 1024 * 513
    assert planned(Prefix(length=5, hidden=512), medium) == network == 25_744_896


def test_tiny_models_have_the_shape_that_is_meant() -> None:
    assert config("llama").num_key_value_heads == 2 and config("gpt2").n_embd == WIDTH
