"""A composition as a module of tensors only, for torch.export and ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from adaptcompose.language.codes import AC511
from adaptcompose.language.diagnostics import Failed

if TYPE_CHECKING:
    from adaptcompose.runtime.model import ComposedModel


class Exportable(nn.Module):
    """Token ids and mask in, logits or the last hidden state out."""

    def __init__(self, model: ComposedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        out = self.model(input_ids=input_ids, attention_mask=attention_mask)
        found = out.last_hidden_state if out.logits is None else out.logits
        assert found is not None
        return found


def exportable(model: ComposedModel) -> Exportable:
    """A frozen copy whose computed weights are constants of the graph.

    Which composition a row has is decided outside of the graph, so `route` and `parallel` are
    refused: export their branches one by one. A cached trunk is left behind.
    """
    if model.program.names:
        raise Failed(AC511.at(operator="parallel" if model.program.fan is not None else "route"))
    twin = model.copy().eval()
    twin.trunk = None
    twin.requires_grad_(requires_grad=False)
    ids = torch.zeros(1, 2, dtype=torch.long, device=twin.device)
    with torch.no_grad():
        twin(input_ids=ids, attention_mask=torch.ones_like(ids))
    return Exportable(twin)
