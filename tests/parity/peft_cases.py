"""What is compared with PEFT: one `Case` an adapter, as data without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

ENCODERS = ("bert", "roberta", "xlm-roberta", "electra")
LEFT_TO_RIGHT = ("gpt2", "llama")
SEQ2SEQ = ("t5", "bart", "mbart")
DECODERS = (*LEFT_TO_RIGHT, *SEQ2SEQ)
FAMILIES = (*ENCODERS, "distilbert", *DECODERS)


@dataclass(frozen=True)
class Case:
    """One adapter: PEFT's configuration class, its arguments, and the task model if there is one.

    Ranks and factors are such that none of them is a default or 1.
    """

    name: str
    config: str
    note: str
    options: dict[str, Any] = field(default_factory=dict)
    task: str | None = None
    families: tuple[str, ...] = ENCODERS
    attended: bool = False  # compare attended tokens only
    whole: bool = False  # compare rows without padding only
    converted: bool = False  # saved as a LoRA on the weights that the backbone had before


BERT = ("bert",)


def shaped(task: str | None, *tensors: Any) -> Any:
    """A batch as a class takes it: one example with a choice in each row, or rows."""
    several = "MultipleChoice" in str(task)
    return [tensor[None] for tensor in tensors] if several else tensors


WIDTHS: tuple[tuple[tuple[str, ...], dict[str, int]], ...] = (
    (ENCODERS[:3], {}),
    (ENCODERS[3:], {"token_dim": 8}),
)
"""ELECTRA's embeddings are narrower here, which PEFT has to be told."""

ENCODER_CASES = (
    Case("lora", "LoraConfig", "query and value", {"r": 3, "lora_alpha": 5}),
    Case(
        "lora_patterns",
        "LoraConfig",
        "other ranks and alphas at some modules",
        {
            "r": 2,
            "lora_alpha": 3,
            "target_modules": ["query", "key", "value"],
            "rank_pattern": {"key": 4, "layer.1.attention.self.query": 3},
            "alpha_pattern": {r"layer\.2\.attention\.self\.(query|value)": 7},
        },
    ),
    Case(
        "lora_expressions",
        "LoraConfig",
        "patterns that are regular expressions, the first that fits counts; odd numbers",
        {
            "r": 2,
            "lora_alpha": 3,
            "target_modules": ["query", "value"],
            "rank_pattern": {r"layer\.\d+\.attention\.self\.query": 3},
            "alpha_pattern": {r".*layer\.1.*": -2, r"layer\.\d\..*\.value": 5.1234567},
        },
    ),
    Case(
        "lora_all_linear",
        "LoraConfig",
        "every linear map, a bias beside B, alpha by the root of the rank",
        {
            "r": 2,
            "lora_alpha": 3,
            "target_modules": "all-linear",
            "lora_bias": True,
            "use_rslora": True,
        },
    ),
    Case(
        "lora_regex",
        "LoraConfig",
        "a regular expression says which modules",
        {"r": 2, "lora_alpha": 3, "target_modules": r".*layer\.[12]\.(intermediate|output)\.dense"},
    ),
    Case(
        "lora_layers",
        "LoraConfig",
        "two layers only",
        {
            "r": 2,
            "lora_alpha": 3,
            "target_modules": ["query"],
            "layers_to_transform": [0, 2],
            "layers_pattern": "layer",
        },
    ),
    Case(
        "lora_biases",
        "LoraConfig",
        "the biases of the changed maps are trained, too",
        {"r": 2, "lora_alpha": 3, "bias": "lora_only"},
    ),
    Case(
        "lora_all_biases",
        "LoraConfig",
        "all biases are trained, too",
        {"r": 2, "lora_alpha": 3, "bias": "all"},
    ),
    Case(
        "lora_all_biases_tagger",
        "LoraConfig",
        "all biases are trained, too, in a class without a pooler",
        {"r": 2, "lora_alpha": 3, "bias": "all", "task_type": "TOKEN_CLS"},
        task="AutoModelForTokenClassification",
        families=BERT,
    ),
    Case(
        "dora_all_biases",
        "LoraConfig",
        "all biases are trained, too, and lengths of the rows",
        {"r": 2, "lora_alpha": 3, "bias": "all", "use_dora": True},
        families=BERT,
    ),
    Case(
        "lora_pissa",
        "LoraConfig",
        "begun from the backbone's singular vectors, saved as what is beside its own weights",
        {"r": 2, "lora_alpha": 3, "init_lora_weights": "pissa"},
        families=BERT,
        converted=True,
    ),
    Case(
        "lora_olora",
        "LoraConfig",
        "begun from an orthogonal basis of the backbone's weights, saved likewise",
        {"r": 2, "lora_alpha": 3, "init_lora_weights": "olora", "use_rslora": True},
        families=BERT,
        converted=True,
    ),
    Case(
        "lora_classifier",
        "LoraConfig",
        "with the classifier among the saved modules",
        {"r": 2, "lora_alpha": 3, "task_type": "SEQ_CLS"},
        task="AutoModelForSequenceClassification",
    ),
    Case(
        "lora_tagger",
        "LoraConfig",
        "with the tagger among the saved modules",
        {"r": 2, "lora_alpha": 3, "task_type": "TOKEN_CLS"},
        task="AutoModelForTokenClassification",
    ),
    Case(
        "dora",
        "LoraConfig",
        "lengths of the rows apart",
        {"r": 2, "lora_alpha": 5, "use_dora": True, "target_modules": ["query", "output.dense"]},
    ),
    Case(
        "vera",
        "VeraConfig",
        "the random pair is stored",
        {"r": 5, "save_projection": True, "target_modules": ["query", "intermediate.dense"]},
    ),
    Case(
        "vera_seed",
        "VeraConfig",
        "the random pair comes out of the seed",
        {"r": 5, "save_projection": False, "projection_prng_key": 11},
        families=("bert", "gpt2"),
    ),
    Case(
        "ia3",
        "IA3Config",
        "PEFT's default modules for BERT, output.dense of attention among them",
        {
            "target_modules": ["key", "value", "output.dense"],
            "feedforward_modules": ["output.dense"],
        },
    ),
    Case(
        "ia3_outputs",
        "IA3Config",
        "nothing at the input of a map",
        {"target_modules": ["key", "value", "intermediate.dense"], "feedforward_modules": []},
        families=("bert", "roberta"),
    ),
    Case("norms", "LNTuningConfig", "every LayerNorm", {"target_modules": ["LayerNorm"]}),
    Case(
        "norms_classifier",
        "LNTuningConfig",
        "the norms behind the feed-forward, and a classifier",
        {"target_modules": r".*\.\d\.output\.LayerNorm", "task_type": "SEQ_CLS"},
        task="AutoModelForSequenceClassification",
        families=("bert", "electra"),
    ),
    Case(
        "prefix_classifier",
        "PrefixTuningConfig",
        "keys and values of every layer; a classifier",
        {"num_virtual_tokens": 3, "task_type": "SEQ_CLS"},
        task="AutoModelForSequenceClassification",
    ),
    Case(
        "prefix",
        "PrefixTuningConfig",
        "keys and values themselves",
        {"num_virtual_tokens": 3, "task_type": "FEATURE_EXTRACTION"},
    ),
    Case(
        "prefix_network",
        "PrefixTuningConfig",
        "keys and values out of a network, which is not stored; a classifier",
        {
            "num_virtual_tokens": 3,
            "prefix_projection": True,
            "encoder_hidden_size": 7,
            "task_type": "SEQ_CLS",
        },
        task="AutoModelForSequenceClassification",
        families=BERT,
    ),
    *(
        Case(
            "prompt",
            "PromptTuningConfig",
            "virtual tokens at the first positions; PEFT counts positions on in RoBERTa's padding",
            {"num_virtual_tokens": 3, "task_type": "FEATURE_EXTRACTION"} | width,
            families=families,
            attended=True,
        )
        for families, width in WIDTHS
    ),
    *(
        Case(
            "prompt_classifier",
            "PromptTuningConfig",
            "the classifier sees the first virtual token",
            {"num_virtual_tokens": 3, "task_type": "SEQ_CLS"} | width,
            task="AutoModelForSequenceClassification",
            families=families,
        )
        for families, width in WIDTHS
    ),
    *(
        Case(
            "ptuning",
            "PromptEncoderConfig",
            "virtual tokens out of a network, which is not stored",
            {
                "num_virtual_tokens": 3,
                "encoder_reparameterization_type": "MLP",
                "encoder_hidden_size": 7,
                "task_type": "FEATURE_EXTRACTION",
            }
            | width,
            families=families,
            attended=families != BERT,
        )
        for families, width in ((BERT, {}), (ENCODERS[1:3], {}), WIDTHS[1])
    ),
    *(
        Case(
            "ptuning_classifier",
            "PromptEncoderConfig",
            "virtual tokens out of an LSTM, which is not stored; a classifier",
            {
                "num_virtual_tokens": 3,
                "encoder_reparameterization_type": "LSTM",
                "encoder_hidden_size": 5,
                "task_type": "SEQ_CLS",
            }
            | width,
            task="AutoModelForSequenceClassification",
            families=families,
        )
        for families, width in WIDTHS
    ),
)

STATES = {"task_type": "FEATURE_EXTRACTION"}
LANGUAGE = {
    "gpt2": ("CAUSAL_LM", "AutoModelForCausalLM"),
    "llama": ("CAUSAL_LM", "AutoModelForCausalLM"),
    **dict.fromkeys(SEQ2SEQ, ("SEQ_2_SEQ_LM", "AutoModelForSeq2SeqLM")),
}
CLASSES: dict[str, tuple[str | None, str, str]] = {
    "bert": (None, "bert", "cls.predictions.decoder"),
    "roberta": (None, "roberta", "lm_head.decoder"),
    "xlm-roberta": (None, "roberta", "lm_head.decoder"),
    "electra": (None, "electra", "generator_lm_head"),
    "gpt2": ("CAUSAL_LM", "transformer", "lm_head"),
    "llama": ("CAUSAL_LM", "model", "lm_head"),
    "t5": ("SEQ_2_SEQ_LM", "", "lm_head"),
    "distilbert": (None, "distilbert", "vocab_projector"),
    "bart": ("SEQ_2_SEQ_LM", "model", "lm_head"),
    "mbart": ("SEQ_2_SEQ_LM", "model", "lm_head"),
}
"""The classes of language models: PEFT's word, where the backbone is, and their last map."""
BART: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("PEFT's default modules of BART", {"target_modules": ["q_proj", "v_proj"]}),
    "lora_patterns": (
        "other ranks and alphas at some modules",
        {
            "target_modules": ["q_proj", "v_proj", "fc1"],
            "rank_pattern": {"fc1": 4, "encoder.layers.1.self_attn.q_proj": 3},
            "alpha_pattern": {r"decoder\.layers\.1\.encoder_attn\.(q_proj|v_proj)": 7},
        },
    ),
    "lora_all_biases": ("all biases are trained, too", {"target_modules": ["fc1"]}),
    "dora": ("lengths of the rows apart", {"target_modules": ["q_proj", "fc2"]}),
    "vera": ("one random pair for maps of all shapes", {"target_modules": ["q_proj", "fc1"]}),
    "ia3": (
        "PEFT's default modules of BART",
        {"target_modules": ["q_proj", "v_proj", "fc2"], "feedforward_modules": ["fc2"]},
    ),
    "norms": (
        "PEFT's default norms of BART",
        {"target_modules": ["self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"]},
    ),
}
CHANGES: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "distilbert": {
        "lora": ("query and value", {"target_modules": ["q_lin", "v_lin"]}),
        "lora_patterns": (
            "other ranks and alphas at some modules",
            {
                "target_modules": ["q_lin", "v_lin", "lin1"],
                "rank_pattern": {"lin1": 4, "layer.1.attention.q_lin": 3},
                "alpha_pattern": {r"layer\.2\.attention\.(q_lin|v_lin)": 7},
            },
        ),
        "lora_all_biases": ("all biases are trained, too", {"target_modules": ["q_lin"]}),
        "dora": ("lengths of the rows apart", {"target_modules": ["k_lin", "lin2"]}),
        "vera": ("one random pair for maps of all shapes", {"target_modules": ["q_lin", "lin1"]}),
        "ia3": (
            "keys, values, and the inside of the feed-forward",
            {"target_modules": ["k_lin", "v_lin", "lin2"], "feedforward_modules": ["lin2"]},
        ),
        "norms": (
            "the norms of the layers",
            {"target_modules": ["sa_layer_norm", "output_layer_norm"]},
        ),
    },
    "bart": BART,
    "mbart": BART,
    "gpt2": {
        "lora": ("queries, keys and values in one map, transposed", {"fan_in_fan_out": True}),
        "lora_patterns": (
            "other ranks and alphas at some modules",
            {
                "target_modules": ["c_attn", "attn.c_proj", "mlp.c_fc"],
                "rank_pattern": {"c_attn": 4, "h.1.mlp.c_fc": 3},
                "alpha_pattern": {r"h\.2\.(attn\.c_proj|mlp\.c_fc)": 7},
                "fan_in_fan_out": True,
            },
        ),
        "lora_all_biases": (
            "all biases are trained, too",
            {"target_modules": ["mlp.c_fc"], "fan_in_fan_out": True},
        ),
        "dora": (
            "lengths of the rows apart, of the joint map, too",
            {"target_modules": ["c_attn", "mlp.c_proj"], "fan_in_fan_out": True},
        ),
        "vera": ("one random pair for maps of all shapes", {"target_modules": ["c_attn", "c_fc"]}),
        "ia3": ("PEFT's default modules", {"fan_in_fan_out": True}),
        "norms": ("PEFT's default norms", {}),
    },
    "llama": {
        "lora": ("PEFT's default modules", {}),
        "lora_patterns": (
            "other ranks and alphas at some modules",
            {
                "target_modules": ["q_proj", "v_proj", "gate_proj"],
                "rank_pattern": {"gate_proj": 4, "layers.1.self_attn.q_proj": 3},
                "alpha_pattern": {r"layers\.2\.self_attn\.(q_proj|v_proj)": 7},
            },
        ),
        "dora": ("lengths of the rows apart", {"target_modules": ["k_proj", "down_proj"]}),
        "vera": (
            "one random pair for maps of all shapes",
            {"target_modules": ["q_proj", "v_proj"]},
        ),
        "ia3": ("PEFT's default modules", {}),
        "norms": ("PEFT's default norms", {}),
    },
    "t5": {
        "lora": ("PEFT's default modules", {}),
        "lora_patterns": (
            "other ranks and alphas at some modules",
            {
                "target_modules": ["q", "v", "wi"],
                "rank_pattern": {"wi": 4, "encoder.block.1.layer.0.SelfAttention.q": 3},
                "alpha_pattern": {r"decoder\.block\.1\.layer\.1\.EncDecAttention\.(q|v)": 7},
            },
        ),
        "dora": ("lengths of the rows apart", {"target_modules": ["q", "wo"]}),
        "vera": ("one random pair for maps of all shapes", {"target_modules": ["q", "wi"]}),
        "ia3": ("PEFT's default modules", {}),
        "norms": ("PEFT's default norms", {}),
    },
}
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("LoraConfig", {"r": 3, "lora_alpha": 5}),
    "lora_patterns": ("LoraConfig", {"r": 2, "lora_alpha": 3}),
    "lora_all_biases": ("LoraConfig", {"r": 2, "lora_alpha": 5, "bias": "all"}),
    "dora": ("LoraConfig", {"r": 2, "lora_alpha": 5, "use_dora": True}),
    "vera": ("VeraConfig", {"r": 5, "save_projection": True}),
    "ia3": ("IA3Config", {}),
    "norms": ("LNTuningConfig", {}),
}

TOLD = {"token_dim": 16, "num_layers": 3, "num_attention_heads": 2}
T5 = ("t5",)
SAVED = {"modules_to_save": ["classification_head"]}
VIRTUAL: tuple[tuple[str, str, tuple[str, ...], str, dict[str, Any]], ...] = (
    ("prefix", "PrefixTuningConfig", LEFT_TO_RIGHT, "keys and values themselves", {}),
    ("prompt", "PromptTuningConfig", LEFT_TO_RIGHT, "virtual tokens in front", {}),
    (
        "prompt",
        "PromptTuningConfig",
        SEQ2SEQ,
        "PEFT stores a prompt of the decoder, too, and does not use it",
        {},
    ),
    (
        "ptuning",
        "PromptEncoderConfig",
        DECODERS,
        "virtual tokens out of a network, which is not stored",
        {"encoder_reparameterization_type": "LSTM", "encoder_hidden_size": 5},
    ),
)

PATTERNS = {"gpt2": ("c_attn", "h"), "llama": ("q_proj", "layers"), "t5": ("q", "block")}
"""A map, and what PEFT calls the layers."""

DECODER_CASES = (
    *(
        Case(
            "lora_layers",
            "LoraConfig",
            "two layers only; of a decoder one",
            {"r": 2, "lora_alpha": 3, "target_modules": [module], "layers_pattern": pattern}
            | {"layers_to_transform": [0, 2]}
            | ({"fan_in_fan_out": True} if family == "gpt2" else {}),
            families=(family,),
        )
        for family, (module, pattern) in PATTERNS.items()
    ),
    *(
        Case(name, SETTINGS[name][0], note, SETTINGS[name][1] | own, families=(family,))
        for family, changes in CHANGES.items()
        for name, (note, own) in changes.items()
    ),
    *(
        Case(
            "lora_language_model",
            "LoraConfig",
            "modules are named as in the language model",
            {"r": 2, "lora_alpha": 3, "use_rslora": True, "task_type": task}
            | ({"fan_in_fan_out": True} if family == "gpt2" else {})
            | ({"target_modules": ["k_proj"]} if family in SEQ2SEQ[1:] else {}),
            task=kind,
            families=(family,),
        )
        for family, (task, kind) in LANGUAGE.items()
    ),
    *(
        Case(name, config, note, {"num_virtual_tokens": 3} | STATES | own, families=families)
        for name, config, note, own, families in (
            ("prefix", "PrefixTuningConfig", "keys and values themselves", {}, LEFT_TO_RIGHT),
            (
                "prefix_network",
                "PrefixTuningConfig",
                "keys and values out of a network, which is not stored",
                {"prefix_projection": True, "encoder_hidden_size": 7},
                LEFT_TO_RIGHT,
            ),
            ("prompt", "PromptTuningConfig", "virtual tokens in front", {}, DECODERS),
            (
                "ptuning",
                "PromptEncoderConfig",
                "virtual tokens out of a network, which is not stored",
                {"encoder_reparameterization_type": "MLP", "encoder_hidden_size": 7},
                DECODERS,
            ),
            (
                "prompt",
                "PromptTuningConfig",
                "virtual tokens in front; PEFT does not know what DistilBERT calls its sizes",
                TOLD,
                ("distilbert",),
            ),
            (
                "ptuning",
                "PromptEncoderConfig",
                "virtual tokens out of a network, which is not stored",
                {"encoder_reparameterization_type": "MLP", "encoder_hidden_size": 7} | TOLD,
                ("distilbert",),
            ),
        )
    ),
    *(
        Case(
            f"{name}_language_model",
            config,
            note,
            {"num_virtual_tokens": 3, "task_type": LANGUAGE[family][0]} | own,
            task=LANGUAGE[family][1],
            families=(family,),
        )
        for name, config, families, note, own in VIRTUAL
        for family in families
    ),
    Case(
        "prefix_language_model",
        "PrefixTuningConfig",
        "the decoder's layers run with the keys of others, and nothing else has any",
        {"num_virtual_tokens": 3, "task_type": "SEQ_2_SEQ_LM", "token_dim": 12},
        task="AutoModelForSeq2SeqLM",
        families=("t5",),
    ),
    Case(
        "prefix_language_model",
        "PrefixTuningConfig",
        "the same",
        {"num_virtual_tokens": 3, "task_type": "SEQ_2_SEQ_LM"},
        task="AutoModelForSeq2SeqLM",
        families=SEQ2SEQ[1:],
    ),
    *(
        Case(
            "lora_vocabulary",
            "LoraConfig",
            "with a vocabulary of its own among the saved modules",
            {"r": 2, "lora_alpha": 3, "task_type": task, "modules_to_save": ["lm_head"]}
            | ({"target_modules": ["k_proj"]} if family in SEQ2SEQ[1:] else {}),
            task=kind,
            families=(family,),
        )
        for family, (task, kind) in LANGUAGE.items()
    ),
    *(
        Case(
            f"{name}_classifier",
            config,
            "with the classifier among the saved modules",
            {"task_type": "SEQ_CLS"} | own,
            task="AutoModelForSequenceClassification",
            families=families,
        )
        for name, config, families, own in (
            ("lora", "LoraConfig", LEFT_TO_RIGHT, {"r": 2, "lora_alpha": 3}),
            ("ia3", "IA3Config", LEFT_TO_RIGHT, {}),
            ("prefix", "PrefixTuningConfig", LEFT_TO_RIGHT, {"num_virtual_tokens": 3}),
            ("lora", "LoraConfig", T5, {"r": 2, "lora_alpha": 3} | SAVED),
            ("ia3", "IA3Config", T5, SAVED),
            (
                "lora",
                "LoraConfig",
                SEQ2SEQ[1:],
                {"r": 2, "lora_alpha": 3, "target_modules": ["q_proj"]} | SAVED,
            ),
            (
                "lora",
                "LoraConfig",
                ("distilbert",),
                {
                    "r": 2,
                    "lora_alpha": 3,
                    "target_modules": ["q_lin"],
                    "modules_to_save": ["pre_classifier", "classifier"],
                },
            ),
        )
    ),
    Case(
        "lora_tagger",
        "LoraConfig",
        "with the tagger among the saved modules",
        {"r": 2, "lora_alpha": 3, "task_type": "TOKEN_CLS"},
        task="AutoModelForTokenClassification",
        families=LEFT_TO_RIGHT,
    ),
    Case(
        "prompt_classifier",
        "PromptTuningConfig",
        "behind a prompt, the classifier in PEFT reads the last place, padding or not",
        {"num_virtual_tokens": 3, "task_type": "SEQ_CLS"},
        task="AutoModelForSequenceClassification",
        families=LEFT_TO_RIGHT,
        whole=True,
    ),
)

MASKED = "AutoModelForMaskedLM"
TARGETS = {
    "bert": ("query", "word_embeddings", "decoder"),
    "roberta": ("query", "word_embeddings", "decoder"),
    "xlm-roberta": ("query", "word_embeddings", "decoder"),
    "electra": ("query", "word_embeddings", "generator_lm_head"),
    "gpt2": ("c_attn", "wte", "lm_head"),
    "llama": ("q_proj", "embed_tokens", "lm_head"),
    "t5": ("q", "embed_tokens", "lm_head"),
    "distilbert": ("q_lin", "word_embeddings", "vocab_projector"),
    "bart": ("q_proj", "embed_tokens", "lm_head"),
    "mbart": ("q_proj", "embed_tokens", "lm_head"),
}
"""A map in the layers, the embeddings, and the last map of a language model."""
FACTORS = {"r": 2, "lora_alpha": 3}


def _of(family: str, *places: int) -> dict[str, Any]:
    """Targets of a family, in its class of language models."""
    found = {"target_modules": [TARGETS[family][place] for place in places]}
    if family in LANGUAGE:
        found["task_type"] = LANGUAGE[family][0]
    return FACTORS | found | ({"fan_in_fan_out": True} if family == "gpt2" else {})


WORD_CASES = (
    *(
        Case(
            name,
            "LoraConfig",
            note,
            _of(family, *places) | own,
            task=LANGUAGE.get(family, (None, MASKED))[1],
            families=(family,),
        )
        for family in FAMILIES
        for name, note, places, own in (
            ("lora_head", "the last map of the language model, too", (0, 2), {}),
            ("lora_words", "the embeddings, too; what is tied to them stays", (0, 1), {}),
            (
                "dora_words",
                "embeddings and the last map, lengths of the rows apart",
                (1, 2),
                {"use_dora": True},
            ),
        )
    ),
    *(
        Case(
            "lora_words_states",
            "LoraConfig",
            "the embeddings of a model without a head, with a factor of their own",
            _of(family, 1)
            | {"alpha_pattern": {TARGETS[family][1]: 5}, "task_type": "FEATURE_EXTRACTION"},
            families=(family,),
        )
        for family in FAMILIES
    ),
    Case(
        "lora_shared",
        "LoraConfig",
        "embeddings by the name under which the class never calls them",
        FACTORS | {"target_modules": ["q", "shared"]},
        families=T5,
    ),
    *(
        Case(
            "saved_shared",
            "LoraConfig",
            "embeddings that are saved by the name under which the class never calls them",
            _of(family, 0) | {"modules_to_save": ["shared"]},
            task=LANGUAGE[family][1],
            families=(family,),
        )
        for family in SEQ2SEQ
    ),
)

RAW_CASES = (
    *(
        Case(
            f"{kind}_raw",
            "LoraConfig",
            "begun from the backbone's weights, which PEFT changes once more when it is loaded",
            _of(family, 0) | {"init_lora_weights": kind, "task_type": "FEATURE_EXTRACTION"} | own,
            families=(family,),
        )
        for kind, family, own in (
            ("pissa", "bert", {"rank_pattern": {"layer.1.attention.self.query": 3}}),
            ("pissa", "gpt2", {}),
            ("pissa", "llama", {"use_rslora": True, "target_modules": ["q_proj", "embed_tokens"]}),
            ("pissa", "t5", {"use_dora": True}),
            ("olora", "bert", {"target_modules": ["query", "output.dense"]}),
            ("olora", "llama", {"use_rslora": True, "target_modules": ["k_proj", "down_proj"]}),
            ("olora", "t5", {}),
        )
    ),
)

SPANS = "AutoModelForQuestionAnswering"
HEAD_CASES = (
    *(
        Case(
            f"{name}_spans",
            config,
            "with the head for questions among the saved modules",
            {"task_type": "QUESTION_ANS"} | own,
            task=SPANS,
            families=families,
        )
        for name, config, families, own in (
            # transformers finds nothing of a checkpoint of Llama in its class for questions
            ("lora", "LoraConfig", (*ENCODERS, "gpt2", "t5"), FACTORS),
            ("prefix", "PrefixTuningConfig", ENCODERS, {"num_virtual_tokens": 3}),
        )
    ),
    Case(
        "lora_choice",
        "LoraConfig",
        "a multiple choice, for which PEFT has no word: the class is named",
        FACTORS | {"modules_to_save": ["classifier"], "target_modules": ["query"]},
        task="AutoModelForMultipleChoice",
        families=("bert", "roberta", "xlm-roberta"),
    ),
)

SAVED_MAPS: dict[str, dict[str, tuple[str, ...]]] = {
    "saved_words": {
        **dict.fromkeys((*ENCODERS, "distilbert"), ("word_embeddings",)),
        "gpt2": ("wte",),
        **dict.fromkeys(("llama", *SEQ2SEQ), ("embed_tokens",)),
    },
    "saved_norms": {
        **dict.fromkeys(ENCODERS, ("LayerNorm",)),
        "gpt2": ("ln_1", "ln_f"),
        "llama": ("post_attention_layernorm", "model.norm"),
        "t5": ("layer_norm",),
    },
    "saved_maps": {
        **dict.fromkeys(
            ENCODERS,
            (
                "key",
                "output.dense",
            ),
        ),
        "gpt2": ("c_proj",),
        "llama": ("k_proj", "down_proj"),
        "t5": ("SelfAttention.k", "encoder.block.1.layer.1.DenseReluDense.wi"),
    },
}
"""Modules of the backbone that are saved whole."""


def _class(family: str, case: str) -> str | None:
    """That of language models, but where the norm of its head would be among the modules."""
    alone = case == "saved_norms" and family in ENCODERS
    return None if alone else LANGUAGE.get(family, (None, MASKED))[1]


SAVED_CASES = (
    *(
        Case(
            name,
            "LoraConfig",
            "modules of the backbone are saved whole",
            _of(family, 0) | {"modules_to_save": list(modules), "use_dora": name == "saved_maps"},
            task=_class(family, name),
            families=(family,),
        )
        for name, saved in SAVED_MAPS.items()
        for family, modules in saved.items()
    ),
    Case(
        "saved_pooler",
        "LoraConfig",
        "with the pooler in front of the classifier",
        FACTORS | {"modules_to_save": ["pooler"], "task_type": "SEQ_CLS"},
        task="AutoModelForSequenceClassification",
        families=BERT,
    ),
    Case(
        "lora_vocabulary_words",
        "LoraConfig",
        "embeddings and a vocabulary of its own",
        _of("llama", 0) | {"modules_to_save": ["embed_tokens", "lm_head"]},
        task="AutoModelForCausalLM",
        families=("llama",),
    ),
)

CASES = (*ENCODER_CASES, *DECODER_CASES, *WORD_CASES, *SAVED_CASES, *HEAD_CASES, *RAW_CASES)
