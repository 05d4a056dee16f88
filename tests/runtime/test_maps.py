"""Changes of linear maps and norms: their formulas, their order, and rows that mix them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from adaptcompose.backbones.layout import Site, read_facts
from adaptcompose.compiler.passes.group_rows import GroupedRows
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.ir.linear import LowRank, Rescale
from adaptcompose.methods import registered_methods
from adaptcompose.methods.lora import Lora
from adaptcompose.methods.vera import Vera
from adaptcompose.runtime.attach.map_sites import MapSite
from adaptcompose.runtime.call_context import CallContext, TokenPositions
from adaptcompose.runtime.compose import compose
from adaptcompose.runtime.model import ComposedModel
from adaptcompose.runtime.ops.maps import Affine, StockMap
from adaptcompose.runtime.ops.primitives import build_module
from adaptcompose.runtime.parts import Parts, make_part
from tests.sampling import sampled
from tests.tiny import backbone, batch, composed, config, distance, fill, hidden, make_backbone

Weights = dict[str, Tensor]


def weights_at(model: ComposedModel, name: str, site: Site) -> Weights:
    return {key: tensor.detach() for key, tensor in model.parts[name][site].items()}


def changed(text: str, changes: Any) -> Tensor:
    """The states of a stock backbone whose weights were changed by hand."""
    model = composed(text)
    base = make_backbone().double()
    with torch.no_grad():
        changes(base, model)
    return hidden(base)


def query(base: Any, layer: int) -> nn.Linear:
    found: nn.Linear = base.encoder.layer[layer].attention.self.query
    return found


def value(base: Any, layer: int) -> nn.Linear:
    found: nn.Linear = base.encoder.layer[layer].attention.self.value
    return found


MAPS = {"attn.q": query, "attn.v": value}


def lora(base: Any, model: ComposedModel) -> None:
    for name, part in model.parts.items():
        for site in part.sites:
            own = weights_at(model, name, site)
            node = part.method.lower(name, site, model.program.facts)
            assert isinstance(node, LowRank)
            MAPS[site.name](base, site.layer or 0).weight += node.scale * own["B"] @ own["A"]


@pytest.mark.parametrize(
    "text",
    [
        "lora(rank=2, alpha=3)",
        'lora(rank=2, alpha=3, rslora=true, ranks=["attn.v=3"], alphas=["1.attn.q=7"])',
        "let a = lora(rank=2); let b = lora(rank=3, alpha=2); stack(a, b)",
    ],
)
@pytest.mark.parametrize("optimise", [True, False])
def test_loras_add_to_the_weight(text: str, optimise: bool) -> None:
    """A stack adds, too, where the peer keeps the last delta only."""
    assert distance(hidden(composed(text, optimise=optimise)), changed(text, lora)) <= 1e-12


@pytest.mark.parametrize("optimise", [True, False])
def test_dora_normalises_what_it_finds(optimise: bool) -> None:
    text = "let a = lora(rank=2); let d = dora(rank=2, alpha=3); stack(a, d)"

    def both(base: Any, model: ComposedModel) -> None:
        for site in model.parts["a"].sites:
            a, d = (weights_at(model, name, site) for name in ("a", "d"))
            linear = MAPS[site.name](base, site.layer or 0)
            whole = linear.weight + 4.0 * a["B"] @ a["A"] + 1.5 * d["B"] @ d["A"]
            linear.weight.copy_(d["m"][:, None] * whole / whole.norm(dim=1, keepdim=True))

    assert distance(hidden(composed(text, optimise=optimise)), changed(text, both)) <= 1e-12


@pytest.mark.parametrize("optimise", [True, False])
def test_factors_scale_all_that_is_there(optimise: bool) -> None:
    """Input factors scale what the LoRA below reads, but not what one above does."""
    text = (
        "let a = lora(rank=2, targets=[ffn.mid]); let l = ia3(targets=[attn.q, ffn.mid]);"
        " let b = lora(rank=3, targets=[ffn.mid]); stack(a, l, b)"
    )

    def all_three(base: Any, model: ComposedModel) -> None:
        for layer in range(3):
            site = Site("ffn.mid", layer)
            a, own, b = (weights_at(model, name, site) for name in ("a", "l", "b"))
            dense = base.encoder.layer[layer].output.dense
            below = (dense.weight + 4.0 * a["B"] @ a["A"]) * own["l"]
            dense.weight.copy_(below + 8 / 3 * b["B"] @ b["A"])
            factor = weights_at(model, "l", Site("attn.q", layer))["l"]
            linear = query(base, layer)
            linear.weight.mul_(factor[:, None])
            linear.bias.mul_(factor)

    assert distance(hidden(composed(text, optimise=optimise)), changed(text, all_three)) <= 1e-12


def test_biases_and_norms_are_those_of_a_changed_backbone() -> None:
    text = "let b = bitfit(); let n = layernorm(); stack(b, n)"

    def both(base: Any, model: ComposedModel) -> None:
        layout = model.program.facts.layout
        for site in model.parts["b"].sites:
            module = base.get_submodule(layout.path(site))
            module.bias += weights_at(model, "b", site)["bias"]
        for site in model.parts["n"].sites:
            module, stock = (m.get_submodule(layout.path(site)) for m in (base, backbone()))
            own = weights_at(model, "n", site)
            module.weight.copy_(own["weight"])
            module.bias.add_(own["bias"] - stock.bias)

    model, base = composed(text), make_backbone().double()
    with torch.no_grad():
        both(base, model)
        out, expected = model(**batch()), base(**batch())
    assert distance(out.last_hidden_state, expected.last_hidden_state) <= 1e-12
    with torch.no_grad():
        pooled = model.body(**batch()).pooler_output
    assert distance(pooled, expected.pooler_output) <= 1e-12


def test_a_map_as_a_whole_is_that_of_a_changed_backbone() -> None:
    """What stands below it stays: a LoRA on the same map, another embedding, another norm."""
    wholes = "[attn.q, ffn.in, embed.tokens, ffn.norm]"
    text = f"let a = lora(rank=2); let b = lora(targets=[attn.v], whole={wholes}); stack(a, b)"

    def both(base: Any, model: ComposedModel) -> None:
        facts = model.program.facts
        for name, scale in (("a", 4.0), ("b", 1.0)):
            for site in model.parts[name].sites:
                own = weights_at(model, name, site)
                module = base.get_submodule(facts.layout.path(site))
                if "A" in own:
                    module.weight += scale * own["B"] @ own["A"]
                else:
                    stock = backbone().get_submodule(facts.layout.path(site))
                    weight = own["weight"].T if facts.is_transposed(site) else own["weight"]
                    module.weight += weight - stock.weight
                    if "bias" in own:
                        module.bias += own["bias"] - stock.bias

    for optimise in (True, False):
        assert distance(hidden(composed(text, optimise=optimise)), changed(text, both)) <= 1e-12
    alone = "lora(targets=[attn.v], whole=[attn.v])"
    with pytest.raises(Failed, match="AC209"):
        composed(alone)


def test_what_starts_from_the_backbone_starts_there() -> None:
    model = compose("let d = dora(rank=2); let n = layernorm(); stack(d, n)", backbone(), head=None)
    dora = weights_at(model, "d", Site("attn.q", 1))["m"]
    assert torch.allclose(dora.double(), query(backbone(), 1).weight.norm(dim=1), atol=1e-6)
    norm = weights_at(model, "n", Site("attn.norm", 2))
    stock: Any = backbone()
    expected = stock.encoder.layer[2].attention.output.LayerNorm
    assert torch.allclose(norm["weight"].double(), expected.weight, atol=1e-6)


ROWS = [
    "lora(rank=2)",
    "lora(rank=3, bias=own)",
    "lora(rank=2, gate=true, bias=backbone, targets=[attn.o, ffn.mid])",
    "lora(rank=2, bias=all)",
    "lora(rank=2, targets=[embed.tokens, attn.v])",
    "stack(lora(rank=2, targets=[embed.tokens]), prompt(length=2))",
    "dora(rank=2, targets=[embed.tokens])",
    "lora(rank=2, whole=[embed.tokens, ffn.norm, attn.o])",
    "stack(lora(rank=2), lora(targets=[attn.k], whole=[attn.q]), dora(rank=2))",
    "average(lora(rank=2), lora(rank=2, whole=[ffn.mid]))",
    "dora(rank=2)",
    "dora(rank=2, gate=true, norm=adapterhub)",
    "vera(rank=4)",
    "vera(rank=4, stored=true)",
    "vera(rank=3, stored=true, matrices=true, dora=true)",
    "ia3()",
    "ia3(gate=true)",
    "bitfit()",
    "layernorm()",
    "bottleneck(reduction=3)",
    "houlsby(reduction=3)",
    "prefix(length=2, flat=true)",
    "stack(ia3(), lora(rank=2))",
    "average(lora(rank=2), lora(rank=2))",
    "stack(layernorm(), bottleneck(reduction=3, attention=true))",
]


@sampled(12, st.lists(st.sampled_from(ROWS), min_size=2, max_size=6), st.booleans(), st.data())
def test_a_row_is_what_it_is_alone(texts: list[str], optimise: bool, data: st.DataObject) -> None:
    """Two users of every method, and rows of the backbone, in any order."""
    members = [f"u{i}={text}" for i, text in enumerate(texts * 2)]
    names = [member.partition("=")[0] for member in members]
    rows = data.draw(st.permutations([*names, None, names[0]]))
    inputs = batch(rows=len(rows))
    routed = composed(f"route({', '.join(members)})", optimise=optimise)
    with torch.no_grad():
        out = routed(**inputs, rows=rows).last_hidden_state
        for index, row in enumerate(rows):
            alone = {key: tensor[index : index + 1] for key, tensor in inputs.items()}
            expected = routed(**alone, rows=[row]).last_hidden_state
            assert distance(out[index : index + 1], expected) <= 1e-12


@pytest.mark.parametrize("text", ROWS)
def test_the_only_row_is_the_composition_itself(text: str) -> None:
    """Weights by the names of parts: one branch, then the same parts without the route."""
    routed = composed(f"let a = none; route(x={text}, y=none)")
    alone = composed(text)
    for (_, part), (_, other) in zip(routed.parts.items(), alone.parts.items(), strict=True):
        for site in part.sites:
            for key, tensor in part[site].items():
                other[site][key].data.copy_(tensor.data)
    inputs = batch()
    with torch.no_grad():
        out = routed(**inputs, rows=["x", "y", "x"]).last_hidden_state
        expected = alone(**inputs).last_hidden_state
        bare = backbone()(**inputs).last_hidden_state
    assert distance(out[[0, 2]], expected[[0, 2]]) <= 1e-12
    assert distance(out[1:2], bare[1:2]) <= 1e-12


def test_users_of_one_shape_are_grouped() -> None:
    """However many users: one product per factor and site."""
    text = ", ".join(f"u{i}=lora(rank=2)" for i in range(40))
    model = composed(f"route({text})")
    nodes = [n for n in model.program.sites.values() if isinstance(n, GroupedRows)]
    assert len(nodes) == 6 and all(node.groups == (tuple(range(40)),) for node in nodes)


def test_a_gate_cannot_stand_below_dora() -> None:
    with pytest.raises(Failed, match="AC317"):
        composed("stack(lora(rank=2, gate=true), dora(rank=2))")
    with pytest.raises(Failed, match="AC317"):
        composed("stack(split(lora(rank=2), ia3(targets=[attn.q]), at=2), dora(rank=2))")


def pieces(module: nn.Module, count: int) -> tuple[MapSite, Any]:
    """LoRAs at the first and the last of `count` maps that one module has."""
    facts = read_facts(config().to_dict())
    frame, site = CallContext(), MapSite(module, CallContext())
    frame.start_call()
    parts = {}
    for index in (0, count - 1):
        name, place = f"p{index}", Site("attn.q", index)
        parts[name] = make_part(name, Lora(rank=2), facts)
        for key, tensor in parts[name][place].items():
            fill(tensor, key, name)
        node = LowRank(name, place, width=12, width_in=12, rank=2, scale=4.0)
        site.add((index, count), build_module(node, Parts(parts)))
    return site, parts


@pytest.mark.parametrize("transposed", [False, True])
def test_a_piece_of_a_merged_map_is_changed_alone(transposed: bool) -> None:
    module = Conv1D(36, 12) if transposed else nn.Linear(12, 36)
    for key, parameter in module.named_parameters():
        fill(parameter, key, "merged")
    site, parts = pieces(module, 3)
    x = torch.randn(2, 4, 12)
    weight: Tensor = module.weight.T if transposed else module.weight
    whole = weight.detach().clone()
    for index in (0, 2):
        own = dict(parts[f"p{index}"][Site("attn.q", index)].items())
        whole[12 * index : 12 * index + 12] += 4.0 * (own["B"] @ own["A"]).detach()
    expected = functional.linear(x, whole, module.bias)
    with torch.no_grad():
        assert torch.allclose(site(x), expected, atol=1e-5)


def test_a_piece_knows_its_weight() -> None:
    module = Conv1D(6, 2)
    stock = StockMap(module, (1, 3))
    weight, bias = stock.affine()
    assert bias is not None and torch.equal(bias, module.bias[2:4])
    assert torch.equal(weight, module.weight.T[2:4])
    x = torch.randn(1, 3, 2)
    assert torch.allclose(stock(x, TokenPositions()), module(x)[..., 2:4])
    assert isinstance(StockMap(nn.Linear(2, 2)).affine(), Affine)


@pytest.mark.parametrize(
    ("text", "model_type", "expected"),
    [
        ("lora", "roberta", 294_912),
        ("dora", "roberta", 313_344),
        ("ia3", "bert", 55_296),
        ("bitfit", "bert", 102_912),
        ("layernorm", "bert", 38_400),
    ],
)
def test_published_counts(text: str, model_type: str, expected: int) -> None:
    assert registered_methods()[text].parameter_count(large(model_type)) == expected


def test_vera_counts_what_is_stored() -> None:
    assert Vera(rank=1024).parameter_count(large("roberta")) == 43_008
    assert Vera(rank=1024, stored=True).parameter_count(large("roberta")) == 43_008 + 2 * 1024 * 768


def large(model_type: str) -> Any:
    sizes = {"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072}
    sizes |= {"vocab_size": 30_522, "max_position_embeddings": 512, "type_vocab_size": 2}
    return read_facts(sizes | {"model_type": model_type})


def test_ia3_is_placed_as_the_paper_has_it() -> None:
    facts = read_facts(config().to_dict())
    node = registered_methods()["ia3"].lower("a", Site("ffn.mid", 0), facts)
    assert isinstance(node, Rescale) and node.side == "input" and node.width_in == 16
