"""Passes are about work: how many matrix products run, and how much they multiply."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from adaptcompose.runtime.model import ComposedModel
from tests.tiny import LAYERS, batch, composed, distance, make_backbone


class Products(TorchDispatchMode):
    """Counts products of matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket._qualified_op_name.removeprefix("aten::") in _PRODUCTS
        return func(*args, **(kwargs or {}))


_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm")


def products(text: str, rows: list[str] | None = None, **options: Any) -> int:
    """Of one inference behind the first."""
    model = composed(text, **options).requires_grad_(requires_grad=False)
    more = {} if rows is None else {"rows": rows}
    given = batch(rows=3 if rows is None else len(rows))
    with torch.no_grad():
        model(**given, **more)
        with Products() as counted:
            model(**given, **more)
    return counted.count


def members(count: int) -> str:
    return ", ".join(["pfeiffer(reduction=4)"] * count)


def test_a_fusion_costs_two_products_however_many_members_it_has() -> None:
    assert products(f"fuse({members(8)})") == products("none") + 2 * LAYERS


def test_an_average_costs_two_products_however_many_members_it_has() -> None:
    assert products(f"average({members(8)})") == products("none") + 2 * LAYERS


def test_a_merged_lora_costs_none() -> None:
    assert products("lora(rank=2)") == products("none")


@pytest.mark.parametrize("member", ["pfeiffer(reduction=4)", "lora(rank=2)", f"fuse({members(2)})"])
def test_rows_of_many_adapters_cost_what_those_of_two_cost(member: str) -> None:
    def routed(count: int, **options: Any) -> int:
        names = [f"a{number}" for number in range(count)]
        text = f"route({', '.join(f'{name}={member}' for name in names)})"
        return products(text, names, **options)

    assert routed(16) == routed(2)
    assert routed(16, optimise=False) - routed(2, optimise=False) >= 14 * 2 * LAYERS


def work(model: ComposedModel) -> int:
    """Floating-point operations of a training step, forward and backward."""
    with FlopCounterMode(display=False) as counted:
        model(**batch(rows=8)).last_hidden_state.square().mean().backward()
    return counted.get_total_flops()


def test_a_training_step_of_a_fusion_multiplies_less_than_the_literal_one() -> None:
    text = f"fuse({members(8)})"
    quick, literal, bare = (
        composed(text).train(),
        composed(text, optimise=False).train(),
        composed("none").train(),
    )
    for model in (quick, literal):
        model.update(frozenset({"fuse"}))
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        bare(**batch(rows=8))
    plain = counted.get_total_flops()
    assert work(quick) - plain < 0.5 * (work(literal) - plain)


def opposed(model: ComposedModel) -> ComposedModel:
    """Keys a thousand times as large in a direction in which there are no queries."""
    with torch.no_grad():
        for part in (part for _, part in model.parts.items() if part.name == "fuse"):
            for site in part.sites:
                part[site]["key.weight"].add_(1e4 * part[site]["value.weight"][:1])
                for name in ("query.weight", "query.bias"):
                    query = part[site][name]
                    query.sub_(query.mean(dim=0))
    return model.requires_grad_(requires_grad=False)  # type: ignore[return-value]


def test_folding_in_float64_is_finer_than_single_precision() -> None:
    """Scores cancel to a ten-thousandth of their terms: folded in float32 they would be noise."""
    text = f"fuse({members(3)})"
    folded = opposed(composed(text, make_backbone()))
    exact = opposed(composed(text, make_backbone())).double()
    with torch.no_grad():
        found, wanted = (model(**batch()).last_hidden_state.double() for model in (folded, exact))
    assert distance(found, wanted) < 1e-5
