"""Tiny backbones and compositions in which every weight is random and none is zero."""

from __future__ import annotations

import functools
import zlib
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoConfig, PreTrainedModel

from adaptcompose.runtime.compose import compose
from adaptcompose.runtime.model import ComposedModel

LAYERS, WIDTH, VOCABULARY, LENGTH = 3, 12, 40, 6

SPECIAL: dict[str, dict[str, Any]] = {
    "bert": {"type_vocab_size": 2},
    "roberta": {"type_vocab_size": 1},
    "xlm-roberta": {"type_vocab_size": 1},
    "camembert": {"type_vocab_size": 1},
    "electra": {"type_vocab_size": 2, "embedding_size": 7},  # narrower, and odd
}
BART: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": WIDTH,
    "encoder_layers": LAYERS,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "max_position_embeddings": 24,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "decoder_start_token_id": 2,
}
OTHERS: dict[str, dict[str, Any]] = {
    "gpt2": {
        "vocab_size": VOCABULARY,
        "n_embd": WIDTH,
        "n_head": 2,
        "n_layer": LAYERS,
        "n_inner": 16,
        "n_positions": 24,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "attn_pdrop": 0.0,
    },
    "llama": {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 4,  # so that queries are wider than states
        "num_hidden_layers": LAYERS,
        "intermediate_size": 16,
        "max_position_embeddings": 24,
    },
    "t5": {
        "vocab_size": VOCABULARY,
        "d_model": WIDTH,
        "d_kv": 4,
        "d_ff": 16,
        "num_heads": 2,
        "num_layers": LAYERS,
        "num_decoder_layers": 2,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 8,
        "dropout_rate": 0.0,
        "decoder_start_token_id": 0,
    },
    "distilbert": {
        "vocab_size": VOCABULARY,
        "dim": WIDTH,
        "n_heads": 2,
        "n_layers": LAYERS,
        "hidden_dim": 16,
        "max_position_embeddings": 24,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "seq_classif_dropout": 0.0,
    },
    "bart": BART | {"encoder_attention_heads": 3},  # another number than the decoder has
    "mbart": BART | {"scale_embedding": True},
}
"""Families that name their sizes otherwise."""
ENCODERS = (*SPECIAL, "distilbert")
LEFT_TO_RIGHT = ("gpt2", "llama")
ENCODER_DECODERS = ("t5", "bart", "mbart")
GENERATING = dict.fromkeys(LEFT_TO_RIGHT, "AutoModelForCausalLM") | dict.fromkeys(
    ENCODER_DECODERS, "AutoModelForSeq2SeqLM"
)
"""Families that generate, and their classes with a language-model head."""
MARKS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def config(family: str = "bert", **changes: Any) -> Any:
    if family in OTHERS:
        return AutoConfig.for_model(family, **(OTHERS[family] | MARKS | changes))
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "num_attention_heads": 2,
        "num_hidden_layers": LAYERS,
        "intermediate_size": 16,
        "max_position_embeddings": 24,
        "pad_token_id": 0,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    return AutoConfig.for_model(family, **(sizes | SPECIAL[family] | changes))


def stream(*words: object) -> torch.Generator:
    """A stream of random numbers of its own for everything that has a name."""
    return torch.Generator().manual_seed(zlib.crc32("/".join(map(str, words)).encode()))


def fill(parameter: torch.Tensor, name: str, *words: object) -> None:
    """Norm weights and scales around one, the rest normal; of the order of trained weights."""
    noise = torch.randn(parameter.shape, generator=stream(name, *words), dtype=torch.float64)
    around_one = parameter.dim() == 1 and not name.endswith("bias")
    values = 1 + 0.3 * torch.tanh(noise) if around_one else 0.3 * noise
    with torch.no_grad():
        parameter.copy_(values.to(parameter.dtype))


def make_backbone(
    family: str = "bert", kind: str = "AutoModel", seed: int = 0, **changes: Any
) -> PreTrainedModel:
    """A model of transformers with random weights, in eval mode."""
    cls = getattr(transformers, kind)
    model: PreTrainedModel = cls.from_config(config(family, **changes))
    for name, parameter in model.named_parameters():
        # the base model has the same weights under every head
        fill(parameter, name.removeprefix(f"{model.base_model_prefix}."), family, seed)
    return model.eval()


@functools.cache
def backbone(family: str = "bert", kind: str = "AutoModel", seed: int = 0) -> PreTrainedModel:
    """The same, in float64 and shared: nothing changes a backbone."""
    return make_backbone(family, kind, seed).double()


def batch(*, pad: bool = True, seed: int = 0, rows: int = 3) -> dict[str, torch.Tensor]:
    """Rows of different length, padded on the right."""
    ids = torch.randint(3, VOCABULARY, (rows, LENGTH), generator=stream("batch", seed))
    lengths = torch.tensor([LENGTH - (2 * row) % LENGTH if pad else LENGTH for row in range(rows)])
    mask = (torch.arange(LENGTH)[None] < lengths[:, None]).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


def randomise(model: ComposedModel, seed: int = 0) -> ComposedModel:
    """Parts get random weights that depend on their names alone: equal names, equal weights."""
    for name, part in model.parts.items():
        for site in part.sites:
            for tensor, parameter in part[site].items():
                fill(parameter, tensor, name, site, seed)
    if model.head is not None:
        for name, parameter in model.head.slots.named_parameters():
            fill(parameter, name, "head", seed)
    return model


def composed(
    text: str, model: PreTrainedModel | None = None, seed: int = 0, **options: Any
) -> ComposedModel:
    """`text` over a tiny backbone, its new parts with random weights."""
    options.setdefault("head", None)
    return randomise(compose(text, backbone() if model is None else model, **options), seed)


def hidden(model: nn.Module, **inputs: torch.Tensor) -> torch.Tensor:
    """The last hidden state for the usual batch; transformers' T5 reads it one place later."""
    given = batch() | inputs
    if isinstance(model, PreTrainedModel) and model.config.model_type == "t5":
        ids = given["input_ids"]
        later = torch.cat([torch.zeros_like(ids[:, :1]), ids[:, :-1]], dim=1)
        given.setdefault("decoder_input_ids", later)
    with torch.no_grad():
        out: torch.Tensor = model(**given).last_hidden_state
    return out


def generated(
    model: ComposedModel, given: dict[str, torch.Tensor], steps: int = 4, **more: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids with so many new ones, the likeliest each time, and the logits behind each of these."""
    made = model.generate(
        **given,
        max_new_tokens=steps,
        min_new_tokens=steps,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
        **more,
    )
    return made.sequences, torch.stack(made.logits, dim=1).double()


def distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """The largest difference, relative to the largest value."""
    assert first.shape == second.shape
    first, second = first.detach(), second.detach()
    return float((first - second).abs().max() / second.abs().max())
