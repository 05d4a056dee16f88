"""Read and write PEFT's files of virtual tokens: prefix tuning, prompt tuning, P-tuning.

Each file has one tensor: for a prefix the keys and values of all layers side by side, otherwise the
embeddings. The networks that produced them in training are not stored. The positions of the other
tokens are shifted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.methods import Method
from adaptcompose.methods.method import PackedSlice
from adaptcompose.methods.prefix import KINDS as NAMES
from adaptcompose.methods.prefix import Prefix, key_value_heads
from adaptcompose.methods.prompt import TOKENS_SITE, Prompt

if TYPE_CHECKING:
    import torch

KEY = "prompt_embeddings"
KINDS = ("PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING")
KNOWN_KEYS = (
    "num_virtual_tokens",
    "token_dim",
    "num_transformer_submodules",
    "num_attention_heads",
    "num_layers",
    "encoder_hidden_size",
    "prefix_projection",
    "prompt_tuning_init",
    "prompt_tuning_init_text",
    "tokenizer_name_or_path",
    "tokenizer_kwargs",
    "encoder_reparameterization_type",
    "encoder_num_layers",
    "encoder_dropout",
)
"""The keys that are read, and those without an effect on a trained adapter."""

Places = Mapping[tuple[Site, str], PackedSlice | None]


def read_method(
    config: Mapping[str, Any], facts: Facts, shape: tuple[int, ...]
) -> tuple[Method, Places]:
    """The method of a file with a tensor of this shape, and the places of our tensors in it."""
    count = config.get("num_transformer_submodules") or 1
    if count not in (1, len(facts.layers_by_part)):
        raise ValueError(f"num_transformer_submodules must be at most {len(facts.layers_by_part)}")
    if len(shape) != 2 or not shape[0]:
        raise ValueError(f"{KEY} must have two dimensions, not {shape}")
    if str(config.get("peft_type")).rpartition(".")[2].upper() != "PREFIX_TUNING":
        if shape[0] % count:
            raise ValueError(f"{KEY} must have {count} rows for each virtual token")
        # PEFT also stores tokens for the decoder but uses only those of the encoder
        first = PackedSlice(0, count, 0, shape) if count > 1 else None
        method = Prompt(length=shape[0] // count, positions="shifted")
        return method, {(TOKENS_SITE, "embedding"): first}
    prefix = Prefix(length=shape[0], flat=True, positions="shifted")
    if len(facts.layers_by_part) > 1:
        return _of_decoder(config, prefix, facts)
    return prefix, places(prefix, facts)


def _of_decoder(config: Mapping[str, Any], prefix: Prefix, facts: Facts) -> tuple[Method, Places]:
    """A prefix in an encoder-decoder, where PEFT uses it only in the decoder's self-attention.

    The tensor has pairs of keys and values for as many layers as the encoder has. PEFT assigns two
    pairs to each layer, for self-attention and cross-attention, but never uses the second. So layer
    i uses pair 2i modulo the number of pairs.
    """
    if config.get("num_transformer_submodules") != len(facts.layers_by_part):
        raise ValueError(f"num_transformer_submodules must be {len(facts.layers_by_part)}")
    own = replace(prefix, encoder=False, cross=False)
    sites, heads, size = own.attention_sites(facts), *key_value_heads(facts, "decoder")
    pairs = config.get("num_layers")
    if type(pairs) is not int or pairs < len(sites):
        raise ValueError(f"num_layers must be a whole number, at least {len(sites)}")
    whole = (own.length, 2 * pairs * heads * size)
    return own, {
        (site, name): PackedSlice(2 * (2 * layer % pairs) + kind, 2 * pairs, 1, whole)
        for layer, site in enumerate(sites)
        for kind, name in enumerate(NAMES)
    }


def places(method: Prefix, facts: Facts) -> dict[tuple[Site, str], PackedSlice]:
    """The places of the keys and values of every layer in the tensor."""
    heads, size = key_value_heads(facts)
    sites = method.attention_sites(facts)
    count = 2 * len(sites)
    whole = (method.length, count * heads * size)
    numbered = enumerate((site, name) for site in sites for name in NAMES)
    return {place: PackedSlice(index, count, 1, whole) for index, place in numbered}


def can_write(method: Method, facts: Facts) -> bool:
    """Whether PEFT can store a method with these settings."""
    if isinstance(method, Prefix):
        # in an encoder-decoder, PEFT uses the keys of some layers in others
        is_plain = method.flat and not method.gate and not method.leave_out
        is_plain &= len(facts.layers_by_part) == 1
        return is_plain and method.positions == "shifted"
    return type(method) is Prompt and method.positions == "shifted" and not method.after_first


def to_file(
    method: Method, weights: Mapping[tuple[Site, str], torch.Tensor], facts: Facts
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The settings and the tensors that PEFT's two files have for a method."""
    heads, _ = key_value_heads(facts)
    config: dict[str, Any] = {
        "num_attention_heads": heads,
        "num_layers": facts.layers,
        "num_transformer_submodules": 1,
    }
    if isinstance(method, Prefix):
        slices = places(method, facts)
        whole = next(iter(slices.values())).pack([weights[place] for place in slices])
        config |= {"peft_type": "PREFIX_TUNING", "prefix_projection": False}
        config |= {"token_dim": facts.width, "encoder_hidden_size": facts.width}
    else:
        whole = weights[TOKENS_SITE, "embedding"]
        config |= {"peft_type": "PROMPT_TUNING", "prompt_tuning_init": "RANDOM"}
        config |= {"token_dim": whole.shape[1]}
    return config | {"num_virtual_tokens": len(whole)}, {KEY: whole}
