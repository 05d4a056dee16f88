"""Whatever two methods share, both are in the module tree, and nothing is left to chance in eval.

Several sites may be at one module of the backbone: keys and values of an attention and what follows
it, what enters the lowest layer and what leaves it. Every method is paired with every other one in
`make soak`, and some pairs of the day in the usual run; all dropouts are above 0.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass, replace
from random import Random
from typing import Any, ClassVar, Self

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.catalogue.cards import Catalogue
from adaptcompose.composition.checker import CheckContext, check_source
from adaptcompose.composition.graph import Adapter, Slot
from adaptcompose.composition.operators.stack import Stack
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.ir.primitives import BottleneckMLP, Placement, Primitive
from adaptcompose.methods.method import Method
from adaptcompose.resolution.resolve import Sources
from adaptcompose.resources import resource_folder
from adaptcompose.runtime.attach.sites import (
    DeferredSum,
    Wrapper,
    module_at,
    replace_module,
    stock_of,
)
from adaptcompose.runtime.compose import build, facts_of_model
from adaptcompose.runtime.model import ComposedModel
from adaptcompose.runtime.ops.primitives import PrimitiveModule
from tests import reference
from tests.compositions import Leaf
from tests.dropout import with_dropout
from tests.runtime.test_families import refused
from tests.runtime.test_methods import CALLS
from tests.sampling import AGAIN, SEED, SOAK, TRIED
from tests.tiny import (
    OTHERS,
    SPECIAL,
    backbone,
    composed,
    distance,
    hidden,
    make_backbone,
    randomise,
)

pytestmark = pytest.mark.filterwarnings("ignore")

FAMILIES = (*SPECIAL, *OTHERS)
SHARING = [
    ("prefix(length=2, flat=true)", "houlsby(reduction=3)"),
    ("deep_prompt(length=2)", "language(reduction=3)"),
    ("unipelt(length=2, hidden=5, reduction=3, rank=2)", "houlsby(reduction=2)"),
]
"""Pairs that have a module in common on most families; these are tried every day."""
OF_THE_DAY = 8


def pairs_of(family: str) -> list[tuple[str, str]]:
    """All pairs in a soak run, else some of the day."""
    texts = [text for text in CALLS if not refused(family, text)]
    pairs, rng = [*itertools.combinations(texts, 2)], Random(f"{SEED}/{family}")
    chosen = pairs if SOAK else [*SHARING, *rng.sample(pairs, OF_THE_DAY)]
    return [pair if rng.random() < 0.5 else pair[::-1] for pair in chosen]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[PrimitiveModule]:
    """The primitives that are put to work from now on."""
    found: list[PrimitiveModule] = []

    def noted(self: PrimitiveModule) -> None:
        nn.Module.__init__(self)
        found.append(self)

    monkeypatch.setattr(PrimitiveModule, "__init__", noted)
    return found


REFUSALS = {
    "AC316": "their virtual keys or tokens treat positions differently",
    "AC317": "a DoRA cannot follow a gate",
    "AC320": "nothing can follow what replaces the backbone's norm",
}
"""Why two methods may not be stacked, in one order at least."""


@functools.cache
def roomy(family: str) -> PreTrainedModel:
    """A backbone with positions for the virtual tokens of two methods."""
    names = {"gpt2": "n_positions", "t5": ""}  # T5 counts distances alone
    name = names.get(family, "max_position_embeddings")
    return make_backbone(family, **({name: 120} if name else {})).double()


def stacked(family: str, pair: tuple[str, str], *, optimise: bool) -> ComposedModel | None:
    """One after another, in the other order where this one is refused; None where both are."""
    for first, second in (pair, pair[::-1]):
        text = f"stack({with_dropout(first)}, {with_dropout(second)})"
        try:
            return composed(text, roomy(family), optimise=optimise)
        except Failed as failed:
            assert {one.code for one in failed.diagnostics} <= REFUSALS.keys(), text
    return None


@pytest.mark.soak
@pytest.mark.parametrize("family", FAMILIES)
def test_every_pair_of_methods_is_attached(family: str, made: list[PrimitiveModule]) -> None:
    for pair in pairs_of(family):
        states: list[Tensor] = []
        for optimise in (True, False):
            made.clear()
            model = stacked(family, pair, optimise=optimise)
            TRIED["examples" if model else "refused"] += 1
            if model is None:
                continue
            told = f"{family}: {pair}, optimise={optimise}; again with {AGAIN}"
            assert made, told
            there = set(model.modules())
            lost = [type(one).__name__ for one in made if one not in there]
            assert not lost, f"{lost} not in the module tree: {told}"
            states.append(hidden(model))
            assert not any(module.training for module in model.modules()), told
            assert torch.equal(hidden(model), states[-1]), f"eval is not deterministic: {told}"
        assert len(states) < 2 or distance(*states) <= 1e-11, f"{family}: {pair}; {AGAIN}"


Tensors = dict[tuple[str, str], dict[str, Tensor]]


def tensors_of(model: ComposedModel) -> Tensors:
    """The weights of all parts, by part and site."""
    return {
        (name, str(site)): dict(part[site].items())
        for name, part in model.parts.items()
        for site in part.sites
    }


BOTTLENECK = Leaf("a", (
    ("reduction", 3), ("activation", "tanh"), ("attention", True), ("output", True), ("scale", 1),
))  # fmt: skip


@pytest.mark.parametrize("family", ["gpt2", "llama", "distilbert", "bart", "mbart"])
def test_a_bottleneck_after_an_attention_with_a_prefix(family: str) -> None:
    """At one module: as with the prefix alone, and a bottleneck after it in plain torch."""
    lets = f"let a = {BOTTLENECK.call()}; let p = prefix(length=2, flat=true);"
    model = composed(f"{lets} stack(p, a)", backbone(family))
    alone = composed(f"{lets} stack(p)", backbone(family))
    for site in alone.program.facts.sublayer_sites():
        if site.name != "cross.out":
            follow(alone, site, tensors_of(model))
    assert distance(hidden(model), hidden(alone)) <= 1e-11


def follow(model: ComposedModel, site: Site, weights: Tensors) -> None:
    """Put the bottleneck's output in the place of h, for the layer to add x and apply its norm."""
    layout, seen = model.program.facts.layout, []

    def at(path: str) -> nn.Module:
        return module_at(model.body, path)

    behind, name = layout.norm(site), site.name.partition(".")[0]
    norm = at(behind) if behind else nn.Identity()
    # x is what enters the norm in front or, where there is none, the layer or its feed-forward
    sources = {"attn": "layer.out", "ffn": "ffn.in"} if behind else {}
    source = replace(site, name=sources.get(name, f"{name}.norm"))
    at(layout.path(source)).register_forward_pre_hook(lambda _, args: seen.append(args[0]))

    def after(_: nn.Module, args: Any, out: Any) -> Any:
        h, *others = out if isinstance(out, tuple) else (out,)
        place = reference.Place(site.name, site.layer or 0, seen.pop(), norm, weights, site.part)
        found = reference.evaluate(BOTTLENECK, h, place)
        assert found is not None
        return (found.out, *others) if isinstance(out, tuple) else found.out

    at(layout.path(site)).register_forward_hook(after)


@dataclass(frozen=True)
class AfterLayer(Method):
    """u = U tanh(D h + b) + c after each layer, where none of the package's own methods is."""

    word: ClassVar[str] = "after_layer"

    rank: int = 3

    def sites(self, facts: Facts) -> tuple[Site, ...]:
        return facts.sites("layer.out")

    def restrict_to(self, sites: Collection[Site], facts: Facts) -> Self:
        return self

    def tensors(self, site: Site, facts: Facts) -> dict[str, tuple[int, ...]]:
        width, rank = facts.width_at(site), self.rank
        down = {"down.weight": (rank, width), "down.bias": (rank,)}
        return down | {"up.weight": (width, rank), "up.bias": (width,)}

    def init_tensor(self, name: str, tensor: Tensor) -> None:
        nn.init.zeros_(tensor)

    def lower(self, part: str, site: Site, facts: Facts) -> Primitive | None:
        if site.name != "layer.out":
            return None
        width, where = facts.width_at(site), Placement("output", "output")
        return BottleneckMLP(
            part, site, width=width, rank=self.rank, activation="tanh", where=where
        )


INVERTIBLE = Leaf("a", (
    ("reduction", 3), ("activation", "tanh"), ("output", False), ("invertible", "nice"),
))  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("optimise", [True, False], ids=["optimised", "literal"])
def test_what_enters_the_lowest_layer_and_what_leaves_it(family: str, optimise: bool) -> None:
    """An invertible part and a method after each layer, at one module where layers are entered."""
    body = backbone(family)
    facts, cards = facts_of_model(body), Catalogue.open(resource_folder("hub_cards"))
    invertible = check_source(
        f"let a = {INVERTIBLE.call()}; a", CheckContext(cards, facts)
    ).raise_errors()
    graph = Stack((Slot(None, invertible), Slot(None, Adapter("b", AfterLayer()))))
    sources = Sources("hf", resource_folder("hub_cards"))
    model = randomise(build(graph, facts, body, sources, head=None, optimise=optimise))
    assert distance(hidden(model), in_plain_torch(model, facts)) <= 1e-11
    assert torch.equal(hidden(model.detach()), hidden(body))


def in_plain_torch(model: ComposedModel, facts: Facts) -> Tensor:
    """The states of the backbone with hooks for both."""
    body, weights = model.composition.backbone, tensors_of(model)

    def entering(state: Tensor) -> Tensor:
        return reference.coupled(INVERTIBLE, state, weights)

    def leaving(site: Site, out: Any) -> Any:
        h, *others = out if isinstance(out, tuple) else (out,)
        w = weights["b", str(site)]
        inner = torch.tanh(h @ w["down.weight"].T + w["down.bias"])
        h = h + inner @ w["up.weight"].T + w["up.bias"]
        return (h, *others) if isinstance(out, tuple) else h

    with ExitStack() as hooks:
        embeddings = Site("embed.out")
        module = body.get_submodule(facts.layout.path(embeddings))
        if facts.layout.sites[embeddings.name].kind == "input":
            hook = module.register_forward_pre_hook(lambda _, args: (entering(args[0]), *args[1:]))
        else:
            hook = module.register_forward_hook(lambda _, args, out: entering(out))
        hooks.callback(hook.remove)
        for site in facts.sites("layer.out"):
            hook = body.get_submodule(facts.layout.path(site)).register_forward_hook(
                lambda _, args, out, site=site: leaving(site, out)
            )
            hooks.callback(hook.remove)
        return hidden(body)


# A wrapper is no stand-in for everything


def test_a_wrapper_reads_what_is_named_and_takes_no_assignments() -> None:
    stock = nn.Linear(2, 3)
    wrapper = Wrapper(stock)
    assert wrapper.weight is stock.weight
    assert stock_of(Wrapper(wrapper)) is stock
    for name in ("in_features", "position_ids", "attention_type"):
        assert not hasattr(wrapper, name)
    wrapper.bias = nn.Identity()
    assert isinstance(stock.bias, nn.Parameter)


def test_paths_are_those_of_the_stock_model() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    inner = model[0][0]
    replace_module(model, "0", Wrapper(model[0]))
    replace_module(model, "0.0", Wrapper(inner))
    replace_module(model, "0.0", Wrapper(module_at(model, "0.0")))
    assert stock_of(module_at(model, "0.0")) is inner
    assert [name for name, _ in model.named_modules() if name.endswith("stock")] == [
        *("0.stock", "0.stock.0.stock", "0.stock.0.stock.stock")
    ]
    with pytest.raises(AttributeError, match=r"Sequential has no module `0\.2`"):
        module_at(model, "0.2")


# What a layer does with the output of a sub-layer


def summand() -> Any:
    return DeferredSum(torch.ones(2), lambda h, x: 10 * h + x, "h.0.attn")


def test_a_sum_and_a_dropout_are_what_a_layer_may_do() -> None:
    x = torch.ones(2)
    dropped = nn.functional.dropout(summand(), 0.5, training=False)
    for total in (x + summand(), summand() + x, x + dropped, torch.add(x, summand())):
        assert torch.equal(total, torch.full((2,), 11.0))


@pytest.mark.parametrize(
    ("use", "name"),
    [
        (lambda h: torch.ones(2) * h, "mul"),
        (lambda h: h * 0.5, "operation"),
        (lambda h: 0.5 * h, "operation"),
        (lambda h: h - torch.ones(2), "rsub"),
        (lambda h: h + 1.0, "operation"),
        (lambda h: h + h, "operation"),
        (lambda h: h.to(torch.float16), "to"),
        (lambda h: h.dtype, "dtype"),
        (lambda h: torch.add(torch.ones(2), h, alpha=2), "add"),
        (lambda h: torch.cat([torch.ones(2), h]), "cat"),
        (lambda h: nn.functional.layer_norm(h, (2,)), "layer_norm"),
        (lambda h: torch.where(torch.ones(2) > 0, h, 0.0), "where"),
    ],
)
def test_what_else_a_layer_does_is_an_error_with_a_code(use: Any, name: str) -> None:
    with pytest.raises(Failed, match=rf"AC520(.|\n)*h\.0\.attn(.|\n)*{name}(.|\n)*transformers"):
        use(summand())
