"""Virtual tokens at work: what each module has to know of a longer input.

`Words` puts learned embeddings in the place of placeholders, or `Behind` does so after the
embeddings; position ids are moved where they would count what is not there.
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
from adaptcompose.ir.prefix import Shift
from adaptcompose.ir.primitives import Primitive
from adaptcompose.ir.tokens import Tokens
from adaptcompose.runtime.attach.sites import (
    SiteWrapper,
    Wrapper,
    module_at,
    replace_module,
    stock_of,
    takes,
)
from adaptcompose.runtime.call_context import Frame, Places
from adaptcompose.runtime.ops.primitives import Running, runs
from adaptcompose.runtime.ops.row_selection import Chosen, Pieces, padded
from adaptcompose.runtime.parts import Parts

VIRTUAL = "virtual tokens"


@runs(Tokens)
class RunningTokens(Running):
    def __init__(self, node: Tokens, parts: Parts) -> None:
        super().__init__()
        self.node = node
        self.weights = parts.weights(node)

    def read(self) -> Tensor:
        """Their embeddings, [length, width]."""
        return self.weights.read()["embedding"]


@runs(Shift)
class RunningShift(Running):
    def __init__(self, node: Shift, parts: Parts) -> None:
        super().__init__()
        self.node = node


def order_of(pieces: tuple[RunningTokens, ...]) -> list[int]:
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
class Virtual:
    """The virtual tokens of one call: `count` of them in each row, `gap` of these are padding.

    `front` says which entry of [virtual, own] stands at each place up to that of the first own one,
    if not each at its own, and `places` where a row's own tokens stand. `kept` rows have theirs
    behind the embeddings, and if it is `behind`, all have. `ragged`: not all rows have equally
    many. `counted`: position ids do not tell padding from tokens. `joined`: they are in this call,
    not in a cache. `turned`: rows begin with their first token in what the base model gave back.
    """

    embeddings: Tensor
    gap: Tensor
    kept: Tensor
    front: Tensor | None
    places: Tensor
    ragged: bool
    behind: bool
    counted: bool = False
    joined: bool = True
    turned: bool = False

    @property
    def count(self) -> int:
        return self.embeddings.shape[1]

    def beside(self, virtual: Tensor, own: Tensor) -> Tensor:
        """[virtual, own] in the order in which they stand; [rows, tokens] or with a width."""
        both = torch.cat([virtual.to(own.dtype), own], dim=1)
        if self.front is None:
            return both
        return torch.cat([taken(both, self.front), both[:, self.count + 1 :]], dim=1)

    def standing(self, first: int = 0) -> Places:
        """Where the tokens of a call stand that begins with the one of this number."""
        return Places(first, self.gap if self.ragged else None)

    def own(self, states: Tensor) -> Tensor:
        """What is the caller's of a result for every token."""
        return taken(states, self.places.expand(states.shape[0], -1))

    def started(self, states: Tensor) -> Tensor:
        """Every row from its first token on: the padding of shorter prompts goes to the end."""
        if not self.ragged:
            return states
        length = states.shape[1]
        turned = torch.arange(length, device=states.device) + self.gap[:, None]
        return taken(states, (turned % length).expand(states.shape[0], -1))

    @property
    def moves(self) -> Tensor:
        """By how much the positions of a row's tokens move, when all virtual ones are counted."""
        return -torch.where(self.kept, torch.full_like(self.gap, self.count), self.gap)


def taken(values: Tensor, index: Tensor) -> Tensor:
    if values.dim() == 2:
        return values.gather(1, index)
    return values.gather(1, index.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


class Words(SiteWrapper):
    """Token embeddings, with learned ones where the placeholders are."""

    def __init__(self, stock: nn.Module, node: Primitive, adapter: Running, frame: Frame) -> None:
        super().__init__(stock, adapter, frame)
        self.pieces = Pieces(node, adapter, RunningTokens)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        out: Tensor = self.stock(*args, **kwargs)
        virtual = self.frame.kept.get(VIRTUAL)
        if virtual is None or virtual.behind or not virtual.joined:
            return out
        return cast(Tensor, virtual.beside(virtual.embeddings, virtual.own(out)))

    def virtual(self, rows: int, tokens: int, device: torch.device) -> Virtual | None:
        """The virtual tokens of a call with so many rows and tokens; None if no row has any."""
        chosen = self.pieces.choose(self.frame, rows, device)
        if not chosen:
            return None
        orders = [order_of(pieces) for pieces in chosen.compositions]
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
        return Virtual(
            embeddings=self._embeddings(chosen),
            gap=chosen.per_row([count + 1 - len(order) for order in orders]),
            kept=chosen.per_row(kept),
            front=None if all(order == plain for order in fronts) else front,
            places=own,
            ragged=len(lengths) > 1,
            behind=all(kept),
        )

    @staticmethod
    def _embeddings(chosen: Chosen[RunningTokens]) -> Tensor:
        read = [[piece.read() for piece in pieces] for pieces in chosen.compositions]
        empty = next(tensor for tensors in read for tensor in tensors)[:0]
        return padded([torch.cat([empty, *tensors]) for tensors in read])[chosen.index]


class Behind(Wrapper):
    """The embeddings, with virtual tokens that join behind them."""

    def __init__(self, stock: nn.Module, frame: Frame) -> None:
        super().__init__(stock)
        self.frame = frame

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        out: Tensor = self.stock(*args, **kwargs)
        virtual: Virtual | None = self.frame.kept.get(VIRTUAL)
        if virtual is None or not virtual.joined:
            return out
        if virtual.behind:
            return virtual.beside(virtual.embeddings, out)
        joined = virtual.beside(virtual.embeddings, virtual.own(out))
        return torch.where(virtual.kept[:, None, None], joined, out)


class Moved(Wrapper):
    """What reads position ids, given others; `longer` if there are virtual tokens among its own."""

    def __init__(self, stock: nn.Module, frame: Frame) -> None:
        super().__init__(stock)
        self.frame = frame
        self.longer = False
        self.shifts: Pieces[RunningShift] | None = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        args = tuple(self._moved(value) for value in args)
        return self.stock(*args, **{name: self._moved(value) for name, value in kwargs.items()})

    def _moved(self, ids: Any) -> Any:
        if not isinstance(ids, Tensor) or ids.is_floating_point():
            return ids
        padding = getattr(stock_of(self), "padding_idx", None)
        first = 0 if padding is None else padding + 1
        moved, by = ids, 0
        virtual: Virtual | None = self.frame.kept.get(VIRTUAL) if self.longer else None
        if virtual is not None and not virtual.behind and (padding is None or virtual.counted):
            moved = (moved + virtual.moves[:, None]).clamp(min=first)
        if self.shifts is not None:
            rows = max(len(moved), len(self.frame.members))
            chosen = self.shifts.choose(self.frame, rows, ids.device)
            totals = [sum(p.node.by for p in pieces) for pieces in chosen.compositions]
            moved, by = moved + chosen.per_row(totals)[:, None], max(totals)
        moved = moved if padding is None else torch.where(ids == padding, ids, moved)
        self._check(moved, first + ids.shape[-1] + by)
        return moved

    def _check(self, ids: Tensor, highest: int) -> None:
        """AC517 where there are no such positions; `highest` is the most that they can be."""
        most = positions_of(self)
        if most is not None and highest > most and (needed := int(ids.max()) + 1) > most:
            raise Failed(AC517.at(needed=needed, most=most))


class MovedCount(Moved):
    """What counts the tokens of a call itself, and is given other positions for each row."""

    def forward(
        self, tokens: Tensor | None, past: int = 0, position_ids: Tensor | None = None
    ) -> Tensor:
        if position_ids is None:
            assert tokens is not None
            position_ids = torch.arange(past, past + tokens.shape[1], device=tokens.device)
        rows, count = 1 if tokens is None else tokens.shape[0], position_ids.shape[0]
        ids: Tensor = self._moved(position_ids.expand(rows, -1))
        found: Tensor = self.stock(tokens, position_ids=ids.flatten())  # as one long row
        return found.view(-1, count, found.shape[-1])


def positions_of(module: nn.Module) -> int | None:
    """How many positions a table has, those among them that stand for padding."""
    stock = stock_of(module)
    rows = getattr(stock, "num_embeddings", None)
    return None if rows is None else int(rows) - int(getattr(stock, "offset", 0))


class Started(Wrapper):
    """A pooler, which reads the first token of every row."""

    def __init__(self, stock: nn.Module, frame: Frame) -> None:
        super().__init__(stock)
        self.frame = frame

    def forward(self, states: Tensor) -> Tensor:
        virtual: Virtual | None = self.frame.kept.get(VIRTUAL)
        return cast(Tensor, self.stock(states if virtual is None else virtual.started(states)))


@takes("tokens")
def take_tokens(
    base: nn.Module, site: Site, facts: Facts, node: Primitive, adapter: Running, frame: Frame
) -> None:
    """Around the token embeddings; `lengthened` does the rest when all sites are taken."""
    path = facts.layout.path(site)
    replace_module(base, path, Words(module_at(base, path), node, adapter, frame))


@takes("positions")
def take_positions(
    base: nn.Module, site: Site, facts: Facts, node: Primitive, adapter: Running, frame: Frame
) -> None:
    """Around what reads position ids."""
    moved = moving(base, facts.layout.path(site), frame)
    moved.shifts = Pieces(node, adapter, RunningShift)
    moved.add_module("adapter", adapter)


def moving(base: nn.Module, path: str, frame: Frame) -> Moved:
    found = module_at(base, path)
    if isinstance(found, Moved):
        return found
    stock = stock_of(found)
    counts = isinstance(stock, nn.Embedding) and "position_ids" in _arguments(stock)
    moved = (MovedCount if counts else Moved)(found, frame)
    replace_module(base, path, moved)
    return moved


def _arguments(module: nn.Module) -> tuple[str, ...]:
    return tuple(inspect.signature(module.forward).parameters)
