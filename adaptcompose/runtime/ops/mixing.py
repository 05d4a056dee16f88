"""Constant combinations at work: means, factors, splits of the tokens, joined bottlenecks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from adaptcompose.ir import mixing
from adaptcompose.ir.primitives import Placement, Primitive
from adaptcompose.runtime.ops.folded_fusion import FoldedMember
from adaptcompose.runtime.ops.primitives import (
    NORM_EPS,
    PrimitiveModule,
    State,
    WeightTree,
    build_module,
    implements,
    product,
)
from adaptcompose.runtime.ops.weight_cache import WeightCache, needs_gradient
from adaptcompose.runtime.parts import Parts


class BranchesModule(PrimitiveModule):
    """What stands around others, and has no weights beside theirs."""

    def __init__(self, branches: Sequence[Primitive], parts: Parts) -> None:
        super().__init__()
        self.branches: Any = nn.ModuleList(build_module(branch, parts) for branch in branches)

    def stackable_weights(self) -> WeightTree | None:
        found = tuple(branch.stackable_weights() for branch in self.branches)
        return None if any(one is None for one in found) else found

    def branch_weights(self, weights: WeightTree | None) -> Sequence[WeightTree | None]:
        """The weights of each branch."""
        return (None,) * len(self.branches) if weights is None else weights


def weights_of_rows(weights: WeightTree, rows: Tensor, count: int) -> WeightTree:
    """Of stacked weights, each for a block of `count` rows, those of some of the rows."""
    if isinstance(weights, Tensor):
        return weights[rows // (count // len(weights))]
    if isinstance(weights, Mapping):
        return {key: weights_of_rows(value, rows, count) for key, value in weights.items()}
    if weights is None:
        return None
    each = [weights_of_rows(value, rows, count) for value in weights]
    return weights._make(each) if hasattr(weights, "_make") else tuple(each)


def update_relative_to(
    found: tuple[Tensor, Tensor], own: Placement, state: State, place: Placement
) -> Tensor:
    """What a branch adds to the state that `place` names, whatever it is added to itself."""
    residual, contribution = found
    if own.residual_source == place.residual_source:
        return contribution
    return contribution + (residual - state.residual(place))


@implements(mixing.WeightedMean)
class WeightedMeanModule(BranchesModule):
    """Every branch in full, then the weighted sum."""

    def __init__(self, node: mixing.WeightedMean, parts: Parts) -> None:
        super().__init__(node.branches, parts)
        self.node = node

    def residual_and_update(
        self, state: State, weights: WeightTree | None = None
    ) -> tuple[Tensor, Tensor]:
        node, place = self.node, self.node.placement
        residual = state.residual(place)
        mixed = (
            node.identity_weight * (state.h - residual)
            if node.identity_weight
            else torch.zeros_like(residual)
        )
        branches = zip(
            node.weights, node.branches, self.branches, self.branch_weights(weights), strict=True
        )
        for factor, branch, module, own in branches:
            mixed = mixed + factor * update_relative_to(
                module.residual_and_update(state, own), branch.placement, state, place
            )
        return residual, mixed


@implements(mixing.ScaledUpdate)
class ScaledUpdateModule(BranchesModule):
    def __init__(self, node: mixing.ScaledUpdate, parts: Parts) -> None:
        super().__init__(node.inner(), parts)
        self.node = node

    def residual_and_update(
        self, state: State, weights: WeightTree | None = None
    ) -> tuple[Tensor, Tensor]:
        by = self.node.factor
        residual, contribution = self.branches[0].residual_and_update(
            state, self.branch_weights(weights)[0]
        )
        if self.node.placement.residual_source == "output":
            return residual, by * contribution
        return residual, by * contribution + (by - 1) * (residual - state.h)


@implements(mixing.TokenSplit)
class TokenSplitModule(BranchesModule):
    """Each branch on its own tokens."""

    counts_tokens: ClassVar[bool] = True

    def __init__(self, node: mixing.TokenSplit, parts: Parts) -> None:
        super().__init__(node.inner(), parts)
        self.node = node

    def residual_and_update(
        self, state: State, weights: WeightTree | None = None
    ) -> tuple[Tensor, Tensor]:
        gaps = state.positions.padding
        if gaps is None:
            return self._split_tokens(state, weights)
        # shorter prompts are padded in front, and tokens are counted behind the padding
        found = state.residual(self.node.placement)
        contribution = torch.zeros_like(found)
        for gap in gaps.unique().tolist():
            rows = (gaps == gap).nonzero().flatten()
            here = state.select_rows(rows).without_padding(gap)
            own = None if weights is None else weights_of_rows(weights, rows, len(gaps))
            _, added_here = self._split_tokens(here, own)
            contribution = contribution.to(added_here.dtype)
            contribution[rows, -added_here.shape[1] :] = added_here
        return found, contribution

    def _split_tokens(self, state: State, weights: WeightTree | None) -> tuple[Tensor, Tensor]:
        place = self.node.placement
        modules = iter(zip(self.branches, self.branch_weights(weights), strict=True))
        ends = (*self.node.boundaries, None)
        pieces = []
        for branch, start, end in zip(
            self.node.branches, (0, *self.node.boundaries), ends, strict=True
        ):
            module, own = (None, None) if branch is None else next(modules)
            here = state.select_tokens(start, end)
            if here.residual(place).shape[1] == 0:
                continue
            if branch is None or module is None:
                pieces.append(here.h - here.residual(place))
            else:
                pieces.append(
                    update_relative_to(
                        module.residual_and_update(here, own), branch.placement, here, place
                    )
                )
        return state.residual(place), torch.cat(pieces, dim=1)


@implements(mixing.ConcatenatedBottlenecks)
class ConcatenatedBottlenecksModule(PrimitiveModule):
    """One product down and one up; the concatenated matrices are kept while nothing is trained."""

    def __init__(self, node: mixing.ConcatenatedBottlenecks, parts: Parts) -> None:
        super().__init__()
        self.node = node
        self.members: Any = nn.ModuleList(FoldedMember(member, parts) for member in node.members)
        self.literal = build_module(node.literal, parts)
        self.ranks = [member.rank for member in node.members]
        self.uniform = len({member.activation for member in node.members}) == 1
        self._cache: WeightCache[tuple[Tensor, ...]] = WeightCache()

    def stackable_weights(self) -> WeightTree | None:
        return None if self._is_stochastic() else self._matrices()

    def residual_and_update(
        self, state: State, weights: WeightTree | None = None
    ) -> tuple[Tensor, Tensor]:
        if self._is_stochastic():
            return self.literal.residual_and_update(state)
        down, down_bias, up, up_bias = self._matrices() if weights is None else weights
        place = self.node.placement
        x = state.read(place).to(down.dtype)
        z = self._activated(product(self._input(x), down, down_bias))
        return state.residual(place), product(z, up, up_bias)

    def _is_stochastic(self) -> bool:
        """What falls out by chance is decided per member."""
        return self.training and any(m.dropout or m.depth_drop for m in self.node.members)

    def _input(self, x: Tensor) -> Tensor:
        if not self.node.members[0].norm_before:
            return x
        return functional.layer_norm(x, x.shape[-1:], eps=NORM_EPS)

    def _activated(self, inner: Tensor) -> Tensor:
        if self.uniform:
            activated: Tensor = self.members[0].activation(inner)
            return activated
        pieces = zip(self.members, inner.split(self.ranks, dim=-1), strict=True)
        return torch.cat([member.activation(piece) for member, piece in pieces], dim=-1)

    def _matrices(self) -> tuple[Tensor, ...]:
        if needs_gradient(self._sources()):
            return self._join()
        return self._cache.get(self._sources(), self._join)

    def _sources(self) -> Iterator[Tensor]:
        for member in self.members:
            yield from member.weights.source_tensors()

    def _join(self) -> tuple[Tensor, ...]:
        """D, b, U and c of all members, their weights worked into U and c."""
        read = [(member, member.weights.read()) for member in self.members]
        downs = [member.down(weights) for member, weights in read]
        ups = [member.up(weights) for member, weights in read]
        pairs = list(zip(self.node.weights, ups, strict=True))
        return (
            torch.cat([weight for weight, _ in downs]),
            torch.cat([bias for _, bias in downs]),
            torch.cat([factor * weight for factor, (weight, _) in pairs], dim=1),
            torch.stack([factor * bias for factor, (_, bias) in pairs]).sum(dim=0),
        )
