"""What a composed model was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from transformers import PreTrainedModel

from adaptcompose.backbones.layout import Facts
from adaptcompose.composition.graph import Block, adapters_of
from adaptcompose.composition.heads import ResolvedHead
from adaptcompose.hub.lock import Pin
from adaptcompose.ir.program import Program
from adaptcompose.resolution.backbone import Backbone
from adaptcompose.resolution.sources import Sources
from adaptcompose.resolution.tokenizer import Tokenizer


@dataclass(frozen=True)
class Composition:
    """What a composed model was made from."""

    graph: Block
    facts: Facts
    program: Program
    heads: Mapping[str, ResolvedHead]
    backbone: PreTrainedModel = field(repr=False)
    sources: Sources = field(repr=False)
    backbone_pin: Pin | None = None
    tokenizer: Tokenizer | None = field(default=None, repr=False)
    """Another than the backbone's own, where one was named."""

    def with_backbone_files(self, backbone: Backbone) -> Composition:
        """The same record with the pinned files of its backbone."""
        return replace(self, backbone_pin=backbone.pin, tokenizer=backbone.tokenizer)

    @property
    def head(self) -> ResolvedHead:
        """The head of a graph that is one composition."""
        return self.heads.get("")

    @property
    def lock(self) -> dict[str, Any]:
        """The pins of the adapters by their references."""
        leaves = adapters_of(self.graph).values()
        return {str(leaf.ref): leaf.pin for leaf in leaves if leaf.ref is not None}
