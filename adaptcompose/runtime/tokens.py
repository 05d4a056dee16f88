"""Virtual tokens at work: a longer input, and what each module has to know of it.

The base model is called with more tokens than the caller gave: `Lengthened` adds placeholders and
extends the mask, `Words` puts the learned embeddings in their place, or `Behind` does so after the
embeddings; position ids are moved where they would count what is not there. Shorter prompts are
padded in front. Heads see the virtual tokens, the caller sees his own.
"""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.compiler.prefix import Shift
from adaptcompose.compiler.program import Primitive
from adaptcompose.compiler.tokens import Tokens
from adaptcompose.language.codes import AC517
from adaptcompose.language.diagnostics import Failed
from adaptcompose.methods.invertible import EMBEDDINGS
from adaptcompose.runtime.frame import OWN, Frame
from adaptcompose.runtime.heads import IGNORED
from adaptcompose.runtime.parts import Parts
from adaptcompose.runtime.pieces import Chosen, Pieces, padded
from adaptcompose.runtime.primitives import Running, runs
from adaptcompose.runtime.sites import Proxy, Wrapper, takes

VIRTUAL = "virtual tokens"
FIRST = "first_state"


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
    """A row's virtual tokens by number, and −1 where its first own token stands."""
    order, number = [-1], sum(piece.node.length for piece in pieces)
    for piece in reversed(pieces):  # the first of a chain stands next to the tokens
        number -= piece.node.length
        new = list(range(number, number + piece.node.length))
        order = [order[0], *new, *order[1:]] if piece.node.after_first else new + order
    return order


@dataclass
class Virtual:
    """The virtual tokens of one call: `count` of them in each row, `gap` of these are padding.

    `source` says which entry of [virtual, own] stands at each place, if not each at its own, and
    `places` where a row's own tokens stand. `kept` rows have theirs behind the embeddings, and if
    it is `behind`, all have. `ragged`: not all rows have equally many. `counted`: position ids do
    not tell padding from tokens. `joined`: they are in this call, not in a cache.
    """

    embeddings: Tensor
    gap: Tensor
    kept: Tensor
    source: Tensor | None
    places: Tensor
    ragged: bool
    behind: bool
    counted: bool = False
    joined: bool = True

    @property
    def count(self) -> int:
        return self.embeddings.shape[1]

    def beside(self, virtual: Tensor, own: Tensor) -> Tensor:
        """[virtual, own] in the order in which they stand; [rows, tokens] or with a width."""
        both = torch.cat([virtual.to(own.dtype), own], dim=1)
        return both if self.source is None else _taken(both, self.source)

    def own(self, states: Tensor) -> Tensor:
        """What is the caller's of a result for every token."""
        return _taken(states, self.places.expand(len(states), -1))

    def started(self, states: Tensor) -> Tensor:
        """Every row from its first token on: the padding of shorter prompts goes to the end."""
        if not self.ragged:
            return states
        length = states.shape[1]
        turned = torch.arange(length, device=states.device) + self.gap[:, None]
        return _taken(states, (turned % length).expand(len(states), -1))

    @property
    def moves(self) -> Tensor:
        """By how much the positions of a row's tokens move, when all virtual ones are counted."""
        return -torch.where(self.kept, torch.full_like(self.gap, self.count), self.gap)


def _taken(values: Tensor, index: Tensor) -> Tensor:
    if values.dim() == 2:
        return values.gather(1, index)
    return values.gather(1, index.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


class Words(Wrapper):
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
        plain = torch.arange(count + tokens, device=device)
        sources, places = [], []
        for order in orders:
            gap = count + 1 - len(order)
            first = [gap + number if number >= 0 else count for number in order]
            sources.append([*range(gap), *first])
            places.append(order.index(-1) + gap)
        source = torch.cat(
            [torch.tensor(sources, device=device), plain[count + 1 :].expand(len(orders), -1)], 1
        )[chosen.index]
        own = plain[count:].expand(rows, -1).clone()
        own[:, 0] = chosen.per_row(places)
        kept = [all(p.node.positions == "kept" for p in ps) for ps in chosen.compositions]
        lengths = {len(order) for order in orders}
        return Virtual(
            embeddings=self._embeddings(chosen),
            gap=chosen.per_row([count + 1 - len(order) for order in orders]),
            kept=chosen.per_row(kept),
            source=None if all(place == count for place in places) else source,
            places=own,
            ragged=len(lengths) > 1,
            behind=all(kept),
        )

    @staticmethod
    def _embeddings(chosen: Chosen[RunningTokens]) -> Tensor:
        read = [[piece.read() for piece in pieces] for pieces in chosen.compositions]
        empty = next(tensor for tensors in read for tensor in tensors)[:0]
        return padded([torch.cat([empty, *tensors]) for tensors in read])[chosen.index]


class Behind(Proxy):
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


class Moved(Proxy):
    """What reads position ids, given others."""

    def __init__(self, stock: nn.Module, frame: Frame) -> None:
        super().__init__(stock)
        self.frame = frame
        self.shifts: Pieces[RunningShift] | None = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        args = tuple(self._moved(value) for value in args)
        return self.stock(*args, **{name: self._moved(value) for name, value in kwargs.items()})

    def _moved(self, ids: Any) -> Any:
        if not isinstance(ids, Tensor) or ids.is_floating_point():
            return ids
        padding = getattr(self.stock, "padding_idx", None)
        first = 0 if padding is None else padding + 1
        moved, by = ids, 0
        virtual: Virtual | None = self.frame.kept.get(VIRTUAL)
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
        most = getattr(self.stock, "num_embeddings", highest)
        if highest > most and (needed := int(ids.max()) + 1) > most:
            raise Failed(AC517.at(needed=needed, most=most))


class Started(Proxy):
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
    base.set_submodule(path, Words(base.get_submodule(path), node, adapter, frame))


@takes("positions")
def take_positions(
    base: nn.Module, site: Site, facts: Facts, node: Primitive, adapter: Running, frame: Frame
) -> None:
    """Around what reads position ids."""
    moved = _moving(base, facts.layout.path(site), frame)
    moved.shifts = Pieces(node, adapter, RunningShift)
    moved.add_module("adapter", adapter)


def _moving(base: nn.Module, path: str, frame: Frame) -> Moved:
    stock = base.get_submodule(path)
    if isinstance(stock, Moved):
        return stock
    moved = Moved(stock, frame)
    base.set_submodule(path, moved)
    return moved


class Lengthened(Proxy):
    """A base model that is given more tokens than its caller has.

    It gives back the states of the caller's own, and of the first of each row. One that is `inside`
    a model with a head of its own gives back all, from the first of each row on, unless it is
    causal.
    """

    def __init__(
        self, stock: nn.Module, words: Words, frame: Frame, first: int, most: int, *, inside: bool
    ) -> None:
        super().__init__(stock)
        self.words = [words]  # it is registered where it stands
        self.frame = frame
        self.first = first  # position id of the first token
        self.most = most
        self.inside = inside
        self.names = tuple(inspect.signature(stock.forward).parameters)
        self.causal = any(getattr(module, "is_causal", False) for module in stock.modules())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        given = dict(zip(self.names, args, strict=False)) | kwargs
        asked = given.get("input_ids")
        asked = given["inputs_embeds"] if asked is None else asked
        virtual = self.virtual(asked)
        self.frame.kept[VIRTUAL] = virtual
        if virtual is None:
            return self.stock(**given)
        past = given.get("past_key_values")
        virtual.joined = past is None or past.get_seq_length() == 0
        if virtual.ragged and virtual.joined:
            places = torch.arange(virtual.count + asked.shape[1], device=asked.device)
            self.frame.kept[OWN] = places >= virtual.gap[:, None]
        out = self.stock(**(given | self._around(given, virtual) | self._inputs(given, virtual)))
        if virtual.joined:
            states = out["last_hidden_state"]
            if self.inside and not self.causal:
                out["last_hidden_state"] = virtual.started(states)
            else:
                out["last_hidden_state"] = virtual.own(states)
                out[FIRST] = virtual.started(states)[:, 0]
        return out

    def virtual(self, asked: Tensor) -> Virtual | None:
        """The virtual tokens of a call with these ids or embeddings."""
        return self.words[0].virtual(asked.shape[0], asked.shape[1], asked.device)

    def _around(self, given: dict[str, Any], virtual: Virtual) -> dict[str, Any]:
        """Mask and positions; those of tokens in a cache are the caller's business."""
        number = torch.arange(virtual.count, device=virtual.gap.device)
        real = number >= virtual.gap[:, None]
        mask, places = given.get("attention_mask"), given.get("position_ids")
        more: dict[str, Any] = {}
        if mask is not None:
            whole = virtual.beside(real, mask) if virtual.joined else _front(real, mask)
            more["attention_mask"] = whole
        elif virtual.ragged:
            more["attention_mask"] = virtual.beside(real, torch.ones_like(virtual.places))
        if places is not None and not virtual.behind:
            virtual.counted = True
            places = places.expand(len(real), -1) + virtual.count
            front = (number + self.first).expand(len(real), -1)
            more["position_ids"] = virtual.beside(front, places) if virtual.joined else places
        return more

    def _inputs(self, given: dict[str, Any], virtual: Virtual) -> dict[str, Any]:
        """Placeholders: padding where a row has nothing that takes a position."""
        if virtual.behind or not virtual.joined:
            return {}
        more: dict[str, Any] = {}
        if (needed := virtual.count + virtual.places.shape[1]) > self.most:
            raise Failed(AC517.at(needed=needed, most=self.most))
        shape = (len(virtual.gap), virtual.count)
        types, embeds = given.get("token_type_ids"), given.get("inputs_embeds")
        if types is not None:
            more["token_type_ids"] = virtual.beside(types.new_zeros(shape), types)
        if embeds is not None:
            virtual.counted = True
            more["inputs_embeds"] = virtual.beside(virtual.embeddings, embeds)
        if (ids := given.get("input_ids")) is not None:
            padding = int(self.config.pad_token_id or 0)
            empty = torch.arange(virtual.count, device=ids.device) < virtual.gap[:, None]
            front = ids.new_full(shape, int(padding == 0))
            front = front.masked_fill(empty | virtual.kept[:, None], padding)
            more["input_ids"] = virtual.beside(front, ids)
        return more


def _front(real: Tensor, mask: Tensor) -> Tensor:
    return torch.cat([real.to(mask.dtype), mask], dim=1)


def lengthened(base: nn.Module, facts: Facts, frame: Frame, *, inside: bool) -> nn.Module:
    """A base model in which token embeddings were taken, ready for a longer input."""
    words = next((module for module in base.modules() if isinstance(module, Words)), None)
    if words is None:
        return base
    first, most = 0, sys.maxsize
    if facts.has("positions"):
        moved = _moving(base, facts.layout.path(Site("positions")), frame)
        padding = getattr(moved.stock, "padding_idx", None)
        first = 0 if padding is None else int(padding) + 1
        if padding is None:  # else the ids are counted where they are read
            most = int(getattr(moved.stock, "num_embeddings", most))
    if facts.has(EMBEDDINGS.name):
        path = facts.layout.path(EMBEDDINGS)
        base.set_submodule(path, Behind(base.get_submodule(path), frame))
    pooler = facts.layout.pooler
    if pooler and getattr(base, pooler, None) is not None:
        base.set_submodule(pooler, Started(base.get_submodule(pooler), frame))
    return Lengthened(base, words, frame, first, most, inside=inside)


def own_logits(frame: Frame, out: Any) -> Any:
    """The result of a model with a head of its own: logits of the caller's tokens."""
    virtual: Virtual | None = frame.kept.get(VIRTUAL)
    logits = out.get("logits")
    if virtual is None or logits is None or logits.dim() < 3:
        return out
    if logits.shape[1] > virtual.places.shape[1]:
        places = virtual.places - virtual.gap[:, None]
        out["logits"] = _taken(logits, places.expand(len(logits), -1))
    return out


def labelled(body: nn.Module, labels: Tensor) -> Tensor:
    """Labels for every token of a longer input; others as they are."""
    found = next((module for module in body.modules() if isinstance(module, Lengthened)), None)
    virtual = None if found is None or found.causal else found.virtual(labels)
    if virtual is None or labels.dim() != 2:
        return labels
    places = virtual.places - virtual.gap[:, None]
    longer = labels.new_full((len(labels), labels.shape[1] + virtual.count), IGNORED)
    return longer.scatter(1, places, labels)
