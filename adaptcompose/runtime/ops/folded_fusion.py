"""The folded fusion: two products at inference, and the cheaper order of products in training.

Folded matrices are a cache over the parts' weights: an in-place change of any of them rebuilds it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from adaptcompose.compiler.passes.fold_fusion import FoldedMixture
from adaptcompose.ir.primitives import BottleneckMLP
from adaptcompose.runtime.ops.fusion import MixtureModule
from adaptcompose.runtime.ops.primitives import (
    NORM_EPS,
    PrimitiveModule,
    State,
    WeightTree,
    activation,
    implements,
    product,
)
from adaptcompose.runtime.ops.weight_cache import WeightCache, needs_gradient
from adaptcompose.runtime.parts import Parts, SiteWeights

_Read = Sequence[Mapping[str, Tensor]]
"""The weights of every member as they are in this forward."""


class FoldedWeights(NamedTuple):
    """Constants of one site, all in the type of the weights. R = Σ ranks, N members, d width."""

    down: Tensor  # [R, d]
    down_bias: Tensor  # [R]
    value: Tensor  # [d, R + N]: W_v U, W_v C
    score: Tensor | None = None  # [R + N, d]: Uᵀ W_kᵀ W_q, then Cᵀ W_kᵀ W_q; None: below down
    score_bias: Tensor | None = None  # [R + N]


class FoldedProducts(NamedTuple):
    """Of the columns [U C] of one site, R + N in number, in the type of the weights."""

    score: Tensor  # [R + N, d]: [U C]ᵀ W_kᵀ W_q; b_kᵀ W_q below it where there are keys
    bias: Tensor  # as many: the same with b_q for W_q
    value: Tensor  # [d, R + N]: W_v [U C]


class FoldedMember(nn.Module):
    """One member of a folded fusion: its weights, with scale and own norm worked in."""

    def __init__(self, node: BottleneckMLP, parts: Parts) -> None:
        super().__init__()
        self.node = node
        self.weights = parts.weights(node)
        self.activation = activation(node.activation)

    def down(self, weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """D and b; the affine part of a norm in front of D is worked in."""
        weight, bias = weights["down.weight"], weights["down.bias"]
        if not self.node.norm_before:
            return weight, bias
        gain, shift = weights["norm_before.weight"], weights["norm_before.bias"]
        return weight * gain, bias + weight @ shift

    def up(self, weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """s·U and s·c."""
        scale = weights["scale"] if isinstance(self.node.scale, str) else self.node.scale
        weight, bias = weights["up.weight"], weights["up.bias"]
        if isinstance(scale, Tensor):
            return weight * scale[:, None], bias * scale
        return (weight, bias) if scale == 1.0 else (weight * scale, bias * scale)


@implements(FoldedMixture)
class FoldedMixtureModule(PrimitiveModule):
    member_of: Tensor  # [R], the member of each row of D

    def __init__(self, node: FoldedMixture, parts: Parts) -> None:
        super().__init__()
        self.node = node
        self.members: Any = nn.ModuleList(FoldedMember(member, parts) for member in node.members)
        self.literal = MixtureModule(node, parts)
        self.weights: SiteWeights = self.literal.weights
        self.dropout = self.literal.dropout
        self.ranks = [member.rank for member in node.members]
        edges = [0, *torch.tensor(self.ranks).cumsum(0).tolist()]
        self.slices = [slice(start, end) for start, end in pairwise(edges)]
        numbers = [number for number, rank in enumerate(self.ranks) for _ in range(rank)]
        self.register_buffer("member_of", torch.tensor(numbers), persistent=False)
        normed = {member.norm_before for member in node.members}
        self.mixed_norms = len(normed) > 1
        self.normed = normed == {True}
        # one product gives z and the scores where both read the same state
        self.joined = not (node.attention.query_before_norm or self.normed or self.mixed_norms)
        self._cache: WeightCache[FoldedWeights] = WeightCache()

    def stackable_weights(self) -> WeightTree | None:
        """The folded matrices, where the formula has no others and nothing is being trained."""
        maps = self.node.attention
        gated = any(member.gate for member in self.node.members)
        moved = maps.residual_before and maps.value
        if self.training or self._needs_gradient() or gated or moved or self.mixed_norms:
            return None
        return self._cached_weights()

    def _needs_gradient(self) -> bool:
        return needs_gradient(self._sources())

    def residual_and_update(
        self, state: State, weights: WeightTree | None = None
    ) -> tuple[Tensor, Tensor]:
        if self.training and self._is_stochastic():
            return self.literal.residual_and_update(
                state
            )  # what falls out by chance is decided per member
        residual = state.residual(self.node.placement)
        x = state.read(self.node.placement).to(self._dtype)
        query = state.h.to(x.dtype) if self.node.attention.query_before_norm else x
        gates = None if weights is not None else self._gates(x, state)
        if weights is None and (self.training or self._needs_gradient()):
            mixed = self._mix_unfolded(x, query, gates)
        else:
            mixed = self._mix_folded(x, query, gates, weights or self._cached_weights())
        if self.node.attention.residual_before and self.node.attention.value:
            mixed = mixed + self._residual_update(residual)
        return residual, mixed

    def _is_stochastic(self) -> bool:
        return any(member.dropout or member.depth_drop for member in self.node.members)

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.members[0].weights.source_tensors()).dtype

    def _sources(self) -> Iterator[Tensor]:
        for module in (*self.members, self):
            yield from module.weights.source_tensors()

    def _read(self) -> _Read:
        return [member.weights.read() for member in self.members]

    def _hidden(self, inner: Tensor) -> Tensor:
        """z of all members side by side, [batch, tokens, R]; gates are worked in later."""
        names = {member.node.activation for member in self.members}
        if len(names) == 1:
            return self.members[0].activation(inner)
        pieces = zip(self.members, inner.split(self.ranks, dim=-1), strict=True)
        return torch.cat([member.activation(piece) for member, piece in pieces], dim=-1)

    def _projected(self, x: Tensor, read: _Read) -> Tensor:
        downs = [m.down(weights) for m, weights in zip(self.members, read, strict=True)]
        if not self.mixed_norms:
            weight, bias = (torch.cat(tensors) for tensors in zip(*downs, strict=True))
            return functional.linear(self._input(x), weight, bias)
        pairs = zip(self.members, downs, strict=True)
        inputs = {False: x, True: _standard(x)}
        return torch.cat(
            [functional.linear(inputs[m.node.norm_before], *down) for m, down in pairs], dim=-1
        )

    def _input(self, x: Tensor) -> Tensor:
        return _standard(x) if self.normed else x

    def _gates(self, x: Tensor, state: State) -> Tensor | None:
        """[batch, 1, N], or None where no member has a gate."""
        if not any(member.node.gate for member in self.members):
            return None
        columns = [x.new_ones(x.shape[0], 1, 1)] * len(self.members)
        for number, (member, weights) in enumerate(zip(self.members, self._read(), strict=True)):
            if member.node.gate:
                scores = functional.linear(x, weights["gate.weight"], weights["gate.bias"])
                columns[number] = state.mean_over_tokens(torch.sigmoid(scores))
        return torch.cat(columns, dim=-1)

    def _sums(self, products: Tensor) -> Tensor:
        """[…, R] summed within each member: […, N]."""
        if len(set(self.ranks)) == 1:
            return products.unflatten(-1, (len(self.ranks), self.ranks[0])).sum(dim=-1)
        return torch.stack([products[..., part].sum(dim=-1) for part in self.slices], dim=-1)

    def _scale_by_member(self, z: Tensor, per_member: Tensor) -> Tensor:
        """z, […, R], with what is each member's multiplied by its number of […, N]."""
        if len(set(self.ranks)) == 1:
            own = z.unflatten(-1, (len(self.ranks), self.ranks[0]))
            return (own * per_member.unsqueeze(-1)).flatten(-2)
        return z * per_member.index_select(-1, self.member_of)

    def _mix_folded(
        self, x: Tensor, query: Tensor, gates: Tensor | None, found: FoldedWeights
    ) -> Tensor:
        rank = sum(self.ranks)
        if found.score is None:
            inner, scoring = product(x, found.down, found.down_bias).tensor_split([rank], dim=-1)
        else:
            scoring = product(query, found.score, found.score_bias)
            if self.mixed_norms:
                inner = self._projected(x, self._read())
            else:
                inner = product(self._input(x), found.down, found.down_bias)
        z = self._hidden(inner)
        scores = self._sums(scoring[..., :rank] * z) + scoring[..., rank:]
        alpha = (scores if gates is None else scores * gates).softmax(dim=-1)
        weighted = alpha if gates is None else alpha * gates
        return product(
            torch.cat([self._scale_by_member(z, weighted), weighted], dim=-1), found.value
        )

    def _residual_update(self, residual: Tensor) -> Tensor:
        """What `residual_before` adds: W_v r − r."""
        value = self.weights["value.weight"]
        return functional.linear(residual.to(value.dtype), value) - residual

    def _mix_unfolded(self, x: Tensor, query: Tensor, gates: Tensor | None) -> Tensor:
        """Scores and values with every weight live, the products in the cheaper order."""
        read = self._read()
        z = self._hidden(self._projected(x, read))
        columns, rank = self._columns(read), z.shape[-1]
        if self._is_folding_cheaper(columns, x.shape[:-1].numel()):
            folded = self._products(columns, torch.promote_types(columns.dtype, torch.float32))
            scoring = functional.linear(query, folded.score, folded.bias)
            value = partial(functional.linear, weight=folded.value)
        else:
            scoring = self._scoring(query, columns)
            value = partial(self._apply_value_map, columns=columns)
        scores = self._sums(scoring[..., :rank] * z) + scoring[..., rank : columns.shape[1]]
        scores = scores if gates is None else scores * gates
        if self.node.attention.key:  # the same for all members, but dropout acts on true scores
            scores = scores + scoring[..., -1:]
        if self.training:
            scores = scores / self.literal.temperature
        alpha = self.dropout(scores).softmax(dim=-1)
        weighted = alpha if gates is None else alpha * gates
        return value(torch.cat([self._scale_by_member(z, weighted), weighted], dim=-1))

    def _is_folding_cheaper(self, columns: Tensor, tokens: int) -> bool:
        """Whether a step multiplies less with matrices made anew than with maps of every token.

        A map costs 3d² per token, forward and for two gradients, or 7/3 (R + N)d² per step on
        the average of the three; with made matrices a token pays 2d(R + N) for their gradients.
        """
        width, count = columns.shape
        maps = sum((self.node.attention.query, self.node.attention.key, self.node.attention.value))
        return 3 * tokens * (3 * maps * width - 2 * count) > 7 * maps * count * width

    def _scoring(self, query: Tensor, columns: Tensor) -> Tensor:
        """p·[U C] with p = W_kᵀ(W_q q + b_q), and (W_q q + b_q)·b_k behind it: [..., R + N + 1]."""
        p = asked = self._linear("query", query)
        if not self.node.attention.key:
            return functional.linear(p, columns.t())
        p = functional.linear(asked, self.weights["key.weight"].t())
        constant = functional.linear(asked, self.weights["key.bias"][None])
        return torch.cat([functional.linear(p, columns.t()), constant], dim=-1)

    def _apply_value_map(self, weighted: Tensor, columns: Tensor) -> Tensor:
        mixed = functional.linear(weighted, columns)
        if not self.node.attention.value:
            return mixed
        return functional.linear(mixed, self.weights["value.weight"])

    def _linear(self, name: str, state: Tensor) -> Tensor:
        if not getattr(self.node.attention, name):
            return state
        return functional.linear(
            state, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        )

    def _cached_weights(self) -> FoldedWeights:
        return self._cache.get(self._sources(), self._fold)

    def _fold(self) -> FoldedWeights:
        """Computed in float64, kept in the type of the weights."""
        kind, read = self._dtype, self._read()
        downs = [m.down(weights) for m, weights in zip(self.members, read, strict=True)]
        down, down_bias = (torch.cat(tensors) for tensors in zip(*downs, strict=True))
        columns = self._columns(read)
        score, bias, value = self._products(columns, torch.float64)
        count = columns.shape[1]
        score, bias = score[:count], bias[:count]  # b_k leaves the softmax
        if self.joined:
            down, down_bias = torch.cat([down, score]), torch.cat([down_bias, bias])
            found: tuple[Tensor, ...] = (down, down_bias, value)
        else:
            found = (down, down_bias, value, score, bias)
        return FoldedWeights(*(tensor.to(kind).contiguous() for tensor in found))

    def _columns(self, read: _Read) -> Tensor:
        """[U C], [d, R + N]."""
        ups = [m.up(weights) for m, weights in zip(self.members, read, strict=True)]
        return torch.cat([*(w for w, _ in ups), *(b[:, None] for _, b in ups)], dim=1)

    def _products(self, columns: Tensor, kind: torch.dtype) -> FoldedProducts:
        """What makes scores and values of [U C], computed in `kind` whatever runs around it."""
        maps, keys = self.node.attention, columns.t().to(kind)
        value = columns
        with torch.autocast(columns.device.type, enabled=False):
            if maps.key:
                weight, bias = (self.weights[f"key.{name}"].to(kind) for name in ("weight", "bias"))
                keys = torch.cat([keys @ weight.t(), bias[None]])
            score, score_bias = keys, keys.new_zeros(keys.shape[0])
            if maps.query:
                score_bias = keys @ self.weights["query.bias"].to(kind)
                score = keys @ self.weights["query.weight"].to(kind)
            if maps.value:
                value = self.weights["value.weight"].to(kind) @ columns.to(kind)
        return FoldedProducts(*(tensor.to(columns.dtype) for tensor in (score, score_bias, value)))


def _standard(x: Tensor) -> Tensor:
    """(x − mean) / sd: a LayerNorm without its affine part."""
    return functional.layer_norm(x, x.shape[-1:], eps=NORM_EPS)
