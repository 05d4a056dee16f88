"""Tensors of several adapters as one: sums, TIES and DARE.

With δᵢ = θᵢ − θ₀, θ₀ what a tensor is where an adapter does nothing, and written weights wᵢ:
linear   θ₀ + Σ wᵢ δᵢ (task arithmetic, Ilharco et al., 2023)
ties     of each δᵢ only a share `density` stays, the largest; every number gets the sign of
         Σ wᵢ δᵢ; what agrees is averaged by |wᵢ|, and that times Σ |wᵢ| (Yadav et al., 2023)
dare     each number of δᵢ stays with probability `density` and is divided by it, then linear (Yu et
         al., 2024); which ones is decided by `seed`, the member's place, site and tensor
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

from adaptcompose.backbones.layout import Site
from adaptcompose.ir.primitives import MergeRecipe


def merge_tensors(
    recipe: MergeRecipe, site: Site, name: str, tensors: Sequence[Tensor], identity_value: float
) -> Tensor:
    """One tensor for those of the members, by the recipe; differentiable."""
    deltas = [tensor - identity_value for tensor in tensors] if identity_value else list(tensors)
    if recipe.method == "ties":
        return identity_value + _merge_agreeing(
            [_keep_largest(d, recipe.density) for d in deltas], recipe.weights
        )
    if recipe.method == "dare" and recipe.density < 1:
        words = [f"{recipe.seed}/{place}/{site}/{name}" for place in range(len(deltas))]
        deltas = [d * _dare_mask(d, recipe.density, w) for d, w in zip(deltas, words, strict=True)]
    total = torch.stack([w * d for w, d in zip(recipe.weights, deltas, strict=True)]).sum(dim=0)
    return identity_value + total


def _keep_largest(delta: Tensor, density: float) -> Tensor:
    count = max(1, math.ceil(density * delta.numel()))
    if count == delta.numel():
        return delta
    mask = torch.zeros(delta.numel(), dtype=delta.dtype, device=delta.device)
    mask[delta.detach().abs().flatten().topk(count).indices] = 1
    return delta * mask.view_as(delta)


def _merge_agreeing(deltas: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    factors = torch.tensor(weights, dtype=deltas[0].dtype, device=deltas[0].device)
    factors = factors.view(-1, *[1] * deltas[0].dim())
    stacked = torch.stack(list(deltas)) * factors
    agree = (stacked.sign() == stacked.sum(dim=0).sign()) & (stacked != 0)
    mass = (agree * factors.abs()).sum(dim=0)
    mean = (stacked * agree).sum(dim=0) / mass.where(mass > 0, 1.0)
    return mean * factors.abs().sum()


def _dare_mask(delta: Tensor, density: float, words: str) -> Tensor:
    """1/density where a number stays, 0 elsewhere; the same on every machine."""
    generator = torch.Generator().manual_seed(zlib.crc32(words.encode()))
    chance = torch.rand(delta.shape, generator=generator, dtype=torch.float64)
    return (chance < density).to(delta) / density
