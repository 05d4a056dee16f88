"""Maps of the backbone as functions that can be changed: what stands below a primitive there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from adaptcompose.runtime.call_context import Frame, Places
from adaptcompose.runtime.ops.mixing import RunningMean, RunningScaled, of_rows
from adaptcompose.runtime.ops.primitives import Constants, Running, RunningChain, State


class Affine(NamedTuple):
    """A map as its weight [out, in] and bias [out]; stacked ones have a row in front for each."""

    weight: Tensor
    bias: Tensor | None


class Map:
    """A function of x that knows, if it is affine, its weight; `stock` is the backbone's own."""

    stock: Stock

    def __call__(self, x: Tensor, places: Places) -> Tensor:
        """The outputs for the tokens that stand at `places`."""
        raise NotImplementedError

    def affine(self) -> Affine | None:
        """Weight and bias, differentiable; None where there is no such form."""
        raise NotImplementedError

    def part(self, piece: tuple[int, int]) -> Map:
        """The map that gives the outputs of one piece."""
        return Slice(self, piece)

    def take(self, rows: Tensor, count: int) -> Map:
        """The map for some rows of a batch of so many."""
        return self


class Slice(Map):
    """The map that gives the outputs of one piece of another one."""

    def __init__(self, whole: Map, piece: tuple[int, int]) -> None:
        self.whole, self.piece = whole, piece
        self.stock = Stock(whole.stock.module, piece)

    def __call__(self, x: Tensor, places: Places) -> Tensor:
        number, count = self.piece
        return self.whole(x, places).tensor_split(count, dim=-1)[number]

    def take(self, rows: Tensor, count: int) -> Map:
        return Slice(self.whole.take(rows, count), self.piece)

    def affine(self) -> Affine | None:
        found = self.whole.affine()
        if found is None:
            return None
        rows = self.stock.rows
        return Affine(found.weight[rows], None if found.bias is None else found.bias[rows])


class Stock(Map):
    """A module of the backbone, or the part of a merged one that gives the outputs of one piece.

    >>> stock = Stock(nn.Linear(2, 6), (1, 3))
    >>> stock(torch.ones(1, 2), Places()).shape, stock.affine().weight.shape
    (torch.Size([1, 2]), torch.Size([2, 2]))
    """

    def __init__(self, module: nn.Module, piece: tuple[int, int] = (0, 1)) -> None:
        self.module, self.piece, self.stock = module, piece, self

    def part(self, piece: tuple[int, int]) -> Stock:
        return Stock(self.module, piece)

    @property
    def rows(self) -> slice:
        """The outputs of the module that belong to the piece."""
        number, count = self.piece
        tensor: Any = self.module.weight
        size = tensor.shape[-1 if isinstance(self.module, Conv1D) else 0] // count
        return slice(number * size, (number + 1) * size)

    def __call__(self, x: Tensor, places: Places) -> Tensor:
        if self.piece == (0, 1):
            return self.module(x.contiguous())  # Conv1D takes no range of the tokens as it is
        weight, bias = self.affine()
        return functional.linear(x, weight, bias)

    def affine(self) -> Affine:
        module: Any = self.module
        weight: Tensor = module.weight
        bias: Tensor | None = getattr(module, "bias", None)
        if isinstance(module, Conv1D | nn.Embedding):
            weight = weight.T
        if self.piece != (0, 1):
            weight, bias = weight[self.rows], None if bias is None else bias[self.rows]
        return Affine(weight, bias)

    def look_up(self, ids: Tensor, weight: Tensor) -> Tensor:
        """The columns of a weight for these tokens; some embeddings multiply what they give out."""
        found = functional.embedding(ids, weight.T)
        factor = getattr(self.module, "embed_scale", 1.0)
        return found if factor == 1.0 else found * factor

    def normalised(self, x: Tensor) -> Tensor:
        """x̂ of a LayerNorm or, where there is no bias, of an RMSNorm."""
        module: Any = self.module
        eps = next((value for name in _EPS if (value := getattr(module, name, None))), 1e-6)
        if isinstance(module, nn.LayerNorm):
            return functional.layer_norm(x, x.shape[-1:], eps=eps)
        return functional.rms_norm(x, x.shape[-1:], eps=eps)


_EPS = ("eps", "variance_epsilon")


class Mapping(State):
    """The state at a map: its input x, and h = f(x) of the map below, computed when asked for."""

    def __init__(
        self, x: Tensor, below: Map, frame: Frame | None = None, h: Tensor | None = None
    ) -> None:
        self.x: Tensor = x
        self.norm = None
        self.below = below
        self._known, self._frame, self._normed = h, frame, None

    @property
    def h(self) -> Tensor:
        if self._known is None:
            self._known = self.below(self.x, self.places)
        return self._known

    @property
    def dtype(self) -> torch.dtype:
        return self.h.dtype

    def after(self, h: Tensor) -> Mapping:
        return Mapping(self.x, self.below, self._frame, h).keep(self.places)

    def then(self, out: Tensor, member: Running, weights: Constants | None = None) -> Mapping:
        below = Changed(self, member, weights)
        return Mapping(self.x, below, self._frame, out).keep(self.places)

    def at(self, x: Tensor) -> Mapping:
        """The state with another input of the map."""
        return Mapping(x, self.below, self._frame).keep(self.places)

    def part(
        self, index: tuple[Tensor | slice, ...], places: Places, rows: Tensor | None = None
    ) -> Mapping:
        h, below = self._known, self.below
        if rows is None:
            h = self.h  # ranges of the tokens are computed at once
        else:
            below = below.take(rows, len(self.x))
        h = None if h is None else h[index]
        return Mapping(self.x[index], below, self._frame, h).keep(places)

    def finish(self, out: Tensor) -> Tensor:
        return out


class Changed(Map):
    """The map that a primitive makes of the one below it."""

    def __init__(self, state: Mapping, member: Running, weights: Constants | None) -> None:
        self.state, self.member, self.weights = state, member, weights
        self.stock = state.below.stock

    def take(self, rows: Tensor, count: int) -> Map:
        state = self.state.take(rows)
        assert isinstance(state, Mapping)
        return Changed(state, self.member, of_rows(self.weights, rows, count))

    def __call__(self, x: Tensor, places: Places) -> Tensor:
        state = self.state.at(x).keep(places._replace(start=self.state.places.start))
        if self.weights is None:
            return self.member(state)
        residual, contribution = self.member.split(state, self.weights)
        return (residual + contribution).to(state.dtype)

    def affine(self) -> Affine | None:
        below = self.state.below
        found = below.affine()
        return None if found is None else changed(self.member, found, below.stock, self.weights)


class RunningChange(Running):
    """A primitive that changes a map."""

    def reweighted(
        self, below: Affine, stock: Stock, weights: Constants | None = None
    ) -> Affine | None:
        """Weight and bias of the changed map; None where it has no such form."""
        return None


def changed(
    module: Running, below: Affine, stock: Stock, weights: Constants | None = None
) -> Affine | None:
    """Weight and bias of what a primitive makes of a map; None where it has no such form."""
    if isinstance(module, RunningChange):
        return module.reweighted(below, stock, weights)
    each: Any = None
    if isinstance(module, RunningChain):
        each = [None] * len(module.members) if weights is None else weights
        found: Affine | None = below
        for member, own in zip(module.members, each, strict=True):
            found = None if found is None else changed(member, found, stock, own)  # type: ignore[arg-type]
        return found
    if not isinstance(module, RunningMean | RunningScaled):
        return None
    each = [
        changed(b, below, stock, w)
        for b, w in zip(module.branches, module.each(weights), strict=True)
    ]
    if any(one is None for one in each):
        return None
    if isinstance(module, RunningMean):
        return _sum([below, *each], [module.node.still, *module.node.weights])
    return _sum([below, *each], [1 - module.node.by, module.node.by])


def _sum(maps: Sequence[Affine], factors: Sequence[float]) -> Affine:
    pairs = [(one, factor) for one, factor in zip(maps, factors, strict=True) if factor]
    biases = [factor * one.bias for one, factor in pairs if one.bias is not None]
    weight = sum((factor * one.weight for one, factor in pairs), torch.zeros(()).to(maps[0].weight))
    bias = sum(biases[1:], biases[0]) if biases else None
    return Affine(weight, bias)
