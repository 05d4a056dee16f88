"""Tiny backbones: one model a family, every weight random and none of them zero."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
)

if TYPE_CHECKING:
    from pathlib import Path

LAYERS = 3
VOCABULARY = 60
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": LAYERS,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
}
SPECIAL = {
    "bert": {"type_vocab_size": 2},
    "roberta": {"type_vocab_size": 1},
    "xlm-roberta": {"type_vocab_size": 1},
    # Narrower embeddings: the invertible adapter lives there, before the projection.
    "electra": {"type_vocab_size": 2, "embedding_size": 8},
}

MARKS = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1}
SHORT = {"max_position_embeddings": 40}
BART = {
    "d_model": 16,
    "encoder_layers": LAYERS,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 20,
    "decoder_start_token_id": 1,
    "forced_eos_token_id": None,
    **SHORT,
}
OTHERS = {
    "gpt2": {"n_embd": 16, "n_head": 2, "n_layer": LAYERS, "n_inner": 24, "n_positions": 40},
    "llama": {
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "num_hidden_layers": LAYERS,
        "intermediate_size": 24,
        "max_position_embeddings": 40,
    },
    "t5": {
        "d_model": 16,
        "d_kv": 6,
        "d_ff": 24,
        "num_heads": 2,
        "num_layers": LAYERS,
        "num_decoder_layers": 2,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 12,
        "decoder_start_token_id": 0,
    },
    "distilbert": {"dim": 16, "n_heads": 2, "n_layers": LAYERS, "hidden_dim": 24, **SHORT},
    "bart": BART,
    "mbart": {**BART, "scale_embedding": True},
}
"""Families that name their sizes otherwise."""
GATED = "t5-gated"
OTHERS[GATED] = OTHERS["t5"] | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
"""T5 1.1 and Flan-T5, whose type is that of T5: a gated feed-forward, a vocabulary of its own."""
TYPES = {GATED: "t5"}
STACKS = dict.fromkeys(("t5", GATED, "bart", "mbart"), (LAYERS, 2))
KINDS = {
    "gpt2": AutoModelForCausalLM,
    "llama": AutoModelForCausalLM,
    "distilbert": AutoModelForMaskedLM,
} | dict.fromkeys(STACKS, AutoModelForSeq2SeqLM)


def generator(*words: str) -> torch.Generator:
    """A stream of random numbers of its own for each thing that is made."""
    return torch.Generator().manual_seed(zlib.crc32("/".join(words).encode()))


def randomise(modules: dict[str, nn.Module], stream: torch.Generator, spread: float) -> None:
    """Norm weights around one, the other weights and all biases normal."""
    for _, module in sorted(modules.items()):
        for name, parameter in sorted(module.named_parameters(recurse=False)):
            noise = torch.randn(parameter.shape, generator=stream)
            if parameter.dim() == 1 and name == "weight":
                value = 1 + 0.3 * (2 * torch.rand(parameter.shape, generator=stream) - 1)
            else:
                value = (0.3 if name == "bias" else spread) * noise
            parameter.data.copy_(value)


def make_backbone(family: str, folder: Path) -> None:
    """Save the model with its LM head, and with the pooler that this class leaves out."""
    stream = generator(family, "backbone")
    if family in OTHERS:
        config = AutoConfig.for_model(TYPES.get(family, family), **MARKS, **OTHERS[family])
        model = KINDS[family].from_config(config)
        randomise(dict(model.named_modules()), stream, spread=0.2)
        model.tie_weights()
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        return
    config = AutoConfig.for_model(family, **COMMON, **SPECIAL[family])
    model = AutoModelForMaskedLM.from_config(config)
    if family != "electra":
        base = getattr(model, model.base_model_prefix)
        base.pooler = type(base)(config, add_pooling_layer=True).pooler
    randomise(dict(model.named_modules()), stream, spread=0.2)
    model.tie_weights()
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)


def make_batch(family: str, pad: int) -> dict[str, torch.Tensor]:
    """Three rows of different length, padded on the right."""
    stream = generator(family, "batch")
    lengths = torch.tensor([8, 5, 3])
    ids = torch.randint(5, VOCABULARY, (3, 8), generator=stream)
    mask = (torch.arange(8)[None] < lengths[:, None]).long()
    if family in STACKS:  # their classifiers read the last end mark
        ids[torch.arange(3), lengths - 1] = MARKS["eos_token_id"]
    return {"input_ids": torch.where(mask.bool(), ids, pad), "attention_mask": mask}
