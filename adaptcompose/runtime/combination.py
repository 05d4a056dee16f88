"""Constant combinations at work: means, factors, splits of the tokens, joined bottlenecks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from adaptcompose.compiler import combination
from adaptcompose.compiler.program import Placement
from adaptcompose.runtime.folded import RunningMember, _standard
from adaptcompose.runtime.parts import Parts
from adaptcompose.runtime.primitives import Running, State, running, runs


def contribution(branch: Running, own: Placement, state: State, place: Placement) -> Tensor:
    """What a branch adds to the state that `place` names, whatever it is added to itself."""
    residual, added = branch.split(state)
    return added if own.base == place.base else added + (residual - state.residual(place))


def tokens(state: State, start: int, end: int) -> State:
    """The state of some tokens of every row."""
    x = None if state.x is None else state.x[:, start:end]
    return State(state.h[:, start:end], x, state.norm)


@runs(combination.Mean)
class RunningMean(Running):
    """Every branch in full, then the weighted sum."""

    def __init__(self, node: combination.Mean, parts: Parts) -> None:
        super().__init__()
        self.node = node
        self.branches: Any = nn.ModuleList(running(branch, parts) for branch in node.branches)

    def split(self, state: State) -> tuple[Tensor, Tensor]:
        node, place = self.node, self.node.placement
        residual = state.residual(place)
        mixed = node.still * (state.h - residual) if node.still else torch.zeros_like(residual)
        for weight, one, branch in zip(node.weights, node.branches, self.branches, strict=True):
            mixed = mixed + weight * contribution(branch, one.placement, state, place)
        return residual, mixed


@runs(combination.Scaled)
class RunningScaled(Running):
    def __init__(self, node: combination.Scaled, parts: Parts) -> None:
        super().__init__()
        self.node = node
        self.body = running(node.body, parts)

    def split(self, state: State) -> tuple[Tensor, Tensor]:
        by = self.node.by
        residual, added = self.body.split(state)
        if self.node.placement.base == "output":
            return residual, by * added
        return residual, by * added + (by - 1) * (residual - state.h)


@runs(combination.Split)
class RunningSplit(Running):
    """Each branch on its own tokens."""

    def __init__(self, node: combination.Split, parts: Parts) -> None:
        super().__init__()
        self.node = node
        self.branches: Any = nn.ModuleList(running(branch, parts) for branch in node.inner())

    def split(self, state: State) -> tuple[Tensor, Tensor]:
        place, modules = self.node.placement, iter(self.branches)
        residual = state.residual(place)
        edges = [0, *(min(at, state.h.shape[1]) for at in self.node.at), state.h.shape[1]]
        pieces = []
        for branch, (start, end) in zip(self.node.branches, pairwise(edges), strict=True):
            module = None if branch is None else next(modules)
            if start == end:
                continue
            if branch is None:
                pieces.append((state.h - residual)[:, start:end])
            else:
                pieces.append(
                    contribution(module, branch.placement, tokens(state, start, end), place)
                )
        return residual, torch.cat(pieces, dim=1)


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
        self._cache: tuple[tuple[int, ...], tuple[Tensor, ...]] | None = None

    def split(self, state: State) -> tuple[Tensor, Tensor]:
        if self.training and any(m.dropout or m.depth_drop for m in self.node.members):
            return self.literal.split(state)  # what falls out by chance is decided per member
        down, down_bias, up, up_bias = self._matrices()
        place = self.node.placement
        x = state.read(place).to(down.dtype)
        inner = _standard(x) if self.node.members[0].norm_before else x
        z = self._activated(functional.linear(inner, down, down_bias))
        return state.residual(place), functional.linear(z, up, up_bias)

    def _activated(self, inner: Tensor) -> Tensor:
        if self.uniform:
            activated: Tensor = self.members[0].activation(inner)
            return activated
        pieces = zip(self.members, inner.split(self.ranks, dim=-1), strict=True)
        return torch.cat([member.activation(piece) for member, piece in pieces], dim=-1)

    def _matrices(self) -> tuple[Tensor, ...]:
        sources = list(self._sources())
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in sources):
            return self._join()
        key = tuple(number for t in sources for number in (t._version, t.data_ptr()))
        if self._cache is None or self._cache[0] != key:
            with torch.no_grad():
                self._cache = key, self._join()
        return self._cache[1]

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
