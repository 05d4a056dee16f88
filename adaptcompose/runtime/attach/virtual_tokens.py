"""A base model that reads virtual tokens in addition to its caller's tokens.

It is called with placeholders for the virtual tokens and a longer mask. Shorter prompts are padded
in front. Heads see the virtual tokens, the caller sees his own.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.diagnostics.codes import AC517
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.methods.invertible import EMBEDDINGS_SITE
from adaptcompose.runtime.attach.sites import Wrapper, module_at, replace_module, stock_of
from adaptcompose.runtime.call_context import (
    ENCODER_POSITIONS,
    TOKEN_POSITIONS,
    CallContext,
    TokenPositions,
)
from adaptcompose.runtime.heads import IGNORED_LABEL
from adaptcompose.runtime.ops.primitives import PrimitiveModule
from adaptcompose.runtime.ops.tokens import (
    VIRTUAL_TOKENS,
    AlignedPooler,
    EmbeddingsWithVirtual,
    VirtualEmbedding,
    VirtualTokenBatch,
    gather_tokens,
    position_count,
    wrap_position_ids,
)

FIRST_STATE = "first_state"


def cached_token_count(given: Mapping[str, Any]) -> int:
    """The number of tokens in the cache of a call."""
    cache = given.get("past_key_values")
    return 0 if cache is None else int(cache.get_seq_length())


def token_mask(given: Mapping[str, Any]) -> Tensor | None:
    """The mask of real tokens, [rows, tokens], cached tokens included.

    None if the call has a mask of another form, which says nothing about padding.
    """
    mask = given.get("attention_mask")
    if mask is not None:
        return mask if isinstance(mask, Tensor) and mask.dim() == 2 else None
    ids, embeddings = given.get("input_ids"), given.get("inputs_embeds")
    tokens = embeddings[..., 0] if ids is None and embeddings is not None else ids
    if tokens is None:
        return None
    return tokens.new_ones(tokens.shape[0], cached_token_count(given) + tokens.shape[1])


class CacheAwareModel(Wrapper):
    """A model that counts tokens from the first one in its cache."""

    def __init__(self, stock: nn.Module, context: CallContext) -> None:
        super().__init__(stock)
        self.context = context
        self.names = tuple(inspect.signature(stock_of(stock).forward).parameters)

    @property
    def config(self) -> Any:
        """The stock model's configuration."""
        return self.stock.config

    @property
    def main_input_name(self) -> Any:
        """`generate` compares the encoder's with that of the whole model."""
        return self.stock.main_input_name

    def get_input_embeddings(self) -> Any:
        """A model with a head asks its base model for the token embeddings."""
        embeddings: Any = self.stock.get_input_embeddings  # of a class without types
        return embeddings()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        given = dict(zip(self.names, args, strict=False)) | kwargs
        return self.run_at(TokenPositions(cached_token_count(given)), **given)

    def run_at(self, positions: TokenPositions, **given: Any) -> Any:
        """Run the model on tokens at `positions`."""
        mask, has_cache = token_mask(given), cached_token_count(given) > 0
        self.context.shared[TOKEN_POSITIONS] = positions._replace(mask=mask, has_cache=has_cache)
        out = self.stock(**given)
        self.context.shared.pop(TOKEN_POSITIONS)
        return out


class ExtendedInput(CacheAwareModel):
    """A base model that reads virtual tokens in addition to its caller's tokens.

    It gives back the states of the caller's own, and of the first of each row. One that is `inside`
    a model with a head of its own gives back all, from the first of each row on, unless it is
    causal.
    """

    def __init__(
        self,
        stock: nn.Module,
        embedding: VirtualEmbedding,
        context: CallContext,
        first_position_id: int,
        max_positions: int,
        *,
        has_own_head: bool,
    ) -> None:
        super().__init__(stock, context)
        self.embedding = [embedding]  # it is registered where it stands
        self.first_position_id = first_position_id  # position id of the first token
        self.max_positions = max_positions
        self.has_own_head = has_own_head  # a model with a head of its own
        self.causal = any(getattr(module, "is_causal", False) for module in stock.modules())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        given = dict(zip(self.names, args, strict=False)) | kwargs
        first = cached_token_count(given)
        asked = given.get("input_ids")
        asked = given["inputs_embeds"] if asked is None else asked
        virtual = self.virtual_tokens(asked)
        self.context.shared[VIRTUAL_TOKENS] = virtual
        if virtual is None:
            return self.run_at(TokenPositions(first), **given)
        virtual.in_this_call = first == 0
        places = virtual.positions_from(first)
        more = self._mask_and_positions(given, virtual, first) | self._placeholders(given, virtual)
        out = self.run_at(places, **(given | more))
        return self._select_output(out, virtual) if virtual.in_this_call else out

    def _select_output(self, out: Any, virtual: VirtualTokenBatch) -> Any:
        states = out["last_hidden_state"]
        if self.has_own_head and not self.causal:
            virtual.starts_aligned = True
            out["last_hidden_state"] = virtual.align_starts(states)
        else:
            out["last_hidden_state"] = virtual.select_own(states)
            out[FIRST_STATE] = virtual.align_starts(states)[:, 0]
        return out

    def virtual_tokens(self, asked: Tensor) -> VirtualTokenBatch | None:
        """The virtual tokens of a call."""
        return self.embedding[0].virtual_tokens(asked.shape[0], asked.shape[1], asked.device)

    def _mask_and_positions(
        self, given: dict[str, Any], virtual: VirtualTokenBatch, first: int
    ) -> dict[str, Any]:
        """Mask and positions of the call's tokens; the caller handles those in a cache."""
        number = torch.arange(virtual.count, device=virtual.padding.device)
        real = number >= virtual.padding[:, None]
        mask, places = given.get("attention_mask"), given.get("position_ids")
        more: dict[str, Any] = {}
        if mask is not None:
            more["attention_mask"] = extend_mask(mask, virtual)
        elif virtual.is_ragged:
            own = virtual.own_positions.shape[1] + max(
                first - virtual.count, 0
            )  # those in a cache, too
            more["attention_mask"] = virtual.interleave(
                real, virtual.own_positions.new_ones(len(real), own)
            )
        if places is not None and not virtual.all_after_embeddings:
            virtual.counted_by_position_ids = True
            places = places.expand(real.shape[0], -1) + virtual.count
            front = (number + self.first_position_id).expand(real.shape[0], -1)
            # of places, whatever stands there
            joined = torch.cat([front.to(places.dtype), places], dim=1)
            more["position_ids"] = joined if virtual.in_this_call else places
        return more

    def _placeholders(self, given: dict[str, Any], virtual: VirtualTokenBatch) -> dict[str, Any]:
        """Placeholder ids: padding where a row has no token that takes a position."""
        if virtual.all_after_embeddings or not virtual.in_this_call:
            return {}
        more: dict[str, Any] = {}
        shape = (virtual.padding.shape[0], virtual.count)
        types, embeds = given.get("token_type_ids"), given.get("inputs_embeds")
        if types is not None:
            more["token_type_ids"] = virtual.interleave(types.new_zeros(shape), types)
        if embeds is not None:
            virtual.counted_by_position_ids = True
            more["inputs_embeds"] = virtual.interleave(virtual.embeddings, embeds)
        if (ids := given.get("input_ids")) is not None:
            padding = int(self.config.pad_token_id or 0)
            empty = torch.arange(virtual.count, device=ids.device) < virtual.padding[:, None]
            front = ids.new_full(shape, int(padding == 0))
            front = front.masked_fill(empty | virtual.after_embeddings[:, None], padding)
            more["input_ids"] = virtual.interleave(front, ids)
        self._check(virtual, more.get("input_ids"))
        return more

    def _check(self, virtual: VirtualTokenBatch, ids: Tensor | None) -> None:
        """Raise AC517 if the backbone has too few positions."""
        needed = virtual.count + virtual.own_positions.shape[1]
        if needed > self.max_positions and self.first_position_id and ids is not None:
            # there only what is no padding counts
            needed = int((ids != int(self.config.pad_token_id)).sum(dim=1).max())
        if needed > self.max_positions:
            raise Failed(AC517.at(needed=needed, most=self.max_positions))


def extend_mask(mask: Tensor, virtual: VirtualTokenBatch) -> Tensor:
    """Extend the caller's mask by columns for the virtual tokens."""
    real = torch.arange(virtual.count, device=mask.device) >= virtual.padding[:, None]
    return virtual.interleave(real, mask)


class ExtendedInputEncoder(ExtendedInput):
    """The encoder of an encoder-decoder: the decoder attends to its virtual tokens as well."""

    def _select_output(self, out: Any, virtual: VirtualTokenBatch) -> Any:
        return out


class ExtendedInputDecoder(CacheAwareModel):
    """A decoder whose encoder states are longer than the caller's mask."""

    def __init__(self, stock: nn.Module, embedding: VirtualEmbedding, context: CallContext) -> None:
        super().__init__(stock, context)
        self.embedding = [embedding]  # it is registered where it stands

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        given = dict(zip(self.names, args, strict=False)) | kwargs
        states, mask = given.get("encoder_hidden_states"), given.get("encoder_attention_mask")
        if states is not None:
            tokens = states.shape[1] if mask is None else mask.shape[1]
            virtual = self.embedding[0].virtual_tokens(states.shape[0], tokens, states.device)
            if virtual is not None and mask is not None:
                given["encoder_attention_mask"] = extend_mask(mask, virtual)
            elif virtual is not None and virtual.is_ragged:
                places = torch.arange(tokens, device=states.device)
                given["encoder_attention_mask"] = (places >= virtual.padding[:, None]).long()
            self.context.shared[ENCODER_POSITIONS] = (
                TokenPositions() if virtual is None else virtual.positions_from()
            )
        return super().forward(**given)


def extend_input(
    base: nn.Module, facts: Facts, context: CallContext, *, has_own_head: bool
) -> nn.Module:
    """Prepare an attached base model for virtual tokens and for tokens in a cache."""
    words = next(
        (module for module in base.modules() if isinstance(module, VirtualEmbedding)), None
    )
    if words is None:
        return track_cached_tokens(base, context)
    encoder = getattr(base, "encoder", None)
    if encoder is not None and hasattr(base, "decoder"):
        first, most = _positions(base, facts, context)
        longer = ExtendedInputEncoder(
            encoder, words, context, first, most, has_own_head=has_own_head
        )
        replace_module(base, "encoder", longer)
        replace_module(
            base, "decoder", ExtendedInputDecoder(module_at(base, "decoder"), words, context)
        )
        return base
    first, most = _positions(base, facts, context)
    if (
        facts.has(EMBEDDINGS_SITE.name)
        and facts.layout.sites[EMBEDDINGS_SITE.name].kind == "output"
    ):
        path = facts.layout.path(EMBEDDINGS_SITE)
        replace_module(base, path, EmbeddingsWithVirtual(module_at(base, path), context))
    pooler = facts.layout.pooler
    if pooler and getattr(base, pooler, None) is not None:
        replace_module(base, pooler, AlignedPooler(module_at(base, pooler), context))
    return ExtendedInput(base, words, context, first, most, has_own_head=has_own_head)


def _positions(base: nn.Module, facts: Facts, context: CallContext) -> tuple[int, int]:
    """The first position id and the number of positions; their readers become movable."""
    if not facts.has("positions"):
        return 0, sys.maxsize
    first_part = next(iter(facts.layers_by_part))
    moved = wrap_position_ids(base, facts.layout.path(Site("positions", None, first_part)), context)
    moved.has_virtual_tokens = True
    padding, rows = getattr(stock_of(moved), "padding_idx", None), position_count(moved)
    first = 0 if padding is None else int(padding) + 1
    return first, sys.maxsize if rows is None else rows - first


def track_cached_tokens(base: nn.Module, context: CallContext) -> nn.Module:
    """Track padding and cached tokens where a site needs to know them."""
    running = (module for module in base.modules() if isinstance(module, PrimitiveModule))
    if not any(module.counts_tokens for module in running):
        return base
    if not hasattr(base, "decoder"):
        return CacheAwareModel(base, context)
    for part in ("encoder", "decoder"):
        replace_module(base, part, CacheAwareModel(module_at(base, part), context))
    return base


def select_own_logits(context: CallContext, out: Any) -> Any:
    """Select the logits of the caller's tokens from a model with its own head."""
    virtual: VirtualTokenBatch | None = context.shared.get(VIRTUAL_TOKENS)
    logits = out.get("logits")
    if virtual is not None and virtual.starts_aligned and logits is not None and logits.dim() > 2:
        places = virtual.own_positions - virtual.padding[:, None]
        out["logits"] = gather_tokens(logits, places.expand(logits.shape[0], -1))
    return out


def extend_labels(body: nn.Module, labels: Tensor) -> Tensor:
    """Extend labels to the virtual tokens, which are ignored by the loss."""
    found = next((module for module in body.modules() if isinstance(module, ExtendedInput)), None)
    plain = found is None or found.causal or not found.has_own_head or labels.dim() != 2
    virtual = None if plain or found is None else found.virtual_tokens(labels)
    if virtual is None:
        return labels
    places = virtual.own_positions - virtual.padding[:, None]
    longer = labels.new_full((len(labels), labels.shape[1] + virtual.count), IGNORED_LABEL)
    return longer.scatter(1, places, labels)
