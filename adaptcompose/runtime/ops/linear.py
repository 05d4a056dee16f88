"""Changes of linear maps and norms at work, and the sites at which they stand."""

from __future__ import annotations

from collections.abc import Mapping as Tensors
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from adaptcompose.compiler.passes.merge_deltas import MergedLinear
from adaptcompose.ir import linear
from adaptcompose.methods.method import SHARED_SITE
from adaptcompose.methods.vera import projection
from adaptcompose.runtime.ops.maps import Affine, MapState, MapUpdateModule, StockMap, update_map
from adaptcompose.runtime.ops.primitives import (
    State,
    WeightTree,
    build_module,
    implements,
    per_block,
    product,
)
from adaptcompose.runtime.ops.weight_cache import WeightCache, needs_gradient
from adaptcompose.runtime.parts import Parts


class LinearUpdateModule(MapUpdateModule):
    """A change with tensors of its own."""

    def __init__(self, node: linear.LinearUpdate, parts: Parts) -> None:
        super().__init__()
        self.node: Any = node
        self.weights = parts.weights(node)

    def stackable_weights(self) -> WeightTree:
        return self.weights.read()

    def read(self, weights: WeightTree | None) -> Tensors[str, Tensor]:
        """The given tensors, or its own."""
        return cast(Tensors[str, Tensor], self.weights.read() if weights is None else weights)

    def residual_and_update(
        self, state: State, weights: WeightTree | None = None
    ) -> tuple[Tensor, Tensor]:
        assert isinstance(state, MapState)
        return state.h, self.output_update(state, self.read(weights))

    def output_update(self, state: MapState, weights: Tensors[str, Tensor]) -> Tensor:
        """f'(x) − f(x)."""
        raise NotImplementedError


def gate_value(weights: Tensors[str, Tensor], x: Tensor, state: MapState) -> Tensor:
    """One number per example: σ(w·x + v), its mean over the tokens, padding included."""
    scores = product(x, weights["gate.weight"], weights["gate.bias"])
    return state.mean_over_tokens(torch.sigmoid(scores))


@implements(linear.LowRank)
class LowRankModule(LinearUpdateModule):
    def __init__(self, node: linear.LowRank, parts: Parts) -> None:
        super().__init__(node, parts)
        self.dropout = nn.Dropout(node.dropout)

    def output_update(self, state: MapState, weights: Tensors[str, Tensor]) -> Tensor:
        return self.with_bias_delta(self.low_rank(state, weights), state, weights)

    def low_rank(self, state: MapState, weights: Tensors[str, Tensor]) -> Tensor:
        """s·B A x, with its own bias if it has one."""
        out = product(self.inner(state, weights), weights["B"], weights.get("B.bias"))
        if not self.node.gate:
            return out * self.node.scale
        return out * gate_value(weights, state.x.to(out.dtype), state)

    def inner(self, state: MapState, weights: Tensors[str, Tensor]) -> Tensor:
        """A x."""
        if self.node.lookup:
            return state.below.stock.look_up(state.x, weights["A"])
        return product(self.dropout(state.x.to(weights["A"].dtype)), weights["A"])

    def with_bias_delta(
        self, added: Tensor, state: MapState, weights: Tensors[str, Tensor]
    ) -> Tensor:
        """With what another bias of the backbone's map adds."""
        if self.node.bias != "backbone":
            return added
        return added + per_block(weights["bias"], added) - _stock_bias(state.below.stock)

    def updated_map(
        self, below: Affine, stock: StockMap, weights: WeightTree | None = None
    ) -> Affine | None:
        if self.node.gate:
            return None
        read, scale = self.read(weights), self.node.scale
        weight = below.weight.to(read["A"].dtype) + scale * (read["B"] @ read["A"])
        return Affine(weight, self.updated_bias(below, stock, read))

    def updated_bias(
        self, below: Affine, stock: StockMap, read: Tensors[str, Tensor]
    ) -> Tensor | None:
        """The bias of the changed map."""
        added = None
        if self.node.bias == "own":
            added = self.node.scale * read["B.bias"]
        elif self.node.bias == "backbone":
            added = read["bias"] - _stock_bias(stock)
        if below.bias is None or added is None:
            return below.bias if added is None else added
        return below.bias + added


def _stock_bias(stock: StockMap) -> Tensor | float:
    bias = stock.affine().bias
    return 0.0 if bias is None else bias


@implements(linear.DecomposedLowRank)
class DecomposedLowRankModule(LowRankModule):
    """DoRA, on the weight of the map that it finds."""

    def output_update(self, state: MapState, weights: Tensors[str, Tensor]) -> Tensor:
        below = state.below.affine()
        assert below is not None, "stack refuses what has no weight below"
        is_scaled = self.node.adapterhub_norm  # the bias is multiplied, too
        bias = 0.0 if below.bias is None or is_scaled else per_block(below.bias, state.h)
        raw = state.h - bias + self.low_rank(state, weights)
        factor = per_block(self._factor(below.weight, weights), raw)
        return self.with_bias_delta(factor * raw + bias - state.h, state, weights)

    def _factor(self, weight: Tensor, weights: Tensors[str, Tensor]) -> Tensor:
        """m/‖V‖, from products no larger than A and B: ‖w + s·bA‖² = ‖w‖² + s·b·(2Aw + s·AAᵀb)."""
        with torch.no_grad():  # the norm counts as a constant
            down, up = weights["A"], weights["B"]
            scale = 1.0 if self.node.adapterhub_norm else self.node.scale
            weight = weight.to(down.dtype)
            crossed = 2 * (weight @ down.mT) + scale * (up @ (down @ down.mT))
            square = weight.square().sum(dim=-1) + scale * (up * crossed).sum(dim=-1)
            norm = square.clamp_min(0).sqrt()
        return weights["m"] / norm

    def updated_map(
        self, below: Affine, stock: StockMap, weights: WeightTree | None = None
    ) -> Affine | None:
        if self.node.gate:
            return None
        read = self.read(weights)
        factor = self._factor(below.weight, read)
        delta = self.node.scale * (read["B"] @ read["A"])
        weight = factor.unsqueeze(-1) * (below.weight.to(delta.dtype) + delta)
        if self.node.adapterhub_norm and below.bias is not None:
            below = Affine(below.weight, factor * below.bias)
        if self.node.bias == "own":
            read = {**read, "B.bias": factor * read["B.bias"]}
        return Affine(weight, self.updated_bias(below, stock, read))


@implements(linear.SharedLowRank)
class SharedLowRankModule(LinearUpdateModule):
    def __init__(self, node: linear.SharedLowRank, parts: Parts) -> None:
        super().__init__(node, parts)
        self.shared = None if node.projection is None else parts[node.projection][SHARED_SITE]
        self.dropout = nn.Dropout(node.dropout)

    def _projection(self, like: Tensor) -> tuple[Tensor, Tensor]:
        node = self.node
        if self.shared is not None:
            down, up = self.shared["A"], self.shared["B"]
        else:
            size = node.projection_size
            down, up = projection(node.seed, node.rank, size, like.dtype, like.device)
        return down[:, : node.width_in], up[: node.width]

    def output_update(self, state: MapState, weights: Tensors[str, Tensor]) -> Tensor:
        down, up = self._projection(weights["d"])
        x = self.dropout(state.x.to(weights["d"].dtype))
        inner = product(x, down)
        out = product(inner * per_block(weights["d"], inner), up)
        return out * per_block(weights["b"], out) * self.node.scale

    def updated_map(
        self, below: Affine, stock: StockMap, weights: WeightTree | None = None
    ) -> Affine | None:
        read = self.read(weights)
        down, up = self._projection(read["d"])
        delta = (read["b"].unsqueeze(-1) * up) @ (read["d"].unsqueeze(-1) * down)
        return Affine(below.weight.to(delta.dtype) + self.node.scale * delta, below.bias)


@implements(linear.Rescale)
class RescalingModule(LinearUpdateModule):
    def forward(self, state: State) -> Tensor:
        """Without f(x), where only f(l ⊙ x) is needed."""
        assert isinstance(state, MapState)
        out = self._scaled(state, self.read(None))
        return out.to(state.dtype if self.node.side == "output" else state.x.dtype)

    def _scaled(self, state: MapState, weights: Tensors[str, Tensor]) -> Tensor:
        factor = weights["l"]
        by = (
            gate_value(weights, state.x.to(factor.dtype), state)
            if self.node.gate
            else self.node.scale
        )
        if self.node.side == "output":
            return state.h * per_block(factor, state.h) * by
        x = state.x * per_block(factor, state.x) * by
        return state.with_input(x.to(state.x.dtype)).h

    def output_update(self, state: MapState, weights: Tensors[str, Tensor]) -> Tensor:
        return self._scaled(state, weights) - state.h

    def updated_map(
        self, below: Affine, stock: StockMap, weights: WeightTree | None = None
    ) -> Affine | None:
        if self.node.gate:
            return None
        factor = self.read(weights)["l"] * self.node.scale
        if self.node.side == "input":
            return Affine(below.weight * factor.unsqueeze(-2), below.bias)
        bias = None if below.bias is None else below.bias * factor
        return Affine(below.weight * factor.unsqueeze(-1), bias)


@implements(linear.BiasDelta)
class BiasDeltaModule(LinearUpdateModule):
    def output_update(self, state: MapState, weights: Tensors[str, Tensor]) -> Tensor:
        delta = per_block(weights["bias"], state.x)
        if self.node.replaces_bias:
            delta = delta - _stock_bias(state.below.stock)
        return delta.expand_as(state.h) if state.h.dim() == delta.dim() else delta + 0 * state.h

    def updated_map(
        self, below: Affine, stock: StockMap, weights: WeightTree | None = None
    ) -> Affine | None:
        delta = self.read(weights)["bias"]
        if self.node.replaces_bias:
            delta = delta - _stock_bias(stock)
        return Affine(below.weight, delta if below.bias is None else below.bias + delta)


@implements(linear.WeightReplacement)
class WeightReplacementModule(LinearUpdateModule):
    def forward(self, state: State) -> Tensor:
        """Without f(x), where it stands on the backbone's own map."""
        assert isinstance(state, MapState)
        if state.below is not state.below.stock:
            return super().forward(state)
        return self._replaced(state, self.read(None)).to(state.below.stock.affine().weight.dtype)

    def _replaced(self, state: MapState, weights: Tensors[str, Tensor]) -> Tensor:
        """W' x + b'."""
        if self.node.lookup:
            return state.below.stock.look_up(state.x, weights["weight"])
        x = state.x.to(weights["weight"].dtype)
        return product(x, weights["weight"], weights.get("bias"))

    def output_update(self, state: MapState, weights: Tensors[str, Tensor]) -> Tensor:
        below = state.below
        own = state.h if below is below.stock else below.stock(state.x, state.positions)
        return self._replaced(state, weights) - own

    def updated_map(
        self, below: Affine, stock: StockMap, weights: WeightTree | None = None
    ) -> Affine | None:
        own, read = stock.affine(), self.read(weights)
        weight = below.weight + (read["weight"] - own.weight)
        if below.bias is None or own.bias is None:
            return Affine(weight, below.bias)
        return Affine(weight, below.bias + (read["bias"] - own.bias))


@implements(linear.NormReplacement)
class NormReplacementModule(LinearUpdateModule):
    def output_update(self, state: MapState, weights: Tensors[str, Tensor]) -> Tensor:
        stock, weight = state.below.stock, weights["weight"]
        own = stock.affine()
        normed = stock.normalise(state.x.to(weight.dtype))
        added = normed * per_block(weight - own.weight, normed)
        if not self.node.bias:
            return added
        return added + per_block(weights["bias"] - _stock_bias(stock), normed)


@implements(MergedLinear)
class MergedLinearModule(MapUpdateModule):
    """The changed weight itself, kept while nothing is learned or changed."""

    def __init__(self, node: MergedLinear, parts: Parts) -> None:
        super().__init__()
        self.node = node
        self.literal = build_module(node.literal, parts)
        self.sources = [parts.weights(leaf) for leaf in node.updates]
        self._cache: WeightCache[Affine | None] = WeightCache()

    def forward(self, state: State) -> Tensor:
        assert isinstance(state, MapState)
        below = state.below
        # beside a change of the whole module, the weight below is not the backbone's
        merged = self._merged(below) if isinstance(below, StockMap) else None
        if merged is None:
            return self.literal(state)
        weight = merged.weight.to(state.x.dtype)
        bias = None if merged.bias is None else merged.bias.to(state.x.dtype)
        return nn.functional.linear(state.x, weight, bias)

    def residual_and_update(
        self, state: State, weights: WeightTree | None = None
    ) -> tuple[Tensor, Tensor]:
        return state.h, self(state) - state.h

    def updated_map(
        self, below: Affine, stock: StockMap, weights: WeightTree | None = None
    ) -> Affine | None:
        return update_map(self.literal, below, stock, weights)

    def _merged(self, stock: StockMap) -> Affine | None:
        """W + ΔW and its bias; None where the literal form has to be computed."""
        if self.training or not _is_plain_linear(stock.module):
            return None
        own = stock.affine()
        tensors = [t for t in own if t is not None]
        tensors += [t for source in self.sources for t in source.source_tensors()]
        if needs_gradient(tensors):
            return None
        return self._cache.get(tensors, lambda: update_map(self.literal, own, stock))


def _is_plain_linear(module: nn.Module) -> bool:
    """A map whose weight is one tensor in single precision or better."""
    weight: Any = getattr(module, "weight", None)
    known = type(module) in (nn.Linear, Conv1D)
    return known and weight.dtype in (torch.float32, torch.float64)
