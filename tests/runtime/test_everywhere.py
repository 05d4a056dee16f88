"""What every method owes on every family: all of them in one batch, a row each."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from torch import Tensor

import adaptcompose as ac
from adaptcompose.backbones.layout import Site
from adaptcompose.runtime.compose import compose
from adaptcompose.runtime.model import ComposedModel
from adaptcompose.runtime.parts import Part
from tests.runtime.test_families import refused
from tests.runtime.test_methods import CALLS, STARTS_ELSEWHERE, trained
from tests.sampling import daily
from tests.tiny import OTHERS, SPECIAL, backbone, batch, composed, distance, make_backbone

each = daily("family", (*SPECIAL, *OTHERS), days=5)

pytestmark = pytest.mark.filterwarnings("ignore")


@functools.cache
def calls_of(family: str) -> dict[str, str]:
    """The methods that there are on a family, under the names of their rows."""
    taken = [text for text in CALLS if not refused(family, text)]
    return {f"m{number}": text for number, text in enumerate(taken)}


def routed(family: str) -> str:
    return f"route({', '.join(f'{name}={text}' for name, text in calls_of(family).items())})"


def given(family: str, seed: int = 0) -> dict[str, Tensor]:
    return batch(rows=len(calls_of(family)), seed=seed)


def states(model: ComposedModel, family: str, **more: object) -> Tensor:
    """The last states of all rows, each with its own method."""
    with torch.no_grad():
        found: Tensor = model(**given(family), rows=[*calls_of(family)], **more).last_hidden_state
    return found


def plain(model: ComposedModel, family: str) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(**given(family), rows=[None] * len(calls_of(family)))
    return found.last_hidden_state


def parts_of(model: ComposedModel) -> dict[str, Part]:
    """The part of each row."""
    return dict(zip(model.program.names, (part for _, part in model.parts.items()), strict=True))


@each
def test_rows_are_what_they_are_alone_in_both_programs(family: str) -> None:
    model = composed(routed(family), backbone(family))
    together, bare = states(model, family), plain(model, family)
    literal = composed(routed(family), backbone(family), optimise=False)
    assert distance(states(literal, family), together) <= 1e-11
    for number, (name, text) in enumerate(calls_of(family).items()):
        one = {key: value[number : number + 1] for key, value in given(family).items()}
        with torch.no_grad():
            alone = model.branch(name)(**one).last_hidden_state[0]
        assert distance(together[number], alone) <= 1e-10, text
        assert distance(together[number], bare[number]) > 1e-4, text


@each
def test_new_parts_are_almost_the_backbone(family: str) -> None:
    torch.manual_seed(0)
    model = compose(routed(family), backbone(family), head=None).double()
    found, bare = states(model, family), plain(model, family)
    for number, text in enumerate(calls_of(family).values()):
        elsewhere = text.partition("(")[0] in STARTS_ELSEWHERE or "ln_after=true" in text
        assert elsewhere or distance(found[number], bare[number]) <= 0.02, text


@each
def test_the_gradient_reaches_exactly_what_each_method_trains(family: str) -> None:
    left: set[tuple[str, Site, str]] | None = None
    for seed in range(8):  # small layers of relu are dead under some weights
        model = composed(routed(family), backbone(family), seed=seed)
        parts = parts_of(model)
        out = model(**given(family, seed), rows=[*parts]).last_hidden_state
        (out * torch.randn_like(out)).sum().backward()
        ours = {id(parameter) for part in parts.values() for parameter in part.parameters()}
        assert all(p.grad is None for p in model.parameters() if id(p) not in ours)
        expected = {(name, *place) for name, part in parts.items() for place in trained(part)}
        reached = {
            (name, site, tensor)
            for name, part in parts.items()
            for site in part.sites
            for tensor, value in part[site].items()
            if value.grad is not None and value.grad.abs().max() > 0
        }
        assert reached <= expected
        left = (expected if left is None else left) - reached
        if not left:
            return
    told = [(calls_of(family)[name], str(site), tensor) for name, site, tensor in left or ()]
    assert not told


@each
def test_all_are_saved_loaded_and_detached_bit_for_bit(family: str, tmp_path: Path) -> None:
    base = make_backbone(family)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    stock = plain(compose("route(a=none)", base, head=None), family)
    model = composed(routed(family), base)
    model.save(str(tmp_path))
    found = states(model, family)
    loaded = ac.load(tmp_path, base)
    assert torch.equal(states(loaded, family), found)
    for one, other in zip(loaded.parts.items(), model.parts.items(), strict=True):
        tensors = other[1].tensors()
        assert one[1].tensors().keys() == tensors.keys()
        assert all(torch.equal(value, tensors[place]) for place, value in one[1].tensors().items())
    assert model.detach() is base and loaded.detach() is base
    assert base.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())
    assert torch.equal(plain(compose("route(a=none)", base, head=None), family), stock)
