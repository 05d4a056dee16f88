"""The module that computes interventions: updates at the first and last tokens of each row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from adaptcompose.ir.intervention import PREFIX, SUFFIX, TIED, Intervention
from adaptcompose.runtime.ops.primitives import (
    PrimitiveModule,
    State,
    WeightTree,
    activation,
    implements,
    product,
)
from adaptcompose.runtime.parts import Parts


@implements(Intervention)
class InterventionModule(PrimitiveModule):
    """Computes the update of every unit for all tokens and selects those of its own."""

    counts_tokens: ClassVar[bool] = True

    def __init__(self, node: Intervention, parts: Parts) -> None:
        super().__init__()
        self.node = node
        self.weights = parts.weights(node)
        self.activation = activation(node.activation)
        self.dropout = nn.Dropout(node.dropout)

    def stackable_weights(self) -> WeightTree:
        return self.weights.read()

    def residual_and_update(
        self, state: State, weights: WeightTree | None = None
    ) -> tuple[Tensor, Tensor]:
        weights = self.weights.read() if weights is None else weights
        h = state.h.to(weights[f"{self.node.units[0]}.source.weight"].dtype)
        update = torch.zeros_like(h)
        for unit, tokens in self._tokens(state):
            own = self.dropout(h + self._update(h, weights, unit)) - h
            update = torch.where(tokens.unsqueeze(-1), own, update)
        return state.h, update

    def _update(self, h: Tensor, weights: Mapping[str, Tensor], unit: str) -> Tensor:
        projection = weights[f"{unit}.projection.weight"]
        source = product(h, weights[f"{unit}.source.weight"], weights[f"{unit}.source.bias"])
        inner = self.activation(source)
        if self.node.subtracts_projection:
            inner = inner - product(h, projection)
        return product(inner, projection.mT)

    def _tokens(self, state: State) -> Iterator[tuple[str, Tensor]]:
        """Each unit with the tokens at which it acts, [rows or 1, tokens]."""
        node, positions = self.node, state.positions
        from_start, from_end = positions.distances(state.h.shape[1], state.h.device)
        is_real = (from_start >= 0) & (from_end >= 0)
        last = is_real & (from_end < (0 if positions.has_cache else node.suffix_positions))
        first = is_real & (from_start < node.prefix_positions) & ~last
        tokens = {PREFIX: first, SUFFIX: last, TIED: first | last}
        yield from ((unit, tokens[unit]) for unit in node.units)
