"""Published numbers of parameters, out of config.json alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from adaptcompose.backbones.layout import Facts, read_facts, registered_layouts
from adaptcompose.catalogue.cards import Catalogue
from adaptcompose.compiler.planning import make_plan
from adaptcompose.composition.checker import CheckContext, check_source
from adaptcompose.resources import resource_folder

BERT_BASE: dict[str, Any] = {
    "model_type": "bert",
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}
ROBERTA_BASE = BERT_BASE | {
    "model_type": "roberta",
    "vocab_size": 50265,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
}
LLAMA_7B: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "intermediate_size": 11008,
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
}
T5_BASE: dict[str, Any] = {
    "model_type": "t5",
    "d_model": 768,
    "d_kv": 64,
    "d_ff": 3072,
    "num_layers": 12,
    "num_decoder_layers": 12,
    "num_heads": 12,
    "vocab_size": 32128,
    "relative_attention_num_buckets": 32,
    "feed_forward_proj": "relu",
    "is_encoder_decoder": True,
}
T5_NORMS = 47_616


def trained(text: str, config: dict[str, Any]) -> int:
    """What a plan says will be trained."""
    facts: Facts = read_facts(config)
    context = CheckContext(Catalogue.open(resource_folder("hub_cards")), facts)
    return make_plan(check_source(text, context).raise_errors(), facts).trained_parameters


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("pfeiffer(reduction=16)", 894_528),
        ("houlsby(reduction=16)", 1_789_056),
        ("seq_bn()", 894_528),
        ("compacter()", 57_088),
        ("compacter_pp()", 28_576),
        ("compacter(learn_phm=false)", 57_088 - 4**3),
        ("par_bn()", 12 * (2 * 768 * 384 + 384 + 768)),
        ("scaled_par_bn()", 12 * (2 * 768 * 384 + 384 + 768 + 1)),
    ],
)
def test_on_bert_base(text: str, count: int) -> None:
    assert trained(text, BERT_BASE) == count


@pytest.mark.parametrize("members", [2, 3, 5])
def test_a_fusion_on_bert_base_whatever_its_members(members: int) -> None:
    lets = " ".join(f"let m{i} = pfeiffer();" for i in range(members))
    text = f"{lets} fuse({', '.join(f'm{i}' for i in range(members))})"
    assert trained(text, BERT_BASE) - members * 894_528 == 21_252_096


def test_the_bottleneck_half_of_mam_on_roberta_base() -> None:
    """Two halves of 294,912 without biases: 16 prefixes, and 16 units beside the feed-forward."""
    weights = trained("par_bn(reduction=48, scale=2)", ROBERTA_BASE) - 12 * (16 + 768)
    assert weights == 589_824 // 2


def test_loreft_on_llama_7b() -> None:
    """0.031 % of 6.74 billion (Wu et al., 2024, table 1): rank 8, tied weights, every layer."""
    settings = "rank=8, prefix_positions=7, suffix_positions=7, tied_weights=true"
    count = trained(f"loreft({settings})", LLAMA_7B)
    assert count == 32 * (2 * 8 * 4096 + 8)
    whole = read_facts(LLAMA_7B).parameters + 32000 * 4096  # with its vocabulary matrix
    assert round(100 * count / whole, 3) == 0.031


@pytest.mark.skipif("t5" not in registered_layouts(), reason="no layout of T5 yet")
@pytest.mark.parametrize(("text", "count"), [("compacter()", 161_728), ("compacter_pp()", 104_704)])
def test_compacter_on_t5_base_with_its_norms(text: str, count: int) -> None:
    assert trained(text, T5_BASE) + T5_NORMS == count


def test_plan_counts_from_config_json_alone(tmp_path: Path) -> None:
    """In a process of its own, which loads no torch."""
    (tmp_path / "config.json").write_text(json.dumps(BERT_BASE))
    code = f"""
import sys
from adaptcompose.cli import main as cli
assert cli.main(["plan", "compacter()", "--backbone", {str(tmp_path)!r}, "--format", "json"]) == 0
assert not {{"torch", "transformers", "huggingface_hub"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["parameters"]["trained"] == 57_088
