"""The backbone's norm after a sum, as a site asks for it: of whole states, or of a part of them."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from adaptcompose.runtime.call_context import TokenPositions


class Norm(ABC):
    """The backbone's norm after a residual sum, as sites call it."""

    @abstractmethod
    def __call__(self, total: Tensor) -> Tensor:
        """LN(total), [batch, tokens, width]."""

    @abstractmethod
    def select(self, positions: TokenPositions, rows: Tensor | None = None) -> Norm:
        """The norm for tokens at `positions`, in all rows or a selection.

        One with a composition of its own may differ from row to row and from token to token.
        """


class StockNorm(Norm):
    """The backbone's own norm, the same for all rows and tokens."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, total: Tensor) -> Tensor:
        out: Tensor = self.module(total)
        return out

    def select(self, positions: TokenPositions, rows: Tensor | None = None) -> Norm:
        return self


def norm_of(module: nn.Module) -> Norm:
    """Adapt a module to the `Norm` interface."""
    return module if isinstance(module, Norm) else StockNorm(module)
