"""Where tokens stand: behind those in a cache, behind padding, and in ranges of their own."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import StaticCache

from adaptcompose.composition.fusion_activations import format_activations
from adaptcompose.composition.operator import registered_operators
from adaptcompose.runtime.fusion_attention import measure_attention
from adaptcompose.runtime.model import ComposedModel
from tests.sampling import daily
from tests.tiny import (
    ENCODER_DECODERS,
    GENERATING,
    LENGTH,
    backbone,
    batch,
    composed,
    distance,
    generated,
    hidden,
)

LETS = "let a = pfeiffer(reduction=3); let b = pfeiffer(reduction=2); let c = lora(rank=2);"
RANGES = "split(a, c, none, at=[3, 7])"
OPERATORS = {
    "stack": "stack(prefix(length=2, flat=true), c, prompt(length=2), a)",
    "fuse": "fuse(a, b)",
    "average": "average(a:0.3, b:0.7)",
    "merge": "merge(c, lora(rank=2))",
    "split": RANGES,
    "scale": f"{RANGES} | scale(by=0.5)",
    "drop": f"{RANGES} | drop(layers=[0])",
    "keep": f"{RANGES} | keep(layers=[0])",
    "swap": "stack(x=a, c) | swap(x=split(a, b, at=4))",
    "prune": "let f = fuse(a, b); f | prune(keep=1, by={by})",
    "train": f"{RANGES} | train(a)",
    "freeze": f"{RANGES} | freeze(a)",
    "parallel": f"parallel(one={RANGES}, two=a)",
    "route": f"route(one=stack(prompt(length=3), {RANGES}), two=stack(c, split(c, b, at=4)))",
}
"""A text for each operator, on tokens whose place makes a difference where there can be any."""
NESTED = {
    "a split in a split": "split(split(a, b, at=2), c, at=5)",
    "a split over a split": "stack(split(c, ia3(), at=3), split(ia3(), c, at=5))",
    "a split over virtual tokens": f"stack(prompt(length=2, after_first=true), {RANGES})",
    "a split of norms": "stack(split(layernorm(), none, at=3), split(none, a, at=5))",
}

pytestmark = pytest.mark.filterwarnings("ignore")


def test_every_operator_is_here() -> None:
    assert set(OPERATORS) == set(registered_operators())


def model_of(family: str, text: str, folder: Path) -> ComposedModel:
    base = backbone(family, GENERATING[family])
    if "{by}" in text:
        whole = composed(f"{LETS} let f = fuse(a, b); f", backbone(family))
        (folder / "activations.yaml").write_text(
            format_activations(measure_attention(whole, [batch()]))
        )
        text = text.replace("{by}", f'"{folder}/activations.yaml"')
    model = composed(f"{LETS} {text}", base, head="backbone")
    return model.branch("one") if text.startswith("parallel") else model


def padded(family: str, *, pad: bool) -> dict[str, Tensor]:
    """On the left, where text is read from left to right."""
    given = batch(rows=2, pad=pad)
    if family in ENCODER_DECODERS:
        return given
    return {name: value.flip(1) for name, value in given.items()}


def continued(model: ComposedModel, given: dict[str, Tensor], **more: object) -> tuple[Tensor, ...]:
    """Ids, and the logits behind each."""
    rows = {"rows": ["one", "two"]} if model.program.names else {}
    return generated(model, given, 5, **rows, **more)


@daily(
    ("family", "text"),
    [*itertools.product(GENERATING, [*OPERATORS.values(), *NESTED.values()])],
    ids=str,
)
def test_with_a_cache_is_without(family: str, text: str, tmp_path: Path) -> None:
    model = model_of(family, text, tmp_path)
    for pad in (True, False):
        given = padded(family, pad=pad)
        ids, logits = continued(model, given)
        same, full = continued(model, given, use_cache=False)
        assert torch.equal(ids, same)
        assert distance(logits, full) <= 1e-6  # they come in float32


@pytest.mark.parametrize("family", list(GENERATING))
@pytest.mark.parametrize("word", ["split", "route"])
def test_a_search_with_a_cache_is_that_without(family: str, word: str, tmp_path: Path) -> None:
    model, given = model_of(family, OPERATORS[word], tmp_path), padded(family, pad=True)
    ids, _ = continued(model, given, num_beams=3)
    assert torch.equal(ids, continued(model, given, num_beams=3, use_cache=False)[0])


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_places_in_a_cache_of_fixed_size_are_counted_as_they_are_filled(family: str) -> None:
    base = backbone(family, GENERATING[family])
    model = composed(f"{LETS} {RANGES}", base, head="backbone")
    ids = batch(pad=False)["input_ids"]
    ids = torch.cat([ids, ids[:, :2]], dim=1)
    cache = StaticCache(config=base.config, max_cache_len=LENGTH + 6)
    with torch.no_grad():
        whole = model(input_ids=ids).logits
        for start, end in ((0, 4), (4, LENGTH), (LENGTH, LENGTH + 2)):
            mask = torch.ones(len(ids), end, dtype=torch.long)
            here = model(
                input_ids=ids[:, start:end],
                attention_mask=mask,
                past_key_values=cache,
                use_cache=True,
            )
            assert distance(here.logits, whole[:, start:end]) <= 1e-12


def test_rows_with_prompts_of_their_own_need_no_mask_behind_a_cache() -> None:
    model = composed(
        "route(a=prompt(length=3), b=none)", backbone("gpt2", GENERATING["gpt2"]), head="backbone"
    )
    ids = batch(pad=False, rows=2)["input_ids"]
    with torch.no_grad():
        whole = model(input_ids=ids, rows=["a", "b"]).logits
        body = model.language_model()
        cache = body(input_ids=ids[:, :4], use_cache=True).past_key_values
        rest = body(
            input_ids=ids[:, 4:],
            past_key_values=cache,
            use_cache=True,
            position_ids=torch.arange(4, LENGTH).expand(2, -1),
        ).logits
    assert distance(rest, whole[:, 4:]) <= 1e-12


LAWS = [
    ("stack(split(m, n, at=3), split(i, i, at=2))", "stack(split(m, n, at=3), i)"),
    ("stack(split(m, n, at=3), split(i, i, at=2))", "split(stack(m, i), stack(n, i), at=3)"),
    ("stack(split(l, none, at=3), split(a, a, at=2))", "stack(split(l, none, at=3), a)"),
    ("stack(split(none, l, at=3), split(a, a, at=2))", "stack(split(none, l, at=3), a)"),
]


@pytest.mark.parametrize("optimise", [True, False], ids=["optimised", "literal"])
@pytest.mark.parametrize(("text", "same"), LAWS)
def test_what_a_range_reads_of_another_split_knows_its_tokens(
    text: str, same: str, optimise: bool
) -> None:
    maps = "let m = lora(rank=2, targets=[ffn.mid]); let n = lora(rank=3, targets=[ffn.mid]);"
    lets = f"{LETS} {maps} let i = ia3(); let l = layernorm();"
    first, second = (
        hidden(composed(f"{lets} {one}", backbone(), optimise=optimise)) for one in (text, same)
    )
    assert distance(first, second) <= 1e-12


@pytest.mark.parametrize("optimise", [True, False], ids=["optimised", "literal"])
def test_ranges_of_rows_with_prompts_of_their_own(optimise: bool) -> None:
    """Rows of one shape are computed together, and padding in front of shorter prompts is none."""
    maps = "lora(rank=2, targets=[ffn.mid])"
    one = f"stack(split({maps}, {maps}, at=3), split(ia3(), layernorm(), at=4), pfeiffer())"
    text = f"route(a={one}, b={one}, c=prompt(length=3), d=stack(prompt(length=2), {one}))"
    model, rows = composed(text, backbone(), optimise=optimise), ["a", "c", "b", "d", "a"]
    given = batch(rows=len(rows))
    with torch.no_grad():
        together = model(**given, rows=rows).last_hidden_state
        for number, name in enumerate(rows):
            own = {key: value[number : number + 1] for key, value in given.items()}
            alone = model(**own, rows=[name]).last_hidden_state
            assert distance(together[number : number + 1], alone) <= 1e-11


@pytest.mark.parametrize("pad", [True, False], ids=["padded", "full"])
@pytest.mark.parametrize(
    "text",
    [
        "lora(rank=2, gate=true, targets=[cross.q, cross.k, cross.v])",
        "ia3(gate=true)",
        "unipelt(length=3, hidden=5, reduction=3, rank=2)",
        "split(lora(rank=2, targets=[cross.k]), none, at=2)",
    ],
)
def test_what_a_decoder_reads_of_the_encoder_is_the_rows_own(text: str, pad: bool) -> None:
    model = composed(f"route(one={text}, two=prompt(length=4))", backbone("t5"))
    given = batch(rows=2, pad=pad) | {"decoder_input_ids": batch(rows=2)["input_ids"]}
    with torch.no_grad():
        together = model(**given, rows=["one", "two"]).last_hidden_state[:1]
        own = {key: value[:1] for key, value in given.items()}
        alone = model(**own, rows=["one"]).last_hidden_state
    assert distance(together, alone) <= 1e-12
