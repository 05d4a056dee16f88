"""What is compared with PEFT: one `Case` an adapter, as data without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

FAMILIES = ("bert", "roberta", "xlm-roberta", "electra")


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
    families: tuple[str, ...] = FAMILIES
    attended: bool = False  # compare attended tokens only


BERT = ("bert",)

CASES = (
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
        families=BERT,
    ),
    Case(
        "lora_biases",
        "LoraConfig",
        "the biases of the changed maps are trained, too",
        {"r": 2, "lora_alpha": 3, "bias": "lora_only"},
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
        families=BERT,
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
        families=BERT,
    ),
    Case("norms", "LNTuningConfig", "every LayerNorm", {"target_modules": ["LayerNorm"]}),
    Case(
        "norms_classifier",
        "LNTuningConfig",
        "the norms behind the feed-forward, and a classifier",
        {"target_modules": r".*\.\d\.output\.LayerNorm", "task_type": "SEQ_CLS"},
        task="AutoModelForSequenceClassification",
        families=BERT,
    ),
    *(
        Case(
            name,
            config,
            note,
            {"num_virtual_tokens": 3, "task_type": "SEQ_CLS", **options},
            task="AutoModelForSequenceClassification",
            families=families,
        )
        for name, config, note, options, families in (
            ("prefix", "PrefixTuningConfig", "keys and values of every layer", {}, FAMILIES),
            (
                "prefix_projection",
                "PrefixTuningConfig",
                "keys and values out of a network, which is not stored",
                {"prefix_projection": True, "encoder_hidden_size": 5},
                BERT,
            ),
            # ELECTRA's embeddings are narrower here, and PEFT makes prompts of the other width
            ("prompt", "PromptTuningConfig", "virtual tokens in front", {}, FAMILIES[:3]),
            (
                "ptuning",
                "PromptEncoderConfig",
                "virtual tokens out of an LSTM, which is not stored",
                {"encoder_hidden_size": 5, "encoder_reparameterization_type": "LSTM"},
                FAMILIES[:3],
            ),
        )
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
    Case(
        "prompt",
        "PromptTuningConfig",
        "virtual tokens at the first positions; PEFT counts positions on in RoBERTa's padding",
        {"num_virtual_tokens": 3, "task_type": "FEATURE_EXTRACTION"},
        families=("bert", "roberta", "xlm-roberta"),  # PEFT cannot with narrow embeddings
        attended=True,
    ),
    Case(
        "prompt_classifier",
        "PromptTuningConfig",
        "the classifier sees the first virtual token",
        {"num_virtual_tokens": 3, "task_type": "SEQ_CLS"},
        task="AutoModelForSequenceClassification",
        families=("bert", "roberta"),
    ),
    Case(
        "ptuning",
        "PromptEncoderConfig",
        "virtual tokens out of a network, which is not stored",
        {
            "num_virtual_tokens": 3,
            "encoder_reparameterization_type": "MLP",
            "encoder_hidden_size": 7,
            "task_type": "FEATURE_EXTRACTION",
        },
        families=BERT,
    ),
)
