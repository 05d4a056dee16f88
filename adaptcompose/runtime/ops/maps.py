"""Maps of the backbone as functions that can be changed: what stands below a primitive there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from adaptcompose.runtime.call_context import CallContext, TokenPositions
from adaptcompose.runtime.ops.mixing import ScaledUpdateModule, WeightedMeanModule, weights_of_rows
from adaptcompose.runtime.ops.primitives import ChainModule, PrimitiveModule, State, WeightTree


class Affine(NamedTuple):
    """A map as its weight [out, in] and bias [out]; stacked ones have a row in front for each."""

    weight: Tensor
    bias: Tensor | None


class Map:
    """A function of x that knows, if it is affine, its weight; `stock` is the backbone's own."""

    stock: StockMap

    def __call__(self, x: Tensor, positions: TokenPositions) -> Tensor:
        """The outputs for the tokens that stand at `positions`."""
        raise NotImplementedError

    def affine(self) -> Affine | None:
        """Weight and bias, differentiable; None where there is no such form."""
        raise NotImplementedError

    def select_piece(self, piece: tuple[int, int]) -> Map:
        """The map that gives the outputs of one piece."""
        return MapSlice(self, piece)

    def select_rows(self, rows: Tensor, count: int) -> Map:
        """The map for some rows of a batch of so many."""
        return self


class MapSlice(Map):
    """The map that gives the outputs of one piece of another one."""

    def __init__(self, whole: Map, piece: tuple[int, int]) -> None:
        self.whole, self.piece = whole, piece
        self.stock = StockMap(whole.stock.module, piece)

    def __call__(self, x: Tensor, positions: TokenPositions) -> Tensor:
        number, count = self.piece
        return self.whole(x, positions).tensor_split(count, dim=-1)[number]

    def select_rows(self, rows: Tensor, count: int) -> Map:
        return MapSlice(self.whole.select_rows(rows, count), self.piece)

    def affine(self) -> Affine | None:
        found = self.whole.affine()
        if found is None:
            return None
        rows = self.stock.output_rows
        return Affine(found.weight[rows], None if found.bias is None else found.bias[rows])


class StockMap(Map):
    """A module of the backbone, or the part of a merged one that gives the outputs of one piece.

    >>> stock = StockMap(nn.Linear(2, 6), (1, 3))
    >>> stock(torch.ones(1, 2), TokenPositions()).shape, stock.affine().weight.shape
    (torch.Size([1, 2]), torch.Size([2, 2]))
    """

    def __init__(self, module: nn.Module, piece: tuple[int, int] = (0, 1)) -> None:
        self.module, self.piece, self.stock = module, piece, self

    def select_piece(self, piece: tuple[int, int]) -> StockMap:
        return StockMap(self.module, piece)

    @property
    def output_rows(self) -> slice:
        """The outputs of the module that belong to the piece."""
        number, count = self.piece
        tensor: Any = self.module.weight
        size = tensor.shape[-1 if isinstance(self.module, Conv1D) else 0] // count
        return slice(number * size, (number + 1) * size)

    def __call__(self, x: Tensor, positions: TokenPositions) -> Tensor:
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
            weight, bias = (
                weight[self.output_rows],
                None if bias is None else bias[self.output_rows],
            )
        return Affine(weight, bias)

    def look_up(self, ids: Tensor, weight: Tensor) -> Tensor:
        """The columns of a weight for these tokens; some embeddings multiply what they give out."""
        found = functional.embedding(ids, weight.T)
        factor = getattr(self.module, "embed_scale", 1.0)
        return found if factor == 1.0 else found * factor

    def normalise(self, x: Tensor) -> Tensor:
        """x̂ of a LayerNorm or, where there is no bias, of an RMSNorm."""
        module: Any = self.module
        eps = next((value for name in _EPS if (value := getattr(module, name, None))), 1e-6)
        if isinstance(module, nn.LayerNorm):
            return functional.layer_norm(x, x.shape[-1:], eps=eps)
        return functional.rms_norm(x, x.shape[-1:], eps=eps)


_EPS = ("eps", "variance_epsilon")


class MapState(State):
    """The state at a map: its input x, and h = f(x) of the map below, computed when asked for."""

    def __init__(
        self, x: Tensor, below: Map, context: CallContext | None = None, h: Tensor | None = None
    ) -> None:
        self.x: Tensor = x
        self.norm = None
        self.below = below
        self._known, self._context, self._normed = h, context, None

    @property
    def h(self) -> Tensor:
        if self._known is None:
            self._known = self.below(self.x, self.positions)
        return self._known

    @property
    def dtype(self) -> torch.dtype:
        return self.h.dtype

    def with_output(self, h: Tensor) -> MapState:
        return MapState(self.x, self.below, self._context, h).at_positions(self.positions)

    def after_member(
        self, out: Tensor, member: PrimitiveModule, weights: WeightTree | None = None
    ) -> MapState:
        below = UpdatedMap(self, member, weights)
        return MapState(self.x, below, self._context, out).at_positions(self.positions)

    def with_input(self, x: Tensor) -> MapState:
        """The state with another input of the map."""
        return MapState(x, self.below, self._context).at_positions(self.positions)

    def select(
        self,
        index: tuple[Tensor | slice, ...],
        positions: TokenPositions,
        rows: Tensor | None = None,
    ) -> MapState:
        h, below = self._known, self.below
        if rows is None:
            h = self.h  # ranges of the tokens are computed at once
        else:
            below = below.select_rows(rows, len(self.x))
        h = None if h is None else h[index]
        return MapState(self.x[index], below, self._context, h).at_positions(positions)

    def add_and_norm(self, out: Tensor) -> Tensor:
        return out


class UpdatedMap(Map):
    """The map that a primitive makes of the one below it."""

    def __init__(
        self, state: MapState, member: PrimitiveModule, weights: WeightTree | None
    ) -> None:
        self.state, self.member, self.weights = state, member, weights
        self.stock = state.below.stock

    def select_rows(self, rows: Tensor, count: int) -> Map:
        state = self.state.select_rows(rows)
        assert isinstance(state, MapState)
        return UpdatedMap(state, self.member, weights_of_rows(self.weights, rows, count))

    def __call__(self, x: Tensor, positions: TokenPositions) -> Tensor:
        state = self.state.with_input(x).at_positions(
            positions._replace(start=self.state.positions.start)
        )
        if self.weights is None:
            return self.member(state)
        residual, contribution = self.member.residual_and_update(state, self.weights)
        return (residual + contribution).to(state.dtype)

    def affine(self) -> Affine | None:
        below = self.state.below
        found = below.affine()
        return None if found is None else update_map(self.member, found, below.stock, self.weights)


class MapUpdateModule(PrimitiveModule):
    """A primitive that changes a map."""

    def updated_map(
        self, below: Affine, stock: StockMap, weights: WeightTree | None = None
    ) -> Affine | None:
        """Weight and bias of the changed map; None where it has no such form."""
        return None


def update_map(
    module: PrimitiveModule, below: Affine, stock: StockMap, weights: WeightTree | None = None
) -> Affine | None:
    """Weight and bias of what a primitive makes of a map; None where it has no such form."""
    if isinstance(module, MapUpdateModule):
        return module.updated_map(below, stock, weights)
    each: Any = None
    if isinstance(module, ChainModule):
        each = [None] * len(module.members) if weights is None else weights
        found: Affine | None = below
        for member, own in zip(module.members, each, strict=True):
            found = None if found is None else update_map(member, found, stock, own)  # type: ignore[arg-type]
        return found
    if not isinstance(module, WeightedMeanModule | ScaledUpdateModule):
        return None
    each = [
        update_map(b, below, stock, w)
        for b, w in zip(module.branches, module.branch_weights(weights), strict=True)
    ]
    if any(one is None for one in each):
        return None
    if isinstance(module, WeightedMeanModule):
        return _sum([below, *each], [module.node.identity_weight, *module.node.weights])
    return _sum([below, *each], [1 - module.node.factor, module.node.factor])


def _sum(maps: Sequence[Affine], factors: Sequence[float]) -> Affine:
    pairs = [(one, factor) for one, factor in zip(maps, factors, strict=True) if factor]
    biases = [factor * one.bias for one, factor in pairs if one.bias is not None]
    weight = sum((factor * one.weight for one, factor in pairs), torch.zeros(()).to(maps[0].weight))
    bias = sum(biases[1:], biases[0]) if biases else None
    return Affine(weight, bias)
