"""Sites at work: small modules that own the stock modules they stand for, swapped into a copy.

Their inner modules keep the stock names, so that the copy's keys stay those of the checkpoint.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from adaptcompose.runtime.primitives import Running, State


class SubLayer(nn.Module):
    """dense, dropout, LN(h + x), with the composition between dropout and norm."""

    def __init__(self, stock: nn.Module, adapter: Running, *, finish: bool) -> None:
        super().__init__()
        stock_parts: Any = stock
        self.dense: nn.Module = stock_parts.dense
        self.dropout: nn.Module = stock_parts.dropout
        self.LayerNorm: nn.Module = stock_parts.LayerNorm
        self.adapter = adapter
        self.finish = finish

    def forward(self, hidden_states: Tensor, input_tensor: Tensor) -> Tensor:
        h = self.dropout(self.dense(hidden_states))
        out = self.adapter(State(h, input_tensor, self.LayerNorm))
        return self.LayerNorm(out + input_tensor) if self.finish else out


class Wrapper(nn.Module):
    """A stock module and the composition beside it; what is asked of it is asked of the stock."""

    def __init__(self, stock: nn.Module, adapter: Running) -> None:
        super().__init__()
        self.stock = stock
        self.adapter = adapter

    def __getattr__(self, name: str) -> Any:
        # transformers reaches into the embeddings, for instance for their position ids
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("stock"), name)


class Output(Wrapper):
    """A stock module whose output passes through the composition."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.adapter(State(self.stock(*args, **kwargs)))


class Input(Wrapper):
    """A stock module whose input passes through the composition first."""

    def forward(self, state: Tensor) -> Tensor:
        return self.stock(self.adapter(State(state)))
