"""A base model that is given more tokens than its caller has.

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
from adaptcompose.methods.invertible import EMBEDDINGS
from adaptcompose.runtime.attach.sites import Wrapper, module_at, replace_module, stock_of
from adaptcompose.runtime.call_context import ENCODED, PLACES, Frame, Places
from adaptcompose.runtime.heads import IGNORED
from adaptcompose.runtime.ops.mixing import RunningSplit
from adaptcompose.runtime.ops.tokens import (
    VIRTUAL,
    Behind,
    Started,
    Virtual,
    Words,
    moving,
    positions_of,
    taken,
)

FIRST = "first_state"


def cached(given: Mapping[str, Any]) -> int:
    """How many tokens a call with these arguments finds in a cache."""
    cache = given.get("past_key_values")
    return 0 if cache is None else int(cache.get_seq_length())


class Counted(Wrapper):
    """A model that reads tokens, which are counted from the first in its cache."""

    def __init__(self, stock: nn.Module, frame: Frame) -> None:
        super().__init__(stock)
        self.frame = frame

    @property
    def config(self) -> Any:
        """The model's own, which `ComposedModel.config` is, and which counts padding here."""
        return self.stock.config

    @property
    def main_input_name(self) -> Any:
        """Of an encoder: `generate` compares it with that of the model around."""
        return self.stock.main_input_name

    def get_input_embeddings(self) -> Any:
        """Where a model with a head asks its base model for the token embeddings."""
        embeddings: Any = self.stock.get_input_embeddings  # of a class without types
        return embeddings()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.counted(Places(cached(kwargs)), *args, **kwargs)

    def counted(self, places: Places, *args: Any, **kwargs: Any) -> Any:
        """What it makes of tokens at `places`."""
        self.frame.kept[PLACES] = places
        out = self.stock(*args, **kwargs)
        self.frame.kept.pop(PLACES)
        return out


class Lengthened(Counted):
    """A base model that is given more tokens than its caller has.

    It gives back the states of the caller's own, and of the first of each row. One that is `inside`
    a model with a head of its own gives back all, from the first of each row on, unless it is
    causal.
    """

    def __init__(
        self, stock: nn.Module, words: Words, frame: Frame, first: int, most: int, *, inside: bool
    ) -> None:
        super().__init__(stock, frame)
        self.words = [words]  # it is registered where it stands
        self.first = first  # position id of the first token
        self.most = most
        self.inside = inside  # a model with a head of its own
        self.names = tuple(inspect.signature(stock.forward).parameters)
        self.causal = any(getattr(module, "is_causal", False) for module in stock.modules())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        given = dict(zip(self.names, args, strict=False)) | kwargs
        first = cached(given)
        asked = given.get("input_ids")
        asked = given["inputs_embeds"] if asked is None else asked
        virtual = self.virtual(asked)
        self.frame.kept[VIRTUAL] = virtual
        if virtual is None:
            return self.counted(Places(first), **given)
        virtual.joined = first == 0
        places = virtual.standing(first)
        more = self._around(given, virtual, first) | self._inputs(given, virtual)
        out = self.counted(places, **(given | more))
        return self._given_back(out, virtual) if virtual.joined else out

    def _given_back(self, out: Any, virtual: Virtual) -> Any:
        states = out["last_hidden_state"]
        if self.inside and not self.causal:
            virtual.turned = True
            out["last_hidden_state"] = virtual.started(states)
        else:
            out["last_hidden_state"] = virtual.own(states)
            out[FIRST] = virtual.started(states)[:, 0]
        return out

    def virtual(self, asked: Tensor) -> Virtual | None:
        """The virtual tokens of a call with these ids or embeddings."""
        return self.words[0].virtual(asked.shape[0], asked.shape[1], asked.device)

    def _around(self, given: dict[str, Any], virtual: Virtual, first: int) -> dict[str, Any]:
        """Mask and positions; those of tokens in a cache are the caller's business."""
        number = torch.arange(virtual.count, device=virtual.gap.device)
        real = number >= virtual.gap[:, None]
        mask, places = given.get("attention_mask"), given.get("position_ids")
        more: dict[str, Any] = {}
        if mask is not None:
            more["attention_mask"] = extended(mask, virtual)
        elif virtual.ragged:
            own = virtual.places.shape[1] + max(first - virtual.count, 0)  # those in a cache, too
            more["attention_mask"] = virtual.beside(real, virtual.places.new_ones(len(real), own))
        if places is not None and not virtual.behind:
            virtual.counted = True
            places = places.expand(real.shape[0], -1) + virtual.count
            front = (number + self.first).expand(real.shape[0], -1)
            # of places, whatever stands there
            joined = torch.cat([front.to(places.dtype), places], dim=1)
            more["position_ids"] = joined if virtual.joined else places
        return more

    def _inputs(self, given: dict[str, Any], virtual: Virtual) -> dict[str, Any]:
        """Placeholders: padding where a row has nothing that takes a position."""
        if virtual.behind or not virtual.joined:
            return {}
        more: dict[str, Any] = {}
        shape = (virtual.gap.shape[0], virtual.count)
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
        self._check(virtual, more.get("input_ids"))
        return more

    def _check(self, virtual: Virtual, ids: Tensor | None) -> None:
        """AC517 where there are not so many positions."""
        needed = virtual.count + virtual.places.shape[1]
        if needed > self.most and self.first and ids is not None:
            # there only what is no padding counts
            needed = int((ids != int(self.config.pad_token_id)).sum(dim=1).max())
        if needed > self.most:
            raise Failed(AC517.at(needed=needed, most=self.most))


def extended(mask: Tensor, virtual: Virtual) -> Tensor:
    """A mask of the caller's tokens, with places for the virtual ones."""
    real = torch.arange(virtual.count, device=mask.device) >= virtual.gap[:, None]
    return virtual.beside(real, mask)


class LengthenedEncoder(Lengthened):
    """An encoder under a decoder, which attends to the virtual tokens, too."""

    def _given_back(self, out: Any, virtual: Virtual) -> Any:
        return out


class Attending(Counted):
    """A decoder over such an encoder: what it attends to is longer than the caller's mask."""

    def __init__(self, stock: nn.Module, words: Words, frame: Frame) -> None:
        super().__init__(stock, frame)
        self.words = [words]  # it is registered where it stands
        self.names = tuple(inspect.signature(stock.forward).parameters)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        given = dict(zip(self.names, args, strict=False)) | kwargs
        states, mask = given.get("encoder_hidden_states"), given.get("encoder_attention_mask")
        if states is not None:
            tokens = states.shape[1] if mask is None else mask.shape[1]
            virtual = self.words[0].virtual(states.shape[0], tokens, states.device)
            if virtual is not None and mask is not None:
                given["encoder_attention_mask"] = extended(mask, virtual)
            elif virtual is not None and virtual.ragged:
                places = torch.arange(tokens, device=states.device)
                given["encoder_attention_mask"] = (places >= virtual.gap[:, None]).long()
            self.frame.kept[ENCODED] = Places() if virtual is None else virtual.standing()
        return super().forward(**given)


def lengthened(base: nn.Module, facts: Facts, frame: Frame, *, inside: bool) -> nn.Module:
    """A base model whose sites are taken, ready for a longer input and for tokens in a cache."""
    words = next((module for module in base.modules() if isinstance(module, Words)), None)
    if words is None:
        return counting(base, frame)
    encoder = getattr(base, "encoder", None)
    if encoder is not None and hasattr(base, "decoder"):
        first, most = _positions(base, facts, frame)
        longer = LengthenedEncoder(encoder, words, frame, first, most, inside=inside)
        replace_module(base, "encoder", longer)
        replace_module(base, "decoder", Attending(module_at(base, "decoder"), words, frame))
        return base
    first, most = _positions(base, facts, frame)
    if facts.has(EMBEDDINGS.name) and facts.layout.sites[EMBEDDINGS.name].kind == "output":
        path = facts.layout.path(EMBEDDINGS)
        replace_module(base, path, Behind(module_at(base, path), frame))
    pooler = facts.layout.pooler
    if pooler and getattr(base, pooler, None) is not None:
        replace_module(base, pooler, Started(module_at(base, pooler), frame))
    return Lengthened(base, words, frame, first, most, inside=inside)


def _positions(base: nn.Module, facts: Facts, frame: Frame) -> tuple[int, int]:
    """The id of the first position, and how many there are; what reads them can be moved."""
    if not facts.has("positions"):
        return 0, sys.maxsize
    first_part = next(iter(facts.stacks))
    moved = moving(base, facts.layout.path(Site("positions", None, first_part)), frame)
    moved.longer = True
    padding, rows = getattr(stock_of(moved), "padding_idx", None), positions_of(moved)
    first = 0 if padding is None else int(padding) + 1
    return first, sys.maxsize if rows is None else rows - first


def counting(base: nn.Module, frame: Frame) -> nn.Module:
    """A base model that knows how many tokens are in its cache, where a site has to."""
    if not any(isinstance(module, RunningSplit) for module in base.modules()):
        return base
    if not hasattr(base, "decoder"):
        return Counted(base, frame)
    replace_module(base, "decoder", Counted(module_at(base, "decoder"), frame))
    return base


def own_logits(frame: Frame, out: Any) -> Any:
    """The result of a model with a head of its own: logits of the caller's tokens."""
    virtual: Virtual | None = frame.kept.get(VIRTUAL)
    logits = out.get("logits")
    if virtual is not None and virtual.turned and logits is not None and logits.dim() > 2:
        places = virtual.places - virtual.gap[:, None]
        out["logits"] = taken(logits, places.expand(logits.shape[0], -1))
    return out


def labelled(body: nn.Module, labels: Tensor) -> Tensor:
    """Labels for every token of a longer input; others as they are."""
    found = next((module for module in body.modules() if isinstance(module, Lengthened)), None)
    plain = found is None or found.causal or not found.inside or labels.dim() != 2
    virtual = None if plain or found is None else found.virtual(labels)
    if virtual is None:
        return labels
    places = virtual.places - virtual.gap[:, None]
    longer = labels.new_full((len(labels), labels.shape[1] + virtual.count), IGNORED)
    return longer.scatter(1, places, labels)
