"""What is compared on models that read from left to right, or decode: most of it as on the others.

`residual_post_add` only where the norms stand behind: the peer cannot compute it elsewhere.
"""

from __future__ import annotations

from dataclasses import replace

from cases import CASES, DOUBLE, DYNAMIC, SEQ, SEQ_INV, Case

LEFT_TO_RIGHT = ("gpt2", "llama")
T5 = ("t5",)
GATED = ("t5-gated",)
BART = ("bart", "mbart")
SEQ2SEQ = (*T5, *BART)
DECODERS = (*LEFT_TO_RIGHT, *SEQ2SEQ)

_NAMES = """
    bare drop_bottom drop_top seq_bn double_seq_bn par_bn scaled_par_bn adapter_plus mh_only
    ln_before ln_after no_ln_before
    residual_after_ln no_ln_after ln_before_residual_after_ln gating scaling_channel leave_out
    reduction_by_layer seq_bn_inv double_seq_bn_inv compacter compacter_pp stack_mixed stack_three
    stack_fuse stack_fuse_drop fuse_dynamic fuse_static fuse_query_before_ln fuse_residual_before
    fuse_double prefix prefix_flat prefix_gate prefix_gates prefix_long
    stack_prefixes mam unipelt lora lora_feed_forward lora_leave_out lora_gate ia3 ia3_gate
    glow cls_one_layer cls_two_layers
"""
SAME = _NAMES.split()

_NAMES = """
    bare seq_bn double_seq_bn_inv fuse_dynamic prefix lora_feed_forward ia3 vera_feed_forward
    unipelt cls_two_layers qa_two_layers seq2seq_lm_inverse cross
"""
OF_GATED = _NAMES.split()

SOME = {
    "prefix_leave_out": (*LEFT_TO_RIGHT, *BART),
    "prefix_drop": (*LEFT_TO_RIGHT, *BART),
    "stack_lora_bottleneck": ("llama", *SEQ2SEQ),
    "dora": ("llama", *SEQ2SEQ),
    "vera": SEQ2SEQ,
    "dvora": SEQ2SEQ,
    "vera_feed_forward": (*LEFT_TO_RIGHT, *T5),
    "residual_post_add": ("bart",),
    "static_cls": BART,
    "madx": LEFT_TO_RIGHT,
    "static_qa": DECODERS,
    "qa_two_layers": DECODERS,
}
"""Where the peer has them: what is missing is in `gaps.py`, but for heads. An encoder-decoder has
no head for tokens."""

OWN = (
    Case(
        "causal_lm_inverse",
        {"lang": SEQ_INV},
        "lang",
        "language model; the inverse runs before the vocabulary",
        head=("lang", "causal_lm", {}),
        families=LEFT_TO_RIGHT,
    ),
    Case(
        "seq2seq_lm_inverse",
        {"lang": SEQ_INV},
        "lang",
        "language model of a decoder; the inverse of the encoder's part runs before the vocabulary",
        head=("lang", "seq2seq_lm", {}),
        families=SEQ2SEQ,
    ),
    Case(
        "static_seq2seq_lm",
        {"a": SEQ},
        "a",
        "a head saved from AutoModelForSeq2SeqLM",
        static="AutoModelForSeq2SeqLM",
        families=BART,
    ),
    *(
        Case(
            name,
            {"a": ("vera", {"r": 3, "alpha": 6, "attn_matrices": ["k", "v"], "use_dora": dora})},
            "a",
            "keys and values, which are of one shape",
            families=("llama",),
        )
        for name, dora in (("vera_keys", False), ("dvora_keys", True))
    ),
    Case(
        "cross",
        {"a": (DOUBLE[0], {**DOUBLE[1], "cross_adapter": True})},
        "a",
        "behind cross-attention, too",
        families=SEQ2SEQ,
    ),
    Case(
        "cross_only",
        {"a": (SEQ[0], {**SEQ[1], "cross_adapter": True, "output_adapter": False})},
        "a",
        "behind cross-attention only",
        families=SEQ2SEQ,
    ),
    Case(
        "fuse_cross",
        {
            "a": (DOUBLE[0], {**DOUBLE[1], "cross_adapter": True}),
            "b": (DOUBLE[0], {"reduction_factor": 4, "cross_adapter": True}),
        },
        ["Fuse", "a", "b"],
        "fused at all three places",
        fusion=DYNAMIC,
        families=SEQ2SEQ,
    ),
    Case(
        "prefix_self",
        {
            "a": (
                "prefix_tuning",
                {
                    "prefix_length": 3,
                    "bottleneck_size": 5,
                    "encoder_prefix": False,
                    "cross_prefix": False,
                },
            )
        },
        "a",
        "a prefix in the decoder's own attention only",
        families=SEQ2SEQ,
    ),
)

DECODER_CASES = (
    *(replace(case, families=DECODERS) for case in CASES if case.name in SAME),
    *(replace(case, families=SOME[case.name]) for case in CASES if case.name in SOME),
    *OWN,
    *(replace(case, families=GATED) for case in (*CASES, *OWN) if case.name in OF_GATED),
)
