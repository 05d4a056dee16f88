"""Prefixes, prompts and their mixtures: what they compute, row by row, against plain torch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import transformers
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModel, PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from adaptcompose.backbones.layout import Facts, Site, read_facts
from adaptcompose.catalogue.cards import Catalogue
from adaptcompose.compiler.planning import make_plan
from adaptcompose.composition.checker import CheckContext, check_source
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.methods.method import SHARED_SITE
from adaptcompose.resources import resource_folder
from adaptcompose.runtime.attach.sites import stock_of
from adaptcompose.runtime.compose import compose
from adaptcompose.runtime.model import ComposedModel
from adaptcompose.runtime.parts import Part
from tests.sampling import daily, sampled
from tests.tiny import (
    ENCODERS,
    LAYERS,
    backbone,
    batch,
    composed,
    config,
    distance,
    hidden,
    make_backbone,
)
from tests.virtual import Row, encode

Weights = dict[str, Tensor]


def weights_of(part: Part, site: Site) -> Weights:
    return {name: tensor.detach() for name, tensor in part[site].items()}


def parts_of(model: ComposedModel) -> Iterator[Part]:
    for _, part in model.parts.items():
        yield part


def pair(part: Part, layer: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values of one layer, from what is stored."""
    own = weights_of(part, Site("attn.kv", layer))
    if "key" in own:
        key, value = own["key"], own["value"]
    else:
        shared = weights_of(part, SHARED_SITE)
        inner = shared["embedding"] @ shared["hidden.weight"].T + shared["hidden.bias"]
        inner = inner.tanh()
        key = inner @ own["key.weight"].T + own["key.bias"]
        value = inner @ own["value.weight"].T + own["value.bias"]
    if "gate.weight" in own:
        gates = torch.sigmoid(x @ own["gate.weight"].T + own["gate.bias"]).mean(dim=0)
        return key * gates[0], value * gates[-1]
    return key, value


def prefixed(*parts: Part, start: int = 0) -> Row:
    def of(layer: int) -> Callable[[Tensor], list[tuple[Tensor, Tensor]]]:
        return lambda x: [pair(part, layer, x) for part in parts]

    return Row({layer: of(layer) for layer in range(LAYERS)}, start=start)


def expected(base: PreTrainedModel, row: Row, given: dict[str, Tensor]) -> list[Tensor]:
    """The states of the real tokens of every row, virtual ones left out."""
    virtual = [one for one in (row.words, row.behind) if one is not None]
    count = sum(map(len, virtual))
    found = []
    for ids, mask in zip(given["input_ids"], given["attention_mask"], strict=True):
        states = encode(base, ids[mask.bool()], row)
        place = count if row.before is None else row.before
        found.append(torch.cat([states[place : place + 1], states[count + 1 :]]))
    return found


def agree(model: ComposedModel, base: PreTrainedModel, row: Row, *, pad: bool = True) -> None:
    given = batch(pad=pad)
    states = hidden(model, **given)
    for got, mask, own in zip(
        states, given["attention_mask"], expected(base, row, given), strict=True
    ):
        assert distance(got[mask.bool()], own) <= 1e-12


every_family = pytest.mark.parametrize("family", ENCODERS)


@every_family
@pytest.mark.parametrize("flat", ["true", "false"])
@pytest.mark.parametrize("positions", ["kept", "shifted"])
def test_a_prefix_is_more_keys_and_values(family: str, flat: str, positions: str) -> None:
    base = backbone(family)
    text = f"prefix(length=4, hidden=5, flat={flat}, positions={positions})"
    model = composed(text, base)
    (part,) = parts_of(model)
    agree(model, base, prefixed(part, start=4 if positions == "shifted" else 0))


@every_family
def test_prefixes_in_a_stack_stand_beside_each_other(family: str) -> None:
    base = backbone(family)
    model = composed("stack(prefix(length=2, flat=true), prefix(length=3, hidden=5))", base)
    agree(model, base, prefixed(*parts_of(model)))


@pytest.mark.parametrize("shared", ["true", "false"])
def test_gates_multiply_keys_and_values(shared: str) -> None:
    base = backbone()
    model = composed(f"prefix(length=3, hidden=5, gate=true, shared_gate={shared})", base)
    (part,) = parts_of(model)
    agree(model, base, prefixed(part), pad=False)


def test_a_long_prefix_may_be_longer_than_the_text() -> None:
    base = backbone()
    model = composed("prefix(length=50, flat=true)", base)
    agree(model, base, prefixed(*parts_of(model)))


@every_family
@pytest.mark.parametrize("after", ["true", "false"])
def test_kept_prompts_join_behind_the_embeddings(family: str, after: str) -> None:
    base = backbone(family)
    model = composed(f"prompt(length=4, positions=kept, after_first={after})", base)
    (part,) = parts_of(model)
    own = weights_of(part, Site("tokens"))["embedding"]
    agree(model, base, Row(behind=own, before=0 if after == "true" else None))


@every_family
@pytest.mark.parametrize("after", ["true", "false"])
def test_shifted_prompts_are_embedded_like_words(family: str, after: str) -> None:
    base = backbone(family)
    model = composed(f"prompt(length=4, positions=shifted, after_first={after})", base)
    (part,) = parts_of(model)
    own = weights_of(part, Site("tokens"))["embedding"]
    agree(model, base, Row(words=own, before=0 if after == "true" else None))


@pytest.mark.parametrize("encoder", ["lstm", "mlp"])
def test_p_tuning_makes_its_embeddings(encoder: str) -> None:
    base = backbone()
    model = composed(f"ptuning(length=4, encoder={encoder}, hidden=5, layers=2)", base)
    (part,) = parts_of(model)
    w = weights_of(part, Site("tokens"))
    state = w["embedding"]
    if encoder == "lstm":
        net = torch.nn.LSTM(12, 5, 2, bidirectional=True, batch_first=True).double()
        net.load_state_dict({k[5:]: t for k, t in w.items() if k.startswith("lstm.")})
        state = net(state[None])[0][0].detach()
    for number in [int(key.split(".")[1]) for key in w if key.endswith("weight") and "mlp" in key]:
        state = state.clamp(min=0) if number else state
        state = state @ w[f"mlp.{number}.weight"].T + w[f"mlp.{number}.bias"]
    agree(model, base, Row(words=state))


def test_prompts_in_a_stack_stand_in_front_of_each_other() -> None:
    base = backbone()
    text = "stack(prompt(length=2, positions=shifted), prompt(length=3, positions=shifted))"
    model = composed(text, base)
    first, second = (weights_of(part, Site("tokens"))["embedding"] for part in parts_of(model))
    agree(model, base, Row(words=torch.cat([second, first])))


@every_family
@pytest.mark.parametrize("positions", ["kept", "shifted"])
@pytest.mark.parametrize("optimise", [True, False], ids=["optimised", "literal"])
def test_in_a_stack_the_first_token_is_that_of_what_stands_there(
    family: str, positions: str, optimise: bool
) -> None:
    """A prompt behind the first token stands behind the first virtual one of the prompt before."""
    base, where = backbone(family), f"positions={positions}"
    after = f"prompt(length=2, after_first=true, {where})"
    before = f"prompt(length=3, {where})"
    for members in ([before, after], [after, before], [before, after, before]):
        model = composed(f"stack({', '.join(members)})", base, optimise=optimise)
        parts = [weights_of(part, Site("tokens"))["embedding"] for part in parts_of(model)]
        order: list[Tensor | None] = [None]  # the first word
        for text, embedding in zip(members, parts, strict=True):
            order = [*order[:1], *embedding, *order[1:]] if text == after else [*embedding, *order]
        virtual = torch.stack([one for one in order if one is not None])
        place = next(number for number, one in enumerate(order) if one is None)
        kept = positions == "kept"
        row = Row(**{"behind" if kept else "words": virtual}, before=place)  # type: ignore[arg-type]
        agree(model, base, row)


def test_a_prompt_and_a_prefix_both_take_positions() -> None:
    base = backbone()
    model = composed("stack(deep_prompt(length=3), prompt(length=2, positions=shifted))", base)
    prefix, prompt = parts_of(model)
    row = prefixed(prefix, start=3)
    row.words = weights_of(prompt, Site("tokens"))["embedding"]
    agree(model, base, row)


@every_family
def test_mam_is_a_prefix_and_a_parallel_bottleneck(family: str) -> None:
    base = backbone(family)
    model = composed("mam(length=3, hidden=5, reduction=3, scale=1.5)", base)
    (part,) = parts_of(model)
    row = prefixed(part)

    def change(layer: int) -> Callable[[Tensor, Tensor], Tensor]:
        w = weights_of(part, Site("ffn.out", layer))

        def added(h: Tensor, x: Tensor) -> Tensor:
            inner = (x @ w["down.weight"].T + w["down.bias"]).clamp(min=0)
            return h + 1.5 * (inner @ w["up.weight"].T + w["up.bias"])

        return added

    row.change = {layer: change(layer) for layer in range(LAYERS)}
    agree(model, base, row)


def gate(x: Tensor, w: Weights) -> Tensor:
    return torch.sigmoid(x @ w["gate.weight"].T + w["gate.bias"]).mean(dim=0)


@every_family
def test_unipelt_is_three_gated_at_once(family: str) -> None:
    base = backbone(family)
    model = composed("unipelt(length=3, hidden=5, reduction=3, rank=2)", base)
    (part,), layout = parts_of(model), model.program.facts.layout
    row = prefixed(part)

    def change(layer: int) -> Callable[[Tensor, Tensor], Tensor]:
        w = weights_of(part, Site("ffn.out", layer))
        norm = base.get_submodule(layout.path(Site("ffn.norm", layer)))

        def added(h: Tensor, x: Tensor) -> Tensor:
            z = norm(h + x).detach()
            inner = (z @ w["down.weight"].T + w["down.bias"]).clamp(min=0)
            return h + gate(z, w) * (inner @ w["up.weight"].T + w["up.bias"])

        return added

    def added(layer: int, name: str) -> Callable[[Tensor], Tensor]:
        w = weights_of(part, Site(f"attn.{name[0]}", layer))
        return lambda x: gate(x, w) * (x @ w["A"].T @ w["B"].T)

    row.change = {layer: change(layer) for layer in range(LAYERS)}
    row.maps = {(n, name): added(n, name) for n in range(LAYERS) for name in ("query", "value")}
    agree(model, base, row, pad=False)


EVERY = (
    "prefix(length=2, hidden=5)",
    "deep_prompt(length=4)",
    "stack(prefix(length=2, flat=true, gate=true), prefix(length=3, flat=true), houlsby())",
    "prompt(length=3, positions=kept)",
    "prompt(length=2)",
    "stack(prompt_tuning(length=1), prompt_tuning(after_first=true), bottleneck(reduction=3))",
    "ptuning(length=5, hidden=4)",
    "mam(length=3, hidden=5, reduction=3)",
    "unipelt(length=3, hidden=5, reduction=3, rank=2)",
    "lora(rank=2)",
    "language(reduction=3)",
    "stack(language(reduction=3), prompt_tuning(length=2))",
)
BRANCHES = (*EVERY, "split(bottleneck(reduction=3), bottleneck(reduction=2), at=2)")
NAMES = tuple("abcdefghijklm")


def routed(family: str = "bert", *, optimise: bool = True, word: str = "route") -> ComposedModel:
    members = ", ".join(f"{name}={text}" for name, text in zip(NAMES, BRANCHES, strict=True))
    return composed(f"{word}({members})", backbone(family), optimise=optimise)


def alone(model: ComposedModel, name: str | None, family: str = "bert") -> Any:
    """One branch of a model by itself, its parts shared."""
    if name is None:
        return backbone(family)
    text = BRANCHES[NAMES.index(name)]
    one = compose(text, backbone(family), head=None)
    found = list(model.composition.graph.branches.values())[NAMES.index(name)]
    names = list(dict.fromkeys(names_of(found)))
    for (_, part), theirs in zip(one.parts.items(), names, strict=True):
        for site in part.sites:
            for tensor, value in part[site].items():
                value.data = model.parts[theirs][site][tensor].detach()
    return one


def names_of(block: Any) -> list[str]:
    return [block.name] if hasattr(block, "method") else [
        name for inner in block.inner() for name in names_of(inner)
    ]  # fmt: skip


@sampled(
    8,
    rows=st.lists(st.sampled_from([*NAMES, None]), min_size=1, max_size=9),
    family=st.sampled_from(ENCODERS),
    optimise=st.booleans(),
)
def test_a_row_is_the_row_alone(rows: list[str | None], family: str, optimise: bool) -> None:
    model = routed(family, optimise=optimise)
    given = batch(rows=len(rows))
    with torch.no_grad():
        together = model(**given, rows=rows).last_hidden_state
    for name in set(rows):
        mine = [number for number, row in enumerate(rows) if row == name]
        own = hidden(alone(model, name, family), **{k: v[mine] for k, v in given.items()})
        assert distance(together[mine], own) <= 1e-11


@pytest.mark.parametrize("optimise", [True, False])
def test_a_branch_of_parallel_is_the_branch_alone(optimise: bool) -> None:
    model = routed(optimise=optimise, word="parallel")
    with torch.no_grad():
        outputs = model(**batch())
    for name in NAMES:
        own = hidden(alone(model, name))
        assert distance(outputs[name].last_hidden_state, own) <= 1e-11


def test_hundreds_of_prefixes_in_one_batch() -> None:
    count = 200
    members = ", ".join(f"u{n}=prefix(length={1 + n % 3}, flat=true)" for n in range(count))
    model = composed(f"route({members})")
    given = batch(rows=count)
    rows = [f"u{n}" for n in range(count)]
    with torch.no_grad():
        together = model(**given, rows=rows).last_hidden_state
        for number in (0, 1, 2, 77, 199):
            one = {key: value[number : number + 1] for key, value in given.items()}
            own = model(**one, rows=[rows[number]]).last_hidden_state
            assert distance(together[number : number + 1], own) <= 1e-12


def test_every_row_trains_its_own() -> None:
    text = "route(a=prefix(length=2, flat=true), b=prompt(length=3), c=prefix(length=2, hidden=4))"
    model = composed(text)
    model(**batch(), rows=["a", "b", "a"]).last_hidden_state.square().mean().backward()
    reached = {
        name for name, part in model.parts.items() for p in part.parameters() if p.grad is not None
    }
    assert reached == {"a", "b"}


@daily(
    ("family", "text"),
    [
        *itertools.product(
            ENCODERS, [*EVERY, "stack(prompt_tuning(length=2), prefix(length=3, flat=true))"]
        )
    ],
)
def test_every_way_to_compute_attention_gives_the_same(family: str, text: str) -> None:
    states = backbone(family).state_dict()
    found = []
    for name in ("sdpa", "eager"):
        model = AutoModel.from_config(config(family), attn_implementation=name).double().eval()
        model.load_state_dict(states)
        found += [hidden(composed(text, model)), hidden(composed(text, model), attention_mask=None)]
    assert distance(found[0], found[2]) <= 1e-12
    assert distance(found[1], found[3]) <= 1e-12


def test_the_masks_of_flexible_attention_are_not_needed() -> None:
    model = AutoModel.from_config(config(), attn_implementation="flex_attention").double().eval()
    model.load_state_dict(backbone().state_dict())
    found, expected = (hidden(composed("prefix(length=2)", one)) for one in (model, backbone()))
    assert distance(found, expected) <= 1e-12
    assert model.config._attn_implementation == "flex_attention"


def test_transformers_is_left_with_one_function_more() -> None:
    before = set(ALL_ATTENTION_FUNCTIONS.valid_keys()) - {"adaptcompose"}
    for _ in range(2):
        composed("prefix(length=2)")
    assert set(ALL_ATTENTION_FUNCTIONS.valid_keys()) - before == {"adaptcompose"}
    base = make_backbone()
    composed("prefix(length=2)", base)
    assert {
        module.config._attn_implementation for module in base.modules() if hasattr(module, "config")
    } == {base.config._attn_implementation}


@pytest.mark.parametrize(
    "text", [one for one in EVERY if "gate" not in one and "unipelt" not in one]
)
def test_padding_does_nothing(text: str) -> None:
    model = composed(text)
    given = batch(pad=False)
    plain = hidden(model, **given)
    width = given["input_ids"].shape[1]
    for left in (True, False):
        gap = torch.zeros(len(plain), 4, dtype=torch.long)
        longer = {
            name: torch.cat([gap, value] if left else [value, gap], dim=1)
            for name, value in given.items()
        }
        if left:  # BERT counts positions by place; what it counts is the caller's business
            places = torch.arange(width) + torch.zeros(len(plain), 1, dtype=torch.long)
            longer["position_ids"] = torch.cat([gap, places], dim=1)
        states = hidden(model, **longer)
        assert distance(states[:, 4:] if left else states[:, :width], plain) <= 1e-12


def test_embeddings_may_be_given_instead_of_ids() -> None:
    for family in ENCODERS:
        base = backbone(family)
        for text in (EVERY[1], EVERY[3], EVERY[4], EVERY[5]):
            model = composed(text, base)
            given = batch(pad=False)
            embeds = base.get_input_embeddings()(given["input_ids"]).detach()
            states = hidden(model, input_ids=None, inputs_embeds=embeds, attention_mask=None)
            assert distance(states, hidden(model, **given)) <= 1e-12


HEAD = {"task": "token-classification", "labels": ["x", "y", "z"]}


def test_heads_see_virtual_tokens_and_tags_are_those_of_the_text() -> None:
    labels = torch.ones(3, 6, dtype=torch.long)
    tagger = composed("prompt_tuning(length=3)", head=HEAD)
    out = tagger(**batch(), labels=labels)
    assert out.logits.shape == (3, 6, 3)
    assert out.loss.isfinite()
    classifier = composed(
        "prompt_tuning(length=3)", head={"task": "text-classification", "labels": ["x", "y"]}
    )
    states = []
    handle = classifier.head.register_forward_hook(lambda module, args, out: states.append(args))
    classifier(**batch())
    handle.remove()
    own, _, first, *_ = states[0]
    (part,) = parts_of(classifier)
    row = Row(behind=weights_of(part, Site("tokens"))["embedding"])
    whole = encode(backbone(), batch()["input_ids"][0], row)
    assert distance(first[0].detach(), whole[0]) <= 1e-12
    assert distance(own[0].detach(), whole[3:]) <= 1e-12


@pytest.mark.parametrize("kind", ["AutoModelForMaskedLM", "AutoModelForTokenClassification"])
def test_own_heads_give_logits_for_the_text(kind: str) -> None:
    base = make_backbone(kind=kind).double()
    model = composed("prompt(length=3, positions=shifted)", base, head="backbone")
    labels = torch.ones(3, 6, dtype=torch.long)
    out = model(**batch(), labels=labels)
    assert out.logits.shape[:2] == (3, 6)
    flat = out.logits.reshape(-1, out.logits.shape[-1])
    assert distance(out.loss, torch.nn.functional.cross_entropy(flat, labels.reshape(-1))) <= 1e-12
    plain = composed("prompt(length=3, positions=shifted)")
    probe = getattr(base, "cls", None) or base.classifier
    assert distance(out.logits, probe(hidden(plain))) <= 1e-12


def test_an_own_classifier_reads_the_first_virtual_token_of_each_row() -> None:
    base = make_backbone("roberta", "AutoModelForSequenceClassification").double()
    text = "route(a=prompt(length=3), b=prompt(length=1), c=bottleneck(reduction=3))"
    model = composed(text, base, head="backbone")
    rows = ["a", "b", "c"]
    with torch.no_grad():
        together = model(**batch(), rows=rows).logits
        for number, name in enumerate(rows):
            one = {key: value[number : number + 1] for key, value in batch().items()}
            own = model(**one, rows=[name]).logits
            assert distance(together[number : number + 1], own) <= 1e-12


def test_poolers_read_the_first_token_of_each_row() -> None:
    members = "a=prompt_tuning(length=3), b=prompt_tuning(length=1), c=prompt(length=2)"
    model = composed(f"route({members})")
    seen: list[Tensor] = []
    stock_of(model.body).pooler.register_forward_hook(lambda module, args, out: seen.append(out))
    with torch.no_grad():
        model(**batch(), rows=["a", "b", "c"])
        for number, name in enumerate("abc"):
            one = {key: value[number : number + 1] for key, value in batch().items()}
            model(**one, rows=[name])
            assert distance(seen[0][number], seen[-1][0]) <= 1e-12


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("average(prefix(), prefix())", "AC306"),
        ("average(prompt():0.5, bottleneck():0.5)", "AC306"),
        ("split(mam(), bottleneck())", "AC306"),
        ("fuse(prefix(), bottleneck())", "AC306"),
        ("prefix() | scale(by=0.5)", "AC319"),
        ("prompt() | scale(by=2)", "AC319"),
        ("stack(prefix(), deep_prompt(length=3))", "AC316"),
        ("stack(bottleneck(), prompt_tuning(), stack(ptuning()))", "AC316"),
        ("merge(prefix(length=2), prefix(length=3))", "AC313"),
        ("merge(prefix(), prompt())", "AC307"),
    ],
)
def test_what_adds_nothing_to_a_state_is_not_summed(text: str, code: str) -> None:
    with pytest.raises(Failed) as failed:
        compose(text, backbone(), head=None)
    assert {found.code for found in failed.value.diagnostics} == {code}


@pytest.mark.parametrize("branch", ["prompt(length=2)", "stack(ptuning(length=2), a)"])
def test_split_leaves_out_what_all_tokens_share(branch: str) -> None:
    lets = "let a = bottleneck(reduction=2); let b = bottleneck(reduction=3);"
    whole = composed(f"{lets} split({branch}, b, at=2)")
    alone = composed(f"{lets} split({'a' if 'a)' in branch else 'none'}, b, at=2)")
    assert distance(hidden(whole), hidden(alone)) <= 1e-12


def test_virtual_tokens_that_take_positions_need_them() -> None:
    model = composed("prompt(length=20, positions=shifted)")
    with pytest.raises(Failed, match="AC517"):
        model(**batch())
    assert hidden(composed("prompt_tuning(length=20)")).isfinite().all()


def test_nothing_or_all_of_them_may_be_kept() -> None:
    assert torch.equal(hidden(composed("prefix() | scale(by=0)")), hidden(backbone()))
    same = composed("prompt(length=3) | scale(by=1)")
    assert torch.equal(hidden(same), hidden(composed("prompt(length=3)")))


@pytest.mark.parametrize("text", ["prefix(length=2, hidden=4)", "prompt(length=2)",
                                  "deep_prompt(length=3)", "ptuning(length=2)"])  # fmt: skip
def test_merged_prefixes_are_those_of_merged_keys(text: str) -> None:
    model = composed(f"let a = {text}; merge(a:1)")
    assert distance(hidden(model), hidden(composed(f"let a = {text}; a"))) <= 1e-12


def facts_of(family: str, **changes: Any) -> Facts:
    large = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
    sizes = {"base": {}, "large": large | {"intermediate_size": 4096}}
    name, _, size = family.partition("-")
    cls = {"bert": transformers.BertConfig, "roberta": transformers.RobertaConfig}[name]
    return read_facts(cls(**(sizes[size or "base"] | changes)).to_dict())


def planned(text: str, facts: Facts) -> Any:
    graph = check_source(
        text, CheckContext(Catalogue.open(resource_folder("hub_cards")), facts)
    ).raise_errors()
    return make_plan(graph, facts)


@pytest.mark.parametrize(
    ("text", "family", "count"),
    [
        ("deep_prompt(length=8)", "roberta-large", 393_216),
        ("prefix(length=20, flat=true)", "bert-large", 983_040),
        ("prefix(length=20, flat=true)", "bert-base", 368_640),
        ("prompt(length=100)", "bert-base", 76_800),
        ("ptuning(length=9)", "bert-base", 14 * 768**2 + 18 * 768 + 9 * 768),
        ("mam(length=16, flat=true, reduction=48)", "roberta-base", 589_824 + 12 * (768 + 16)),
    ],
)
def test_counts_of_the_papers(text: str, family: str, count: int) -> None:
    assert planned(text, facts_of(family)).trained_parameters == count


def test_the_paper_counts_mix_and_match_adapters_without_biases() -> None:
    facts = facts_of("roberta-base")
    plan = planned("mam(length=16, flat=true, reduction=48)", facts)
    (leaf,) = [item for item in plan.rows if item.kind == "adapter"]
    assert leaf.parameters - leaf.bias_parameters == 589_824
    assert f"with {leaf.bias_parameters:,} biases" in str(plan)
