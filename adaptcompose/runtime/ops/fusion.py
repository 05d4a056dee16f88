"""AdapterFusion, computed literally: every branch, the attention over them, the weighted sum."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from adaptcompose.ir.fusion import Mixture
from adaptcompose.runtime.ops.primitives import (
    PrimitiveModule,
    State,
    WeightTree,
    build_module,
    implements,
    linear_map,
)
from adaptcompose.runtime.parts import Parts


@implements(Mixture)
class MixtureModule(PrimitiveModule):
    """AdapterFusion, literally: every branch in full, then scores, then the weighted mean."""

    def __init__(self, node: Mixture, parts: Parts) -> None:
        super().__init__()
        self.node = node
        self.branches = nn.ModuleList(build_module(branch, parts) for branch in node.branches)
        self.weights = parts[node.attention.part][node.attention.site]
        self.dropout = nn.Dropout(node.attention.dropout or 0.0)
        self.temperature = 1.0  # set by the trainer where the fusion asks for it
        self.on_attention: Callable[[Tensor], None] | None = None  # set where attention is measured

    def residual_and_update(
        self, state: State, weights: WeightTree | None = None
    ) -> tuple[Tensor, Tensor]:
        maps = self.node.attention
        splits = [branch.residual_and_update(state) for branch in self.branches]  # type: ignore[operator]
        residual = splits[0][0]
        contributions = torch.stack([u for _, u in splits], dim=-2)  # [batch, tokens, n, width]
        weights = self.weights.read()
        query = state.h if maps.query_before_norm else state.read(self.node.placement)
        if maps.query:
            query = linear_map(weights, "query", query)
        keys = linear_map(weights, "key", contributions) if maps.key else contributions
        alpha = self._attention((keys * query.unsqueeze(-2)).sum(dim=-1))
        values = contributions
        if maps.residual_before:
            values = values + residual.unsqueeze(-2)
        if maps.value:
            values = linear_map(weights, "value", values)
        mixed = (alpha.unsqueeze(-1) * values).sum(dim=-2)
        return residual, mixed - residual if maps.residual_before else mixed

    def _attention(self, scores: Tensor) -> Tensor:
        if self.training:
            scores = scores / self.temperature
        alpha: Tensor = self.dropout(scores).softmax(dim=-1)
        if self.on_attention is not None:
            self.on_attention(alpha)
        return alpha
