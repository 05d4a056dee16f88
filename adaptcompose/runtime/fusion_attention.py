"""Measure how much attention the members of fusions get, which is what `prune` decides by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from adaptcompose.backbones.layout import Site
from adaptcompose.composition.fusion_activations import Activations
from adaptcompose.composition.operators.fuse import Fuse, fusions_of
from adaptcompose.composition.operators.prune import without_prunes
from adaptcompose.ir.fusion import Mixture
from adaptcompose.runtime.build import build
from adaptcompose.runtime.model import ComposedModel
from adaptcompose.runtime.ops.fusion import MixtureModule


class _AttentionSum:
    """Sums the attention at one site over all tokens that are not padding."""

    def __init__(self, node: Mixture) -> None:
        self.node = node
        self.total: Tensor | None = None
        self.count = 0.0
        self.mask: Tensor | None = None

    def __call__(self, alpha: Tensor) -> None:
        weights = alpha.double()
        if self.mask is not None and self.mask.shape == alpha.shape[:2]:
            weights = weights * self.mask.unsqueeze(-1)
            self.count += float(self.mask.sum())
        else:
            self.count += float(alpha[..., 0].numel())
        summed = weights.flatten(0, -2).sum(dim=0)
        self.total = summed if self.total is None else self.total + summed


def measure_attention(model: ComposedModel, batches: Iterable[Mapping[str, Tensor]]) -> Activations:
    """The mean attention on every member of every fusion over batches of examples.

    Measured on the literal program with all members, whatever `prune` keeps, over tokens that are
    no padding. A member that has nothing at a site has 0 there.
    """
    made = model.composition
    whole = without_prunes(made.graph)
    given = dict(model.parts.items())
    literal = build(
        whole,
        made.facts,
        made.backbone,
        made.sources,
        head=None,
        optimise=False,
        existing_parts=given,
    )
    watches = []
    for module in literal.modules():
        if isinstance(module, MixtureModule):
            module.on_attention = watch = _AttentionSum(module.node)
            watches.append(watch)
    with torch.no_grad():
        for batch in batches:
            for watch in watches:
                watch.mask = batch.get("attention_mask")
            literal(**batch)
    known = fusions_of(whole)
    found: dict[str, dict[str, tuple[float, ...]]] = {}
    for watch in watches:
        weights = watch.node.attention
        means = _means_by_member(watch, known[weights.part], weights.site, model)
        found.setdefault(weights.part, {})[str(weights.site)] = means
    return found


def _means_by_member(
    watch: _AttentionSum, fusion: Fuse, site: Site, model: ComposedModel
) -> tuple[float, ...]:
    """Means of the present members, in the order of all members."""
    assert watch.total is not None
    left = iter((watch.total / watch.count).tolist())
    facts = model.composition.facts
    return tuple(
        0.0 if block.at(site, facts) is None else float(next(left)) for block in fusion.inner()
    )
