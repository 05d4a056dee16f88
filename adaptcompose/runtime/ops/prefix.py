"""Prefixes: the stock attention with additional keys and values.

transformers lets a model name the function that computes its attention. The copy's attention
modules name `attend_with_prefix`, which prepends the virtual keys, extends the mask, and leaves the
rest to the backbone's own function. The context of a call reaches it as an argument.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.ir.prefix import KVPrefix
from adaptcompose.ir.primitives import Primitive
from adaptcompose.runtime.attach.sites import (
    SiteWrapper,
    attaches,
    module_at,
    replace_module,
    stock_of,
)
from adaptcompose.runtime.call_context import TOKEN_POSITIONS, CallContext, TokenPositions
from adaptcompose.runtime.ops.primitives import PrimitiveModule, implements, mean_over_tokens
from adaptcompose.runtime.ops.row_selection import BatchSelection, RowModules, pad_and_stack
from adaptcompose.runtime.parts import Parts

FUNCTION_NAME = "adaptcompose"
"""The name of `attend_with_prefix` in transformers' table of attention functions.

A configuration is written as JSON, so it can only name a function, and the table is global to the
process. Importing this module adds one entry. Its function has no state: everything about a call
is an argument, see `PrefixedAttention.forward`.
"""
_TENSOR_MASK_FUNCTIONS = (
    "eager",
    "sdpa",
    "flash_attention_2",
    "flash_attention_3",
    FUNCTION_NAME,
    None,
)
"""Ways to compute attention whose masks are tensors; others are not used beside a prefix."""


@implements(KVPrefix)
class KVPrefixModule(PrimitiveModule):
    def __init__(self, node: KVPrefix, parts: Parts) -> None:
        super().__init__()
        self.node = node
        self.weights = parts.weights(node)
        self.dropout = nn.Dropout(node.dropout)

    def read(self) -> tuple[Tensor, Tensor]:
        """Keys and values, [length, heads, size]."""
        weights, node = self.weights.read(), self.node
        shape = (node.length, node.heads, node.head_size)
        key, value = weights["key"].view(shape), weights["value"].view(shape)
        return self.dropout(key), self.dropout(value)

    def gate_values(self, x: Tensor, own: Tensor | None) -> Tensor:
        """What keys and values of each row are multiplied by, [rows, length, 2]."""
        if not self.node.gate_count:
            return x.new_ones(x.shape[0], self.node.length, 2)
        weights = self.weights.read()
        weight, bias = weights["gate.weight"], weights["gate.bias"]
        scores = nn.functional.linear(x.to(weight.dtype), weight, bias)
        gates = mean_over_tokens(torch.sigmoid(scores), own).repeat_interleave(
            2 // self.node.gate_count, dim=2
        )
        return gates.expand(-1, self.node.length, -1)


class AttentionPrefix(NamedTuple):
    """Prefix keys and values [rows, heads, length, size], and a mask of those that a row has.

    `stock` is the name of the attention function that the backbone uses; `bias` gives scores by
    relative positions for so many queries at the end of so many keys, where the backbone has some.
    """

    function_name: str
    key: Tensor | None = None
    value: Tensor | None = None
    visible: Tensor | None = None
    bias: Callable[[int, int], Tensor] | None = None


class PrefixedAttention(SiteWrapper):
    """A module that computes attention, with virtual keys and values in front of its own."""

    def __init__(
        self,
        stock: nn.Module,
        node: Primitive,
        adapter: PrimitiveModule,
        context: CallContext,
        table: Callable[..., Tensor] | None = None,
    ) -> None:
        super().__init__(stock, adapter, context)
        self.pieces = RowModules(node, adapter, KVPrefixModule)
        self.table = table
        inner: Any = stock_of(stock)
        self.function_name = str(inner.config._attn_implementation)
        inner.config = copy.copy(inner.config)
        inner.config._attn_implementation = FUNCTION_NAME

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        x: Tensor = args[0] if args else kwargs["hidden_states"]
        chosen = self.pieces.select(self.context, x.shape[0], x.device)
        own = self.context.shared.get(TOKEN_POSITIONS, TokenPositions()).own_mask(x.shape[1])
        prefix = (
            join_prefixes(chosen, x, own, self.function_name)
            if chosen
            else AttentionPrefix(self.function_name)
        )
        if chosen and self.table is not None:
            prefix = prefix._replace(bias=partial(relative_bias, self.table, chosen, own))
        # Attention modules hand keyword arguments that they do not know to the function that they
        # name: transformers' contract for functions of one's own. An attribute of the module would
        # be left behind by one call for the next, and a layer computed again in the backward pass
        # would find that of another.
        return self.stock(*args, **kwargs, prefix=prefix)


@attaches("attention")
def attach_attention(
    base: nn.Module,
    site: Site,
    facts: Facts,
    node: Primitive,
    adapter: PrimitiveModule,
    context: CallContext,
) -> None:
    """Wrap the module that computes attention."""
    for module in base.modules():
        config: Any = getattr(module, "config", None)
        if getattr(config, "_attn_implementation", None) not in _TENSOR_MASK_FUNCTIONS:
            config._attn_implementation = "sdpa"  # the copy's own
    path = facts.layout.path(site)
    first: Any = stock_of(module_at(base, facts.layout.path(replace(site, layer=0))))
    # the lowest layer of T5 has the scores by relative positions for all layers
    scored = getattr(first, "has_relative_attention_bias", False)
    table = first.compute_bias if scored else None
    stock = module_at(base, path)
    replace_module(base, path, PrefixedAttention(stock, node, adapter, context, table))


def relative_bias(
    table: Callable[..., Tensor],
    chosen: BatchSelection[KVPrefixModule],
    own: Tensor | None,
    queries: int,
    keys: int,
) -> Tensor:
    """Scores by relative positions, [1 or rows, heads, queries, virtual and other keys].

    Virtual keys have the first positions and move the others' keys. Queries move with them where
    the node says so; AdapterHub's prefixes were trained with queries that do not.
    """
    lengths = [sum(piece.node.length for piece in pieces) for pieces in chosen.compositions]
    moves = [
        sum(p.node.length for p in pieces if p.node.shifts_queries)
        for pieces in chosen.compositions
    ]
    longest = max(lengths)
    device = chosen.index.device
    alike = len(set(lengths)) == len(set(moves)) == 1 and own is None
    counts = chosen.per_row(lengths)[: 1 if alike else None]
    moved = chosen.per_row(moves)[: 1 if alike else None]
    places = torch.arange(longest + keys, device=device) - (longest - counts)[:, None]
    asking = torch.arange(keys - queries, keys, device=device) + moved[:, None]
    if own is not None:  # shorter prompts are padded in front
        gaps = (~own).sum(dim=1, keepdim=True)
        places[:, longest:] -= gaps
        asking = asking - gaps
    furthest = longest + keys
    all_scores = table(1, 2 * furthest, device=device, past_seen_tokens=furthest)[0, :, 0]
    index = places[:, None] - asking[:, :, None] + furthest
    return all_scores[:, index].transpose(0, 1)


def join_prefixes(
    chosen: BatchSelection[KVPrefixModule], x: Tensor, own: Tensor | None, function_name: str
) -> AttentionPrefix:
    """Join the prefixes of all rows, padding shorter ones in front."""
    found = [[piece.read() for piece in pieces] for pieces in chosen.compositions]
    empty = next(pair for pairs in found for pair in pairs)
    none = [empty[0][:0], empty[1][:0]]
    joined = [
        [torch.cat(parts) for parts in zip(*pairs, strict=True)] if pairs else none
        for pairs in found
    ]
    lengths = [len(key) for key, _ in joined]
    key = pad_and_stack([key for key, _ in joined])[chosen.index]
    value = pad_and_stack([value for _, value in joined])[chosen.index]
    if any(piece.node.gate_count for pieces in chosen.compositions for piece in pieces):
        gates = _gates(chosen, x, own, max(lengths))
        key, value = key * gates[..., :1, None], value * gates[..., 1:, None]
    visible = None
    if len(set(lengths)) > 1:
        own = chosen.per_row(lengths)[:, None]
        visible = torch.arange(max(lengths), device=x.device) >= max(lengths) - own
    return AttentionPrefix(function_name, key.transpose(1, 2), value.transpose(1, 2), visible)


def _gates(
    chosen: BatchSelection[KVPrefixModule], x: Tensor, own: Tensor | None, longest: int
) -> Tensor:
    """The gates of all rows, [rows, longest, 2]; 1 where a row has none."""
    blocks = []
    for pieces, rows in chosen.modules_and_rows():
        here, places = x[rows], None if own is None else own[rows]
        gates = [piece.gate_values(here, places) for piece in pieces]
        gap = longest - sum(gate.shape[1] for gate in gates)
        blocks.append(torch.cat([here.new_ones(here.shape[0], gap, 2), *gates], dim=1))
    return chosen.restore_order(blocks)


def attend_with_prefix(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    prefix: AttentionPrefix,
    **kwargs: Any,
) -> Any:
    """Attention over [P_k; K] and [P_v; V], by the function that `prefix` names.

    `kwargs` are that function's own, whose names differ from family to family and from release to
    release: `scaling`, `dropout`, `is_causal`, `position_bias`, …
    """
    stock: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS.get_interface(
        prefix.function_name, _eager_attention(module)
    )
    if prefix.key is not None and prefix.value is not None:
        causal = kwargs.get("is_causal")
        causal = getattr(module, "is_causal", True) if causal is None else causal
        attention_mask = _extend_mask(attention_mask, prefix, query, key, causal=bool(causal))
        key = torch.cat([prefix.key.to(key.dtype), key], dim=2)
        value = torch.cat([prefix.value.to(value.dtype), value], dim=2)
        bias, longest = kwargs.get("position_bias"), prefix.key.shape[2]
        if bias is not None and prefix.bias is not None:
            kwargs["position_bias"] = prefix.bias(query.shape[2], key.shape[2] - longest)
        elif bias is not None:
            kwargs["position_bias"] = nn.functional.pad(bias, (longest, 0))
    return stock(module, query, key, value, attention_mask, **kwargs)


ALL_ATTENTION_FUNCTIONS.register(FUNCTION_NAME, attend_with_prefix)


def _eager_attention(module: nn.Module) -> Callable[..., Any]:
    """The family's eager attention, which transformers uses where no other function is named."""
    function: Callable[..., Any] = sys.modules[type(module).__module__].eager_attention_forward
    return function


def _extend_mask(
    mask: Tensor | None, prefix: AttentionPrefix, query: Tensor, key: Tensor, *, causal: bool
) -> Tensor | None:
    """Add mask columns for the virtual keys; create the mask where the stock function infers it."""
    assert prefix.key is not None
    rows, _, length, _ = prefix.key.shape
    visible = prefix.visible
    if mask is None:
        asked, given = query.shape[2], key.shape[2]
        if visible is None and (not causal or asked == 1):
            return None
        mask = torch.ones(1, 1, asked, given, dtype=torch.bool, device=query.device)
        if causal and asked > 1:
            # behind an empty StaticCache, sdpa's own mask starts at the first key
            mask = mask.tril(0 if prefix.function_name == "sdpa" else given - asked)
        if prefix.function_name == "eager":
            mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, _least(query.dtype))
    if visible is None:
        visible = torch.ones(rows, length, dtype=torch.bool, device=mask.device)
    if mask.dim() == 2:
        return torch.cat([visible.to(mask.dtype), mask], dim=1)
    front = visible[:, None, None, :].expand(rows, mask.shape[1], mask.shape[2], length)
    if mask.dtype != torch.bool:
        front = torch.zeros_like(front, dtype=mask.dtype).masked_fill(~front, _least(mask.dtype))
    return torch.cat([front, mask.expand(rows, -1, -1, -1)], dim=3)


def _least(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).min
