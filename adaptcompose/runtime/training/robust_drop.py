"""Robust AdapterDrop (Rücklé et al., 2021): a random number of layers is dropped per batch.

Rücklé et al. (2021), section 3: for each batch, n is drawn and the adapters of the lowest n layers
are left out. The compositions `… | drop(bottom=n)` are ordinary programs that share their parts.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from adaptcompose.composition.operators import Drop
from adaptcompose.runtime.build import build
from adaptcompose.runtime.model import ComposedModel, Output


class RobustDrop(nn.Module):
    """One set of parts under every drop of a range; in evaluation, the composition itself."""

    accepts_loss_kwargs = False

    def __init__(self, full: ComposedModel, variants: dict[int, ComposedModel]) -> None:
        super().__init__()
        self.full = full
        self.levels = sorted(variants)
        self.variants = nn.ModuleList(variants[level] for level in self.levels)
        self.current = 0

    @classmethod
    def from_model(cls, model: ComposedModel, levels: range) -> RobustDrop:
        """Build the model's composition under `drop(bottom=n)` for every n of the range."""
        made = model.composition
        slots = model.head.slots if model.head is not None else None
        variants = {
            level: build(
                replace(Drop(), body=made.graph, bottom=level),
                made.facts,
                made.backbone,
                made.sources,
                head=made.head,
                existing_parts=dict(model.parts.items()),
                head_slots=slots,
            )
            for level in levels
        }
        return cls(model, variants)

    @property
    def config(self) -> Any:
        return self.full.config

    def draw_level(self, seed: int, step: int) -> None:
        """Draw n for a step from seed and step number, so that a resumed run draws the same."""
        self.current = random.Random(f"{seed}/{step}").randrange(len(self.levels))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Output:
        model = self.variants[self.current] if self.training else self.full
        found: Output = model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            labels=labels,
        )
        return found
