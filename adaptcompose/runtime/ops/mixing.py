"""Constant combinations at work: means, factors, splits of the tokens, joined bottlenecks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from adaptcompose.ir import mixing as combination
from adaptcompose.ir.primitives import Placement, Primitive
from adaptcompose.runtime.ops.folded_fusion import RunningMember
from adaptcompose.runtime.ops.primitives import (
    NORM_EPS,
    Constants,
    Running,
    State,
    product,
    running,
    runs,
)
from adaptcompose.runtime.ops.weight_cache import Kept, learning
from adaptcompose.runtime.parts import Parts


class RunningBranches(Running):
    """What stands around others, and has no weights beside theirs."""

    def __init__(self, branches: Sequence[Primitive], parts: Parts) -> None:
        super().__init__()
        self.branches: Any = nn.ModuleList(running(branch, parts) for branch in branches)

    def constants(self) -> Constants | None:
        found = tuple(branch.constants() for branch in self.branches)
        return None if any(one is None for one in found) else found

    def each(self, weights: Constants | None) -> Sequence[Constants | None]:
        """The weights of each branch."""
        return (None,) * len(self.branches) if weights is None else weights


def of_rows(weights: Constants, rows: Tensor, count: int) -> Constants:
    """Of stacked weights, each for a block of `count` rows, those of some of the rows."""
    if isinstance(weights, Tensor):
        return weights[rows // (count // len(weights))]
    if isinstance(weights, Mapping):
        return {key: of_rows(value, rows, count) for key, value in weights.items()}
    if weights is None:
        return None
    each = [of_rows(value, rows, count) for value in weights]
    return weights._make(each) if hasattr(weights, "_make") else tuple(each)


def added(found: tuple[Tensor, Tensor], own: Placement, state: State, place: Placement) -> Tensor:
    """What a branch adds to the state that `place` names, whatever it is added to itself."""
    residual, contribution = found
    if own.base == place.base:
        return contribution
    return contribution + (residual - state.residual(place))


@runs(combination.Mean)
class RunningMean(RunningBranches):
    """Every branch in full, then the weighted sum."""

    def __init__(self, node: combination.Mean, parts: Parts) -> None:
        super().__init__(node.branches, parts)
        self.node = node

    def split(self, state: State, weights: Constants | None = None) -> tuple[Tensor, Tensor]:
        node, place = self.node, self.node.placement
        residual = state.residual(place)
        mixed = node.still * (state.h - residual) if node.still else torch.zeros_like(residual)
        branches = zip(node.weights, node.branches, self.branches, self.each(weights), strict=True)
        for factor, branch, module, own in branches:
            mixed = mixed + factor * added(module.split(state, own), branch.placement, state, place)
        return residual, mixed


@runs(combination.Scaled)
class RunningScaled(RunningBranches):
    def __init__(self, node: combination.Scaled, parts: Parts) -> None:
        super().__init__(node.inner(), parts)
        self.node = node

    def split(self, state: State, weights: Constants | None = None) -> tuple[Tensor, Tensor]:
        by = self.node.by
        residual, contribution = self.branches[0].split(state, self.each(weights)[0])
        if self.node.placement.base == "output":
            return residual, by * contribution
        return residual, by * contribution + (by - 1) * (residual - state.h)


@runs(combination.Split)
class RunningSplit(RunningBranches):
    """Each branch on its own tokens."""

    def __init__(self, node: combination.Split, parts: Parts) -> None:
        super().__init__(node.inner(), parts)
        self.node = node

    def split(self, state: State, weights: Constants | None = None) -> tuple[Tensor, Tensor]:
        gaps = state.places.gap
        if gaps is None:
            return self._split(state, weights)
        # shorter prompts are padded in front, and tokens are counted behind the padding
        found = state.residual(self.node.placement)
        contribution = torch.zeros_like(found)
        for gap in gaps.unique().tolist():
            rows = (gaps == gap).nonzero().flatten()
            here = state.take(rows).behind(gap)
            own = None if weights is None else of_rows(weights, rows, len(gaps))
            _, added_here = self._split(here, own)
            contribution = contribution.to(added_here.dtype)
            contribution[rows, -added_here.shape[1] :] = added_here
        return found, contribution

    def _split(self, state: State, weights: Constants | None) -> tuple[Tensor, Tensor]:
        place = self.node.placement
        modules = iter(zip(self.branches, self.each(weights), strict=True))
        ends = (*self.node.at, None)
        pieces = []
        for branch, start, end in zip(self.node.branches, (0, *self.node.at), ends, strict=True):
            module, own = (None, None) if branch is None else next(modules)
            here = state.tokens(start, end)
            if here.residual(place).shape[1] == 0:
                continue
            if branch is None or module is None:
                pieces.append(here.h - here.residual(place))
            else:
                pieces.append(added(module.split(here, own), branch.placement, here, place))
        return state.residual(place), torch.cat(pieces, dim=1)


@runs(combination.Joined)
class RunningJoined(Running):
    """One product down and one up; the concatenated matrices are kept while nothing is trained."""

    def __init__(self, node: combination.Joined, parts: Parts) -> None:
        super().__init__()
        self.node = node
        self.members: Any = nn.ModuleList(RunningMember(member, parts) for member in node.members)
        self.literal = running(node.literal, parts)
        self.ranks = [member.rank for member in node.members]
        self.uniform = len({member.activation for member in node.members}) == 1
        self._kept: Kept[tuple[Tensor, ...]] = Kept()

    def constants(self) -> Constants | None:
        return None if self._noisy() else self._matrices()

    def split(self, state: State, weights: Constants | None = None) -> tuple[Tensor, Tensor]:
        if self._noisy():
            return self.literal.split(state)
        down, down_bias, up, up_bias = self._matrices() if weights is None else weights
        place = self.node.placement
        x = state.read(place).to(down.dtype)
        z = self._activated(product(self._input(x), down, down_bias))
        return state.residual(place), product(z, up, up_bias)

    def _noisy(self) -> bool:
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
        if learning(self._sources()):
            return self._join()
        return self._kept.get(self._sources(), self._join)

    def _sources(self) -> Iterator[Tensor]:
        for member in self.members:
            yield from member.weights.stored()

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
