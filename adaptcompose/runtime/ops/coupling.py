"""GLOW's coupling: each half is scaled and shifted by a function of the other half."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from adaptcompose.methods.invertible import AffineCoupling
from adaptcompose.runtime.ops.primitives import CouplingModule, State, implements

_CLAMP = 5.0  # factors stay within exp(±_CLAMP)
_SLOPE = 0.636  # about 2/π: atan reaches the clamp


@implements(AffineCoupling)
class AffineCouplingModule(CouplingModule):
    def _transform(self, state: State, weights: Mapping[str, Tensor]) -> Tensor:
        first = self.node.width // 2
        one, two = state.h[..., :first], state.h[..., first:]
        if self.node.inverse:
            logarithm, shift = self._factors(weights, "s1", one)
            two = (two - shift) * torch.exp(-logarithm)
            logarithm, shift = self._factors(weights, "s2", two)
            one = (one - shift) * torch.exp(-logarithm)
        else:
            logarithm, shift = self._factors(weights, "s2", two)
            one = one * torch.exp(logarithm) + shift
            logarithm, shift = self._factors(weights, "s1", one)
            two = two * torch.exp(logarithm) + shift
        return torch.cat([one, two], dim=-1).to(state.dtype)

    def _factors(
        self, weights: Mapping[str, Tensor], name: str, half: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The logarithm of the factor, and the shift."""
        scale, shift = self._net(weights, name, half).chunk(2, dim=-1)
        return _CLAMP * _SLOPE * torch.atan(scale / _CLAMP), shift
