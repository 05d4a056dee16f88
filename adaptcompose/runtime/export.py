"""A composition as a module of tensors only, for torch.export and ONNX."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from adaptcompose.diagnostics.codes import AC511
from adaptcompose.diagnostics.diagnostic import Failed

if TYPE_CHECKING:
    from adaptcompose.runtime.model import ComposedModel


class Exportable(nn.Module):
    """Token ids and mask in, logits or the last hidden state out."""

    def __init__(self, model: ComposedModel, omitted: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.model = model
        self.omitted = omitted

    def extra_repr(self) -> str:
        """What the export leaves out."""
        return f"without: {', '.join(self.omitted)}" if self.omitted else ""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        out = self.model(input_ids=input_ids, attention_mask=attention_mask)
        found = out.last_hidden_state if out.logits is None else out.logits
        assert found is not None
        return found


def exportable(model: ComposedModel) -> Exportable:
    """A frozen copy whose computed weights are constants of the graph.

    Which composition a row has is decided outside of the graph, so `route` and `parallel` are
    refused: export their branches one by one. What a model keeps from call to call stays behind, a
    cached trunk and cached keys and values; the printed module says so.
    """
    if model.program.names:
        raise Failed(
            AC511.at(operator="parallel" if model.program.branch_layer is not None else "route")
        )
    twin = model.copy().eval()
    twin.requires_grad_(requires_grad=False)
    ids = torch.zeros(1, 2, dtype=torch.long, device=twin.device)
    with torch.no_grad():
        twin(input_ids=ids, attention_mask=torch.ones_like(ids))
    return Exportable(twin, tuple(_omitted_caches(model)))


def _omitted_caches(model: ComposedModel) -> Iterator[str]:
    """Yield what the exported graph leaves out because it persists between calls."""
    if model.trunk is not None:
        yield f"the cached trunk of {model.trunk.layers} layers"
    if model.composition.facts.layout.pooled_token != "first":
        yield "cached keys and values"
