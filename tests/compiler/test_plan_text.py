"""Tables of plans end and fit, whatever a method changes and however little room there is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from adaptcompose.backbones.layout import read_facts
from adaptcompose.catalogue.cards import Catalogue
from adaptcompose.compiler import plan as plan_text
from adaptcompose.compiler.plan import Plan
from adaptcompose.compiler.planning import make_plan
from adaptcompose.composition.checker import CheckContext, check_source
from adaptcompose.methods import registered_methods
from adaptcompose.resources import resource_folder
from tests.tiny import OTHERS, SPECIAL, config

CALLS = {name: f"{name}(reduction=3, phm_dim=2)" for name in ("compacter", "compacter_pp")}
ABSENT = {
    "gpt2": ["prompt_tuning"],  # their embeddings are no module of their own
    "llama": ["prompt_tuning", "bitfit"],  # no biases
    "t5": ["prompt_tuning", "bitfit"],
    "bart": ["prompt_tuning"],
    "mbart": ["prompt_tuning"],
}
EVERYWHERE = "lora(targets=[attn.q, attn.k, attn.v, attn.o, ffn.gate, ffn.in, ffn.mid])"


def planned(text: str, family: str, **changes: Any) -> Plan:
    facts = read_facts(json.loads(config(family, **changes).to_json_string(use_diff=False)))
    context = CheckContext(Catalogue.open(resource_folder("hub_cards")), facts)
    return make_plan(check_source(text, context).raise_errors(), facts)


@pytest.mark.parametrize("family", [*SPECIAL, *OTHERS])
@pytest.mark.parametrize("width", [40, 80, 200])
def test_every_method_on_every_family(
    family: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_text, "WIDTH", width)
    for name in registered_methods():
        if name in ABSENT.get(family, ()):
            continue
        table = plan_text._parts(planned(CALLS.get(name, f"{name}()"), family))
        assert max(map(len, table)) <= max(width, 45), table


def test_sites_give_way_to_their_number() -> None:
    row = str(planned(EVERYWHERE, "llama")).split("\n\n")[1]
    assert "ffn.in, ffn.mid])   attn.q ×3, attn.k ×3 … (+5)   4.3 k   trained" in row
    assert "attn.q ×3, attn.k ×3, attn.v ×3, attn.o ×3 … (+" in str(planned("bitfit()", "bert"))


def test_a_table_that_fits_is_left_alone() -> None:
    assert "attn.q ×3, attn.v ×3   " in str(planned("lora()", "bert"))


def test_the_sum_is_exact() -> None:
    base = {"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072}
    plan = planned("pfeiffer()", "bert", vocab_size=30522, max_position_embeddings=512, **base)
    assert "894,528 of 110,376,768 parameters trained (0.81 %)." in str(plan)
