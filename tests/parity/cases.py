"""What is compared with the peer: one `Case` a composition, as data without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

FAMILIES = ("bert", "roberta", "xlm-roberta", "electra", "distilbert")
WITH_POOLER = ("bert", "roberta", "xlm-roberta")
PROMPTED = ("bert", "roberta", "xlm-roberta", "electra")  # the peer has no mask for DistilBERT's

# The family of roberta's code: its folders carry safetensors wherever the peer can write them.
SAFETENSORS = "xlm-roberta"

# An adapter name, None for the bare backbone, or ["Stack" | "Fuse", child, ...]; the peer's words.
Setup = Any
Options = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One composition: adapters with their configurations, how they are composed, and the output.

    `adapters` maps a name to (name of a known configuration, changes to it). Reduction factors
    are small so that no rank is below 2.
    """

    name: str
    adapters: dict[str, tuple[str, Options]]
    setup: Setup
    note: str
    fusion: Options | None = None
    drop: Options = field(default_factory=dict)  # {"bottom": n} or {"top": n}
    head: tuple[str, str, Options] | None = None  # name, kind, arguments
    own_head: bool = False  # the backbone's MLM head, which the peer calls "default"
    static: str | None = None  # the class of transformers from which the head is saved
    old: str | None = None  # the year as of which the files are rewritten before they are read
    unrun: bool = False  # the peer writes and reads it, and cannot run it
    safetensors: bool = False
    families: tuple[str, ...] = FAMILIES


def _one(
    name: str,
    base: str,
    note: str,
    /,
    *,
    only: tuple[str, ...] = FAMILIES,
    safetensors: bool = False,
    **changes: Any,
) -> Case:
    """A single adapter `a` and the hidden states of the last layer."""
    adapters = {"a": (base, {"reduction_factor": 8, **changes})}
    return Case(name, adapters, "a", note, families=only, safetensors=safetensors)


def _fuse(
    name: str,
    note: str,
    /,
    *,
    base: str = "seq_bn",
    names: tuple[str, ...] = ("a", "b"),
    only: tuple[str, ...] = FAMILIES,
    safetensors: bool = False,
    drop: Options | None = None,
    **fusion: Any,
) -> Case:
    """Fused adapters of different rank; the last one has a scaling, which reaches the keys."""
    factors = (8, 4, 2)
    adapters = {n: (base, {"reduction_factor": f}) for n, f in zip(names, factors, strict=False)}
    adapters[names[-1]][1]["scaling"] = 1.5
    return Case(
        name,
        adapters,
        ["Fuse", *names],
        note,
        fusion=fusion,
        drop=drop or {},
        families=only,
        safetensors=safetensors,
    )


SEQ = ("seq_bn", {"reduction_factor": 8})
DOUBLE = ("double_seq_bn", {"reduction_factor": 8})
SEQ_INV = ("seq_bn_inv", {"reduction_factor": 8})
DOUBLE_INV = ("double_seq_bn_inv", {"reduction_factor": 8, "inv_adapter_reduction_factor": 1})
DYNAMIC: Options = {"kind": "dynamic"}
STATIC: Options = {"kind": "static"}
BERT = ("bert",)

BOTTLENECKS = (
    _one("seq_bn", "seq_bn", "one bottleneck after the feed-forward"),
    _one(
        "seq_bn_safetensors",
        "seq_bn",
        "the same kind, weights as safetensors",
        safetensors=True,
        only=BERT,
    ),
    _one("double_seq_bn", "double_seq_bn", "after attention and after the feed-forward"),
    _one("par_bn", "par_bn", "beside the feed-forward, scaling 4.0"),
    _one(
        "par_bn_flags",
        "par_bn",
        "beside the feed-forward with gate, both norms, channel scaling",
        ln_before=True,
        ln_after=True,
        use_gating=True,
        scaling="channel",
        only=BERT,
    ),
    _one("scaled_par_bn", "scaled_par_bn", "the same, the scaling learned"),
    _one(
        "adapter_plus",
        "seq_bn",
        "the settings of Adapter+",
        original_ln_after=False,
        residual_before_ln=False,
        non_linearity="gelu",
        scaling="channel",
        init_weights="houlsby",
    ),
    _one("mh_only", "double_seq_bn", "after attention only", output_adapter=False),
    _one("ln_before", "seq_bn", "own norm before the bottleneck", ln_before=True),
    _one("ln_after", "seq_bn", "own norm after the bottleneck, residual after it", ln_after=True),
    _one(
        "ln_after_residual_first",
        "seq_bn",
        "own norm after bottleneck and residual",
        ln_after=True,
        adapter_residual_before_ln=True,
    ),
    _one(
        "ln_both_double",
        "double_seq_bn",
        "own norms on both sides, at both sites",
        ln_before=True,
        ln_after=True,
        only=BERT,
    ),
    _one(
        "residual_after_ln",
        "seq_bn",
        "residual is the host norm's output",
        residual_before_ln=False,
    ),
    _one(
        "residual_post_add",
        "seq_bn",
        "residual is the sum before the host norm",
        residual_before_ln="post_add",
        only=BERT,
    ),
    _one("no_ln_before", "seq_bn", "host norm only after the bottleneck", original_ln_before=False),
    _one("no_ln_after", "seq_bn", "host norm only before the bottleneck", original_ln_after=False),
    _one(
        "no_ln_at_all",
        "seq_bn",
        "host norm nowhere",
        original_ln_before=False,
        original_ln_after=False,
        scaling=0.25,
        only=BERT,
    ),
    _one(
        "ln_before_residual_after_ln",
        "seq_bn",
        "host norm before, its output is the residual",
        original_ln_after=False,
        residual_before_ln=False,
        only=BERT,
    ),
    _one(
        "gating",
        "seq_bn",
        "one gate value an example, mean over the padded sequence",
        use_gating=True,
    ),
    _one("scaling_learned", "seq_bn", "one learned factor", scaling="learned"),
    _one("scaling_channel", "double_seq_bn", "one learned factor a channel", scaling="channel"),
    _one("scaling_constant", "seq_bn", "factor 4.0", scaling=4.0),
    _one("leave_out", "double_seq_bn", "nothing in layer 0", leave_out=[0]),
    _one(
        "reduction_by_layer",
        "seq_bn",
        "rank 8 in layer 0, else 4",
        reduction_factor={"0": 2, "default": 4},
    ),
    _one("seq_bn_inv", "seq_bn_inv", "with an invertible part after the embeddings"),
    _one(
        "double_seq_bn_inv",
        "double_seq_bn_inv",
        "the same at both sites",
        inv_adapter_reduction_factor=1,
    ),
    *(
        _one(f"act_{act}", "seq_bn", f"activation {act}", only=BERT, non_linearity=act)
        for act in ("gelu", "gelu_new", "swish", "tanh", "leakyrelu")
    ),
    _one(
        "act_inv_gelu",
        "seq_bn_inv",
        "activation of bottleneck and invertible part",
        only=BERT,
        non_linearity="gelu",
    ),
)

COMPACTER = ("compacter", {"reduction_factor": 4})
COMPACTER_PP = ("compacter++", {"reduction_factor": 2, "scaling": 1.5})


def _phm(name: str, note: str, /, **changes: Any) -> Case:
    """A variant of compacter++, which no family treats in its own way."""
    return _one(name, "compacter++", note, only=BERT, **({"reduction_factor": 4} | changes))


PHM = (
    _one("compacter", "compacter", "Kronecker products at both sites", reduction_factor=4),
    _one("compacter_pp", "compacter++", "after the feed-forward only", reduction_factor=2),
    _phm("phm_rank", "two products of rank two", phm_dim=2, phm_rank=2),
    _phm("phm_whole", "whole right factors", factorized_phm_W=False, reduction_factor=2),
    _phm("phm_own_rules", "a rule for every map", shared_phm_rule=False),
    _phm("phm_factorised_rule", "a shared rule of rank one", factorized_phm_rule=True),
    _phm(
        "phm_factorised_own_rules",
        "rules of rank one, one for every map",
        factorized_phm_rule=True,
        shared_phm_rule=False,
    ),
    _phm("phm_shared_factors", "right factors shared by all layers", shared_W_phm=True),
    _phm("phm_no_bias", "maps without biases", phm_bias=False),
    _phm(
        "phm_flags",
        "own norms, gate, channel scaling, nothing in layer 1, an invertible part",
        ln_before=True,
        ln_after=True,
        use_gating=True,
        scaling="channel",
        leave_out=[1],
        inv_adapter="nice",
        inv_adapter_reduction_factor=2,
    ),
    _phm("phm_parallel", "beside the feed-forward", is_parallel=True, original_ln_before=False),
    Case(
        "stack_compacter",
        {"lang": SEQ_INV, "task": COMPACTER_PP},
        ["Stack", "lang", "task"],
        "a compacter on a language adapter",
        families=BERT,
    ),
    Case(
        "fuse_compacter",
        {"a": ("compacter++", {"reduction_factor": 4, "non_linearity": "relu"}), "b": SEQ},
        ["Fuse", "a", "b"],
        "a compacter and a bottleneck fused",
        fusion=DYNAMIC,
        families=BERT,
    ),
    Case(
        "fuse_compacters",
        {"a": COMPACTER, "b": ("compacter", {"reduction_factor": 2, "shared_phm_rule": False})},
        ["Fuse", "a", "b"],
        "two compacters fused, at both sites",
        fusion=STATIC,
        families=BERT,
    ),
)

HEADS = (
    Case(
        "cls_one_layer",
        {"task": SEQ},
        "task",
        "classification, one layer",
        head=("task", "classification", {"num_labels": 3, "layers": 1}),
    ),
    Case(
        "cls_two_layers",
        {"task": SEQ},
        "task",
        "classification, two layers with tanh",
        head=("task", "classification", {"num_labels": 3, "layers": 2}),
        safetensors=True,
    ),
    Case(
        "cls_pooler",
        {"task": SEQ},
        "task",
        "classification on the backbone's pooler",
        head=("task", "classification", {"num_labels": 2, "layers": 1, "use_pooler": True}),
        families=WITH_POOLER,
    ),
    Case(
        "tagging_two_layers",
        {"task": SEQ},
        "task",
        "token classification, two layers, tanh",
        head=("task", "tagging", {"num_labels": 5, "layers": 2}),
        families=BERT,
    ),
    Case(
        "mlm_inverse",
        {"lang": SEQ_INV},
        "lang",
        "masked language model; the inverse runs before the vocabulary",
        head=("lang", "masked_lm", {}),
    ),
    Case(
        "mlm_inverse_own_head",
        {"lang": DOUBLE_INV},
        "lang",
        "the backbone's own MLM head; the inverse runs before the vocabulary",
        own_head=True,
    ),
    Case(
        "mlm_no_inverse",
        {"lang": SEQ},
        "lang",
        "masked language model, no invertible part",
        head=("lang", "masked_lm", {}),
        families=BERT,
    ),
)

STATIC_HEADS = (
    Case(
        "static_cls",
        {"a": SEQ},
        "a",
        "a head saved from AutoModelForSequenceClassification",
        static="AutoModelForSequenceClassification",
    ),
    Case(
        "static_tagging",
        {"a": SEQ},
        "a",
        "a head saved from AutoModelForTokenClassification",
        static="AutoModelForTokenClassification",
        safetensors=True,
    ),
    Case(
        "static_mlm",
        {"a": SEQ},
        "a",
        "a head saved from AutoModelForMaskedLM",
        static="AutoModelForMaskedLM",
    ),
    Case(
        "static_qa",
        {"a": SEQ},
        "a",
        "a head saved from AutoModelForQuestionAnswering; start and end as two columns",
        static="AutoModelForQuestionAnswering",
    ),
    Case(
        "static_choice",
        {"a": SEQ},
        "a",
        "a head saved from AutoModelForMultipleChoice; the rows are three choices of one example",
        static="AutoModelForMultipleChoice",
    ),
    Case(
        "qa_two_layers",
        {"a": SEQ},
        "a",
        "two layers for starts and ends",
        head=("a", "qa", {"layers": 2, "activation_function": "gelu"}),
    ),
    Case(
        "choice_two_layers",
        {"a": SEQ},
        "a",
        "two layers for three choices",
        head=("a", "multiple_choice", {"num_choices": 3}),
    ),
)

GELU = ("seq_bn", {"reduction_factor": 8, "non_linearity": "gelu_new"})
THEN = ("bert", "distilbert")  # in 2020 they kept their modules under other names
OLD = (
    Case(
        "old_madx",
        {"lang": SEQ_INV, "task": SEQ},
        ["Stack", "lang", "task"],
        "a language and a task adapter as they were written in 2020",
        old="2020",
        families=THEN,
    ),
    Case("old_double", {"a": DOUBLE}, "a", "both sites, as of 2020", old="2020", families=THEN),
    Case("old_gelu", {"a": GELU}, "a", "gelu, as of 2021", old="2021", families=THEN),
)

UNRUN = (
    Case(
        "glow",
        {
            "a": (
                "seq_bn",
                {"reduction_factor": 8, "inv_adapter": "glow", "inv_adapter_reduction_factor": 2},
            )
        },
        "a",
        "GLOW, files only",
        unrun=True,
    ),
)

STACKS = (
    Case(
        "madx",
        {"lang": SEQ_INV, "task": SEQ},
        ["Stack", "lang", "task"],
        "MAD-X: language under task, token classification",
        head=("task", "tagging", {"num_labels": 5}),
    ),
    Case(
        "madx_drop",
        {"lang": SEQ_INV, "task": SEQ},
        ["Stack", "lang", "task"],
        "the invertible part stays when bottom layers are dropped",
        drop={"bottom": 1},
        head=("task", "tagging", {"num_labels": 5}),
    ),
    Case(
        "stack_mixed",
        {"lang": DOUBLE_INV, "task": SEQ},
        ["Stack", "lang", "task"],
        "only the first adapter is at the attention site",
    ),
    Case(
        "stack_mixed_reverse",
        {"lang": SEQ, "task": DOUBLE},
        ["Stack", "lang", "task"],
        "only the second adapter is at the attention site",
        families=BERT,
    ),
    Case(
        "stack_three",
        {"a": SEQ, "b": ("seq_bn", {"reduction_factor": 4}), "c": DOUBLE},
        ["Stack", "a", "b", "c"],
        "three deep",
        families=BERT,
    ),
    Case(
        "stack_fuse",
        {"lang": SEQ_INV, "a": SEQ, "b": ("seq_bn", {"reduction_factor": 4})},
        ["Stack", "lang", ["Fuse", "a", "b"]],
        "language adapter under a fusion",
        fusion=DYNAMIC,
    ),
    Case(
        "stack_fuse_drop",
        {"lang": SEQ_INV, "a": SEQ, "b": ("seq_bn", {"reduction_factor": 4})},
        ["Stack", "lang", ["Fuse", "a", "b"]],
        "the same without layer 0",
        fusion=STATIC,
        drop={"bottom": 1},
    ),
    Case(
        "stack_fuse_double",
        {"lang": DOUBLE_INV, "a": DOUBLE, "b": DOUBLE},
        ["Stack", "lang", ["Fuse", "a", "b"]],
        "the same at both sites",
        fusion=STATIC,
        families=BERT,
    ),
)

FUSIONS = (
    _fuse("fuse_dynamic", "values and keys of each adapter's scaled up-projection", **DYNAMIC),
    _fuse("fuse_static", "no value matrix", **STATIC),
    _fuse(
        "fuse_static_safetensors",
        "no value matrix, weights as safetensors",
        safetensors=True,
        only=BERT,
        **STATIC,
    ),
    _fuse(
        "fuse_query_before_ln", "query is the sub-layer's output", query_before_ln=True, **STATIC
    ),
    _fuse(
        "fuse_query_before_ln_dynamic",
        "the same with values",
        query_before_ln=True,
        only=BERT,
        **DYNAMIC,
    ),
    _fuse(
        "fuse_residual_before", "residual inside the fused values", residual_before=True, **DYNAMIC
    ),
    _fuse(
        "fuse_residual_before_static",
        "the same without a value matrix",
        residual_before=True,
        only=BERT,
        **STATIC,
    ),
    _fuse(
        "fuse_value_after_softmax", "value matrix on the sum", value_before_softmax=False, **DYNAMIC
    ),
    _fuse(
        "fuse_all_flags",
        "the three flags together",
        query_before_ln=True,
        residual_before=True,
        value_before_softmax=False,
        only=BERT,
        **DYNAMIC,
    ),
    _fuse("fuse_three", "three adapters", names=("a", "b", "c"), **STATIC),
    _fuse("fuse_double", "at both sites", base="double_seq_bn", **STATIC),
    _fuse(
        "fuse_colliding_names",
        "one name is a prefix of the other",
        names=("a", "aa"),
        only=BERT,
        **STATIC,
    ),
    _fuse("fuse_drop_top", "fusion without the top layer", drop={"top": 1}, only=BERT, **STATIC),
)

PLAIN = (
    Case("bare", {}, None, "the backbone alone"),
    Case("drop_bottom", {"a": DOUBLE}, "a", "without layer 0", drop={"bottom": 1}),
    Case(
        "drop_top",
        {"a": DOUBLE},
        "a",
        "without the last two layers",
        drop={"top": 2},
        families=BERT,
    ),
)

PREFIX = ("prefix_tuning", {"prefix_length": 3, "bottleneck_size": 5})
PROMPT = ("prompt_tuning", {"prompt_length": 3})


def _prefix(name: str, note: str, /, *, families: tuple[str, ...] = BERT, **changes: Any) -> Case:
    """A prefix `a` and the hidden states of the last layer."""
    base, given = PREFIX
    return Case(name, {"a": (base, given | changes)}, "a", note, families=families)


def _prompt(
    name: str, note: str, /, *, families: tuple[str, ...] = BERT, pool: bool = False, **changes: Any
) -> Case:
    """A prompt `a` and a classifier, which reads the first virtual token."""
    base, given = PROMPT
    head = ("a", "classification", {"num_labels": 3, "layers": 1, "use_pooler": pool})
    return Case(name, {"a": (base, given | changes)}, "a", note, head=head, families=families)


VIRTUAL = (
    _prefix("prefix", "keys and values out of a network", families=FAMILIES),
    _prefix("prefix_flat", "keys and values themselves", flat=True, families=FAMILIES),
    _prefix("prefix_relu", "another activation in the network", non_linearity="relu"),
    _prefix("prefix_gate", "one gate an example", use_gating=True),
    _prefix(
        "prefix_gates", "a gate for keys, one for values", use_gating=True, shared_gating=False
    ),
    _prefix("prefix_leave_out", "nothing in layer 1", leave_out=[1]),
    _prefix("prefix_long", "more virtual keys than tokens", prefix_length=11, flat=True),
    Case(
        "prefix_drop",
        {"a": PREFIX},
        "a",
        "the bottom layer without its keys",
        drop={"bottom": 1},
        families=BERT,
    ),
    Case(
        "stack_prefixes",
        {"a": PREFIX, "b": ("prefix_tuning_flat", {"prefix_length": 2})},
        ["Stack", "a", "b"],
        "two prefixes beside each other",
        families=BERT,
    ),
    _prompt("prompt", "virtual tokens in front", families=PROMPTED),
    _prompt("prompt_pooler", "virtual tokens before the pooler", pool=True),
    _prompt("prompt_after_bos", "behind the first token", combine="prefix_after_bos"),
    Case(
        "mam",
        {"a": ("prefix_tuning[prefix_length=3,bottleneck_size=5]|par_bn[reduction_factor=8]", {})},
        "a",
        "a prefix and a parallel bottleneck",
        families=FAMILIES,
    ),
    Case(
        "unipelt",
        {
            "a": (
                "prefix_tuning[prefix_length=3,bottleneck_size=5,use_gating=True]"
                "|seq_bn[reduction_factor=8,use_gating=True]"
                "|lora[r=2,alpha=2,use_gating=True]",
                {},
            )
        },
        "a",
        "a prefix, a bottleneck and a LoRA, all with gates",
        families=FAMILIES,
    ),
)


def _weights(
    name: str,
    base: str,
    note: str,
    /,
    *,
    only: tuple[str, ...] = FAMILIES,
    safetensors: bool = False,
    **changes: Any,
) -> Case:
    """A single adapter `a` that changes weights."""
    adapters = {"a": (base, changes)}
    return Case(name, adapters, "a", note, families=only, safetensors=safetensors)


LORA: Options = {"r": 2, "alpha": 3}
FEED_FORWARD: Options = {"intermediate_lora": True, "output_lora": True}
WEIGHTS = (
    _weights("lora", "lora", "query and value", **LORA),
    _weights("lora_feed_forward", "lora", "every map it can", **LORA, **FEED_FORWARD),
    _weights(
        "lora_leave_out",
        "lora",
        "query and key, not in layer 1",
        only=BERT,
        attn_matrices=["q", "k"],
        leave_out=[1],
        **LORA,
    ),
    _weights(
        "lora_no_attention",
        "lora",
        "the feed-forward only",
        only=BERT,
        safetensors=True,
        selfattn_lora=False,
        **LORA,
        **FEED_FORWARD,
    ),
    _weights("lora_gate", "lora", "a gate in place of alpha / r", use_gating=True, **LORA),
    _weights("ia3", "ia3", "factors in front of the activation"),
    _weights("ia3_gate", "ia3", "with a gate in place of alpha", use_gating=True, alpha=2),
    _weights("ia3_alpha", "ia3", "a constant factor", only=BERT, alpha=2, intermediate_lora=False),
    _weights("dora", "lora", "lengths of the rows apart", use_dora=True, **LORA),
    _weights(
        "dora_gate", "lora", "the same with a gate", only=BERT, use_dora=True, use_gating=True
    ),
    _weights("vera", "vera", "whole matrices around a random pair", r=3, alpha=6),
    _weights("vera_gate", "vera", "with a gate", only=BERT, r=3, alpha=6, use_gating=True),
    _weights(
        "dvora_gate",
        "vera",
        "with a gate, and lengths apart",
        only=BERT,
        r=3,
        alpha=6,
        use_dora=True,
        use_gating=True,
    ),
    _weights("dvora", "vera", "the same, lengths apart", r=3, alpha=6, use_dora=True),
    _weights(
        "vera_feed_forward",
        "vera",
        "at the first map of the feed-forward alone, whose random pair has its two widths",
        only=BERT,
        r=3,
        alpha=6,
        selfattn_lora=False,
        intermediate_lora=True,
    ),
    Case(
        "stack_lora_bottleneck",
        {"a": ("lora", LORA), "b": SEQ},
        ["Stack", "a", "b"],
        "a LoRA under an adapter",
        families=BERT,
    ),
    Case(
        "stack_ia3",
        {"a": ("ia3", {}), "b": ("ia3", {"attn_matrices": ["q"], "intermediate_lora": True})},
        ["Stack", "a", "b"],
        "factors multiply",
        families=BERT,
    ),
)

CASES = (
    *PLAIN,
    *BOTTLENECKS,
    *PHM,
    *HEADS,
    *STATIC_HEADS,
    *OLD,
    *UNRUN,
    *STACKS,
    *FUSIONS,
    *VIRTUAL,
    *WEIGHTS,
)
