"""Virtual tokens: what each module needs to know about a longer input.

`VirtualEmbedding` replaces placeholders by learned vectors at the token embeddings, and
`EmbeddingsWithVirtual` joins them after the embeddings. Position ids are shifted where they would
count tokens that are not there.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.diagnostics.codes import AC517
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.ir.prefix import PositionShift
from adaptcompose.ir.primitives import Primitive
from adaptcompose.ir.tokens import VirtualTokens
from adaptcompose.runtime.attach.sites import (
    SiteWrapper,
    Wrapper,
    attaches,
    module_at,
    replace_module,
    stock_of,
)
from adaptcompose.runtime.call_context import CallContext, TokenPositions
from adaptcompose.runtime.ops.primitives import PrimitiveModule, implements
from adaptcompose.runtime.ops.row_selection import BatchSelection, RowModules, pad_and_stack
from adaptcompose.runtime.parts import Parts

VIRTUAL_TOKENS = "virtual tokens"


@implements(VirtualTokens)
class VirtualTokensModule(PrimitiveModule):
    def __init__(self, node: VirtualTokens, parts: Parts) -> None:
        super().__init__()
        self.node = node
        self.weights = parts.weights(node)

    def read(self) -> Tensor:
        """The embeddings, [length, width]."""
        return self.weights.read()["embedding"]


@implements(PositionShift)
class PositionShiftModule(PrimitiveModule):
    def __init__(self, node: PositionShift, parts: Parts) -> None:
        super().__init__()
        self.node = node


def virtual_token_order(pieces: tuple[VirtualTokensModule, ...]) -> list[int]:
    """A row's virtual tokens by number, and −1 where its first own token stands.

    Each piece joins what the one before it in the chain has left, in front of it or behind its
    first token, which is a virtual one where there are such in front.
    """
    order, number = [-1], sum(piece.node.length for piece in pieces)
    for piece in reversed(pieces):  # the first of a chain is the last of the pieces
        number -= piece.node.length
        new = list(range(number, number + piece.node.length))
        order = [order[0], *new, *order[1:]] if piece.node.after_first else new + order
    return order


@dataclass
class VirtualTokenBatch:
    """The virtual tokens of one call: `count` in each row, `padding` of which are padding.

    `front` says which entry of [virtual, own] stands at each place up to that of the first own one,
    if not each at its own, and `places` where a row's own tokens stand. `kept` rows have theirs
    behind the embeddings, and if it is `behind`, all have. `is_ragged`: not all rows have equally
    many. `counted`: position ids do not tell padding from tokens. `joined`: they are in this call,
    not in a cache. `turned`: rows begin with their first token in what the base model gave back.
    """

    embeddings: Tensor
    padding: Tensor
    after_embeddings: Tensor
    interleaving: Tensor | None
    own_positions: Tensor
    is_ragged: bool
    all_after_embeddings: bool
    counted_by_position_ids: bool = False
    in_this_call: bool = True
    starts_aligned: bool = False

    @property
    def count(self) -> int:
        return self.embeddings.shape[1]

    def interleave(self, virtual: Tensor, own: Tensor) -> Tensor:
        """Order [virtual, own] as the input has them; [rows, tokens] or with a width."""
        both = torch.cat([virtual.to(own.dtype), own], dim=1)
        if self.interleaving is None:
            return both
        return torch.cat([gather_tokens(both, self.interleaving), both[:, self.count + 1 :]], dim=1)

    def positions_from(self, first: int = 0) -> TokenPositions:
        """The positions of a call's tokens, of which the first has this number."""
        return TokenPositions(first, self.padding if self.is_ragged else None)

    def select_own(self, states: Tensor) -> Tensor:
        """Select the caller's own tokens from a per-token result."""
        return gather_tokens(states, self.own_positions.expand(states.shape[0], -1))

    def align_starts(self, states: Tensor) -> Tensor:
        """Move the padding of shorter prompts to the end of their rows."""
        if not self.is_ragged:
            return states
        length = states.shape[1]
        turned = torch.arange(length, device=states.device) + self.padding[:, None]
        return gather_tokens(states, (turned % length).expand(states.shape[0], -1))

    @property
    def position_shifts(self) -> Tensor:
        """How far positions move if all virtual tokens are counted."""
        return -torch.where(
            self.after_embeddings, torch.full_like(self.padding, self.count), self.padding
        )


def gather_tokens(values: Tensor, index: Tensor) -> Tensor:
    if values.dim() == 2:
        return values.gather(1, index)
    return values.gather(1, index.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


class VirtualEmbedding(SiteWrapper):
    """Token embeddings with learned vectors at the placeholders."""

    def __init__(
        self, stock: nn.Module, node: Primitive, adapter: PrimitiveModule, context: CallContext
    ) -> None:
        super().__init__(stock, adapter, context)
        self.pieces = RowModules(node, adapter, VirtualTokensModule)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        out: Tensor = self.stock(*args, **kwargs)
        virtual = self.context.shared.get(VIRTUAL_TOKENS)
        if virtual is None or virtual.all_after_embeddings or not virtual.in_this_call:
            return out
        return cast(Tensor, virtual.interleave(virtual.embeddings, virtual.select_own(out)))

    def virtual_tokens(
        self, rows: int, tokens: int, device: torch.device
    ) -> VirtualTokenBatch | None:
        """The virtual tokens of a call, or None if no row has any."""
        chosen = self.pieces.select(self.context, rows, device)
        if not chosen:
            return None
        orders = [virtual_token_order(pieces) for pieces in chosen.compositions]
        count = max(map(len, orders)) - 1
        plain = list(range(count + 1))
        fronts, places = [], []
        for order in orders:
            gap = count + 1 - len(order)
            first = [gap + number if number >= 0 else count for number in order]
            fronts.append([*range(gap), *first])
            places.append(order.index(-1) + gap)
        front = torch.tensor(fronts, device=device)[chosen.index]
        own = torch.arange(count, count + tokens, device=device).repeat(rows, 1)
        own[:, 0] = chosen.per_row(places)
        kept = [all(p.node.positions == "kept" for p in ps) for ps in chosen.compositions]
        lengths = {len(order) for order in orders}
        return VirtualTokenBatch(
            embeddings=self._embeddings(chosen),
            padding=chosen.per_row([count + 1 - len(order) for order in orders]),
            after_embeddings=chosen.per_row(kept),
            interleaving=None if all(order == plain for order in fronts) else front,
            own_positions=own,
            is_ragged=len(lengths) > 1,
            all_after_embeddings=all(kept),
        )

    @staticmethod
    def _embeddings(chosen: BatchSelection[VirtualTokensModule]) -> Tensor:
        read = [[piece.read() for piece in pieces] for pieces in chosen.compositions]
        empty = next(tensor for tensors in read for tensor in tensors)[:0]
        return pad_and_stack([torch.cat([empty, *tensors]) for tensors in read])[chosen.index]


class EmbeddingsWithVirtual(Wrapper):
    """The embeddings, with virtual tokens that join after them."""

    def __init__(self, stock: nn.Module, context: CallContext) -> None:
        super().__init__(stock)
        self.context = context

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        out: Tensor = self.stock(*args, **kwargs)
        virtual: VirtualTokenBatch | None = self.context.shared.get(VIRTUAL_TOKENS)
        if virtual is None or not virtual.in_this_call:
            return out
        if virtual.all_after_embeddings:
            return virtual.interleave(virtual.embeddings, out)
        joined = virtual.interleave(virtual.embeddings, virtual.select_own(out))
        return torch.where(virtual.after_embeddings[:, None, None], joined, out)


class ShiftedPositions(Wrapper):
    """What reads position ids, given others; `longer` if there are virtual tokens among its own."""

    def __init__(self, stock: nn.Module, context: CallContext) -> None:
        super().__init__(stock)
        self.context = context
        self.has_virtual_tokens = False
        self.shifts: RowModules[PositionShiftModule] | None = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        args = tuple(self._shift_ids(value) for value in args)
        return self.stock(*args, **{name: self._shift_ids(value) for name, value in kwargs.items()})

    def _shift_ids(self, ids: Any) -> Any:
        if not isinstance(ids, Tensor) or ids.is_floating_point():
            return ids
        padding = getattr(stock_of(self), "padding_idx", None)
        first = 0 if padding is None else padding + 1
        moved, by = ids, 0
        virtual: VirtualTokenBatch | None = (
            self.context.shared.get(VIRTUAL_TOKENS) if self.has_virtual_tokens else None
        )
        if (
            virtual is not None
            and not virtual.all_after_embeddings
            and (padding is None or virtual.counted_by_position_ids)
        ):
            moved = (moved + virtual.position_shifts[:, None]).clamp(min=first)
        if self.shifts is not None:
            rows = max(len(moved), len(self.context.members))
            chosen = self.shifts.select(self.context, rows, ids.device)
            totals = [sum(p.node.offset for p in pieces) for pieces in chosen.compositions]
            moved, by = moved + chosen.per_row(totals)[:, None], max(totals)
        moved = moved if padding is None else torch.where(ids == padding, ids, moved)
        self._check(moved, first + ids.shape[-1] + by)
        return moved

    def _check(self, ids: Tensor, highest: int) -> None:
        """AC517 where there are no such positions; `highest` is the most that they can be."""
        most = position_count(self)
        if most is not None and highest > most and (needed := int(ids.max()) + 1) > most:
            raise Failed(AC517.at(needed=needed, most=most))


class ShiftedPositionTable(ShiftedPositions):
    """A position table that counts tokens itself, given other positions for each row."""

    def forward(
        self, tokens: Tensor | None, past: int = 0, position_ids: Tensor | None = None
    ) -> Tensor:
        if position_ids is None:
            assert tokens is not None
            position_ids = torch.arange(past, past + tokens.shape[1], device=tokens.device)
        rows, count = 1 if tokens is None else tokens.shape[0], position_ids.shape[0]
        ids: Tensor = self._shift_ids(position_ids.expand(rows, -1))
        found: Tensor = self.stock(tokens, position_ids=ids.flatten())  # as one long row
        return found.view(-1, count, found.shape[-1])


def position_count(module: nn.Module) -> int | None:
    """The number of positions of a table, padding entries included."""
    stock = stock_of(module)
    rows = getattr(stock, "num_embeddings", None)
    return None if rows is None else int(rows) - int(getattr(stock, "offset", 0))


class AlignedPooler(Wrapper):
    """A pooler that reads the first real token of every row."""

    def __init__(self, stock: nn.Module, context: CallContext) -> None:
        super().__init__(stock)
        self.context = context

    def forward(self, states: Tensor) -> Tensor:
        virtual: VirtualTokenBatch | None = self.context.shared.get(VIRTUAL_TOKENS)
        return cast(Tensor, self.stock(states if virtual is None else virtual.align_starts(states)))


@attaches("tokens")
def attach_tokens(
    base: nn.Module,
    site: Site,
    facts: Facts,
    node: Primitive,
    adapter: PrimitiveModule,
    context: CallContext,
) -> None:
    """Wrap the token embeddings; `extend_input` does the rest once all sites are attached."""
    path = facts.layout.path(site)
    replace_module(base, path, VirtualEmbedding(module_at(base, path), node, adapter, context))


@attaches("positions")
def attach_positions(
    base: nn.Module,
    site: Site,
    facts: Facts,
    node: Primitive,
    adapter: PrimitiveModule,
    context: CallContext,
) -> None:
    """Wrap the modules that read position ids."""
    moved = wrap_position_ids(base, facts.layout.path(site), context)
    moved.shifts = RowModules(node, adapter, PositionShiftModule)
    moved.add_module("adapter", adapter)


def wrap_position_ids(base: nn.Module, path: str, context: CallContext) -> ShiftedPositions:
    found = module_at(base, path)
    if isinstance(found, ShiftedPositions):
        return found
    stock = stock_of(found)
    counts = isinstance(stock, nn.Embedding) and "position_ids" in _arguments(stock)
    moved = (ShiftedPositionTable if counts else ShiftedPositions)(found, context)
    replace_module(base, path, moved)
    return moved


def _arguments(module: nn.Module) -> tuple[str, ...]:
    return tuple(inspect.signature(module.forward).parameters)
