"""Compacter: what fits a backbone, how it starts, how its files name its tensors."""

from __future__ import annotations

import pytest
import torch

from adaptcompose.backbones.layout import Site, read_facts
from adaptcompose.catalogue.cards import Catalogue
from adaptcompose.composition.checker import CheckContext, check_source
from adaptcompose.methods.compacter import Compacter
from adaptcompose.methods.method import SHARED_SITE
from adaptcompose.resources import resource_folder
from adaptcompose.runtime.parts import make_part
from tests.tiny import config

FACTS = read_facts(config(hidden_size=32, num_attention_heads=4).to_dict())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("compacter(reduction=6)", "a divisor of 5, which is the width or a rank"),
        ("compacter(phm_dim=3, reduction=4)", "a divisor of 8, which is the width or a rank"),
        (
            "compacter(reduction=[2, 4, 8], shared_phm_w=true)",
            "one number when the right factors are shared",
        ),
    ],
)
def test_what_does_not_fit_is_told_before_anything_else(text: str, message: str) -> None:
    found = check_source(
        text, CheckContext(Catalogue.open(resource_folder("hub_cards")), FACTS)
    ).diagnostics
    assert found and {one.code for one in found} == {"AC209"}
    assert any(message in one.message for one in found)
    assert all(one.span is not None for one in found)
    assert (
        check_source(text, CheckContext(Catalogue.open(resource_folder("hub_cards")))).diagnostics
        == ()
    )


def test_it_starts_as_in_the_paper() -> None:
    """Right factors Xavier-uniform of gain √2, the rule N(0, 1e-4), biases zero."""
    torch.manual_seed(0)
    facts = read_facts(config(hidden_size=512, num_attention_heads=4).to_dict())
    part = make_part("a", Compacter(reduction=4.0), facts)
    rule = part[SHARED_SITE]["rule"]
    assert rule.shape == (4, 4, 4)
    assert 0.5e-4 < rule.std() < 1.5e-4
    left = part[Site("ffn.out", 0)]["down.W_left"]
    bound = 2**0.5 * (6 / (128 + 1)) ** 0.5
    assert 0.9 * bound < left.abs().max() <= bound
    assert not part[Site("ffn.out", 0)]["down.bias"].any()


def test_keys_of_files() -> None:
    method = Compacter(reduction=8.0)
    keys = method.adapterhub_keys("a", Site("ffn.out", 1), FACTS)
    stem = "encoder.layer.1.output.adapters.a"
    assert keys == {
        "down.W_left": [f"{stem}.adapter_down.0.W_left"],
        "down.W_right": [f"{stem}.adapter_down.0.W_right"],
        "down.bias": [f"{stem}.adapter_down.0.b"],
        "up.W_left": [f"{stem}.adapter_up.W_left"],
        "up.W_right": [f"{stem}.adapter_up.W_right"],
        "up.bias": [f"{stem}.adapter_up.b"],
    }
    assert method.adapterhub_keys("a", SHARED_SITE, FACTS) == {
        "rule": ["shared_parameters.a.phm_rule"]
    }
