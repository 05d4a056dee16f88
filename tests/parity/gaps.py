"""Why there is no golden: what the peers refuse, and what they compute otherwise than its formula.

Data without torch. `test_coverage.py` demands a golden or a row for every method on every family;
`check_gaps.py` and `check_gaps_peft.py` demand of the peers that a row is still true.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

Form = tuple[tuple[str, dict[str, Any]], ...]
"""One configuration of the peer, or several in a stack: its name, and changes to it."""


@dataclass(frozen=True)
class Gap:
    """A method and the families where a golden is missing, wholly or for some of its settings.

    Every one of `forms` is refused with an error that has `error` in it; or, where there is none,
    it runs, and shows the `defect`, a function of `check_gaps.py`. `held` is the test that ours is
    what the formula says.
    """

    method: str
    families: tuple[str, ...]
    why: str
    forms: tuple[Form, ...]
    held: str
    error: str | None = None
    defect: str | None = None
    partial: bool = False  # other settings have a golden


ENCODERS = ("bert", "roberta", "xlm-roberta", "electra", "distilbert")
IN_FRONT = ("gpt2", "llama", "t5", "mbart")
EVERY = (*ENCODERS, *IN_FRONT, "bart")
"""The norms stand in front of the sub-layers."""
SEPARATE = tuple(family for family in EVERY if family != "gpt2")
"""Queries, keys and values are maps of their own."""

BOTTLENECK = {"reduction_factor": 8}
LORA = {"r": 2, "alpha": 3}
DORA = LORA | {"use_dora": True}
VERA = {"r": 3, "alpha": 6}
DVORA = VERA | {"use_dora": True}
INTERMEDIATE = {"selfattn_lora": False, "intermediate_lora": True}
OUTPUT = {"selfattn_lora": False, "output_lora": True}
BESIDE = {"intermediate_lora": True}
BESIDE_IT = ("par_bn", BOTTLENECK)
QUERIES = ("lora", LORA | {"attn_matrices": ["q"]})


def _one(base: str, changes: dict[str, Any], *more: dict[str, Any]) -> tuple[Form, ...]:
    """A configuration with each of several further changes."""
    return tuple(((base, changes | further),) for further in more or ({},))


GAPS = (
    Gap(
        "glow",
        EVERY,
        "it cuts the output of its network in two along the tokens; also, what the network `s2` is"
        " for it does with the state itself, in this direction only",
        _one("seq_bn", BOTTLENECK | {"inv_adapter": "glow", "inv_adapter_reduction_factor": 2}),
        "tests/runtime/test_couplings.py::test_it_is_its_formula",
        error="must match the size of tensor",
    ),
    Gap(
        "prompt_tuning",
        ("distilbert",),
        "it lengthens a mask of four dimensions, and here is one of two",
        _one("prompt_tuning", {"prompt_length": 3}, {}, {"combine": "prefix_after_bos"}),
        "tests/runtime/test_virtual.py::test_kept_prompts_join_behind_the_embeddings",
        error="list assignment index out of range",
    ),
    Gap(
        "prompt_tuning",
        (*IN_FRONT, "bart"),
        "these classes have no prompts; nor can ours stand behind embeddings that are no module",
        _one("prompt_tuning", {"prompt_length": 3}, {}, {"combine": "prefix_after_bos"}),
        "tests/runtime/test_virtual_decoding.py::test_a_prompt_is_more_embeddings",
        error="PromptTuningConfig",
    ),
    Gap(
        "dora",
        ("gpt2",),
        "it takes the lengths of the columns, as GPT-2 has its maps the other way round",
        _one("lora", DORA, {}, {"attn_matrices": ["q", "k", "v"]}, INTERMEDIATE, OUTPUT),
        "tests/runtime/test_changes.py::test_a_change_is_another_weight",
        error="must match the size of tensor",
    ),
    Gap(
        "dora",
        ("gpt2",),
        "of one of the queries, keys and values it makes a LoRA: the lengths do nothing",
        _one("lora", DORA, *({"attn_matrices": [letter]} for letter in "qkv")),
        "tests/runtime/test_changes.py::test_a_change_is_another_weight",
        defect="ignores_the_lengths",
    ),
    Gap(
        "dvora",
        ("gpt2",),
        "lengths of the columns, as with DoRA",
        _one("vera", DVORA, {}, {"attn_matrices": ["q", "k", "v"]}, INTERMEDIATE, OUTPUT),
        "tests/runtime/test_changes.py::test_a_change_is_another_weight",
        error="must match the size of tensor",
    ),
    Gap(
        "dvora",
        ("gpt2",),
        "the joint map of queries, keys and values looks for a matrix that VeRA has not",
        _one("vera", DVORA, *({"attn_matrices": [letter]} for letter in "qkv")),
        "tests/runtime/test_changes.py::test_a_change_is_another_weight",
        error="has no attribute 'lora_A'",
    ),
    Gap(
        "vera",
        ("gpt2",),
        "the joint map of queries, keys and values looks for a matrix that VeRA has not",
        _one("vera", VERA, {}, {"attn_matrices": ["q"]}, {"attn_matrices": ["q", "k", "v"]}),
        "tests/runtime/test_changes.py::test_a_change_is_another_weight",
        error="has no attribute 'lora_A'",
        partial=True,
    ),
    Gap(
        "vera",
        ("llama",),
        "heads share their keys, and the random pair has the shape of the first map that is met",
        _one("vera", VERA, {}, {"attn_matrices": ["q", "k"]}, {"use_gating": True}),
        "tests/runtime/test_changes.py::test_a_change_is_another_weight",
        error="shapes cannot be multiplied",
        partial=True,
    ),
    Gap(
        "dvora",
        ("llama",),
        "the same",
        _one("vera", DVORA, {}, {"attn_matrices": ["q", "k"]}),
        "tests/runtime/test_changes.py::test_a_change_is_another_weight",
        error="shapes cannot be multiplied",
        partial=True,
    ),
    Gap(
        "vera",
        ("bart", "mbart"),
        "the same, and the decoder's feed-forward is narrower than the encoder's",
        _one("vera", VERA, INTERMEDIATE),
        "tests/runtime/test_changes.py::test_a_change_is_another_weight",
        error="shapes cannot be multiplied",
        partial=True,
    ),
    Gap(
        "vera",
        SEPARATE,
        "the random pair has the shape of the first map that is met, and not all are of that shape",
        _one("vera", VERA, BESIDE, INTERMEDIATE | OUTPUT | {"selfattn_lora": False}),
        "tests/runtime/test_changes.py::test_a_change_is_another_weight",
        error="shapes cannot be multiplied",
        partial=True,
    ),
    Gap(
        "bottleneck",
        IN_FRONT,
        "residual_before_ln=post_add: without a norm behind the sum there is no residual",
        _one("seq_bn", BOTTLENECK | {"residual_before_ln": "post_add"}),
        "tests/runtime/test_laws.py::test_a_composition_computes_what_it_denotes",
        error="cannot access local variable 'residual'",
        partial=True,
    ),
    Gap(
        "lora",
        ("gpt2",),
        "the joint map of queries, keys and values takes one adapter only",
        ((("lora", LORA), ("lora", LORA)), (("ia3", {}), ("ia3", {}))),
        "tests/runtime/test_changes.py::test_loras_of_a_stack_add",
        error="Cannot use Stack",
        partial=True,
    ),
    Gap(
        "lora",
        (*ENCODERS, "llama", "bart", "mbart"),
        "in a stack the upper LoRA reads what the lower one adds, and only the upper one's counts",
        ((QUERIES, QUERIES),),
        "tests/runtime/test_changes.py::test_loras_of_a_stack_add",
        defect="adds_what_the_upper_makes_of_the_lower",
        partial=True,
    ),
    Gap(
        "lora",
        ("llama", "t5"),
        "the same, at a map of two widths",
        ((("lora", LORA), ("lora", LORA)),),
        "tests/runtime/test_changes.py::test_loras_of_a_stack_add",
        error="shapes cannot be multiplied",
        partial=True,
    ),
    Gap(
        "ia3",
        ("gpt2",),
        "alpha also multiplies those of queries, keys and values that have no factors",
        _one("ia3", {"alpha": 2, "intermediate_lora": False}),
        "tests/runtime/test_changes.py::test_a_change_is_another_weight",
        defect="multiplies_what_it_does_not_change",
        partial=True,
    ),
    Gap(
        "prefix",
        ("t5",),
        "in the first layer without a prefix, and in those behind it, attention loses its scores by"
        " distance",
        _one("prefix_tuning_flat", {"prefix_length": 3, "leave_out": [1]}),
        "tests/runtime/test_families.py::test_a_layer_without_a_prefix_keeps_the_scores_by_distance",
        defect="forgets_the_distances",
        partial=True,
    ),
    Gap(
        "par_bn",
        EVERY,
        "in a stack only the last of those beside the feed-forward counts",
        ((BESIDE_IT, BESIDE_IT),),
        "tests/runtime/test_laws.py::test_a_composition_computes_what_it_denotes",
        defect="ignores_the_lower",
        partial=True,
    ),
)

PEFT_GAPS = (
    Gap(
        "PREFIX_TUNING",
        ("distilbert",),
        "it puts the prefix into a cache, which DistilBERT has not, and makes the mask longer",
        _one(
            "PrefixTuningConfig",
            {
                "num_virtual_tokens": 3,
                "task_type": "FEATURE_EXTRACTION",
                "token_dim": 16,
                "num_layers": 3,
                "num_attention_heads": 2,
            },
        ),
        "tests/runtime/test_virtual.py::test_a_prefix_is_more_keys_and_values",
        error="The size of tensor a (8) must match the size of tensor b (11)",
    ),
    *(
        Gap(
            kind,
            ("electra",),
            "virtual tokens are as wide as the states, unless `token_dim` says how wide words are",
            _one(config, {"num_virtual_tokens": 3, "task_type": "FEATURE_EXTRACTION"}),
            "tests/runtime/test_virtual.py::test_shifted_prompts_are_embedded_like_words",
            error="Expected size 16 but got size 8",
            partial=True,
        )
        for kind, config in (
            ("PROMPT_TUNING", "PromptTuningConfig"),
            ("P_TUNING", "PromptEncoderConfig"),
        )
    ),
)


def report(gaps: tuple[Gap, ...], still: Callable[[Gap, str, Form], bool]) -> int:
    """One line for every form that is no longer as its row says; 1 if there is one."""
    count = failures = 0
    for gap in gaps:
        for family, form in product(gap.families, gap.forms):
            count += 1
            if not still(gap, family, form):
                failures += 1
                print(f"FAIL  {gap.method} on {family}, {gap.error or gap.defect}: {form}")
    print(f"{count - failures} of {count} gaps are as gaps.py has them")
    return 1 if failures or not count else 0
