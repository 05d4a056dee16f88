"""The backbone's norm after a sum, as a site asks for it: of whole states, or of a part of them."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from adaptcompose.runtime.call_context import TokenPositions


class Norm(ABC):
    """The norm of the backbone behind a sum, as a site asks for it: LN of what it is given."""

    @abstractmethod
    def __call__(self, total: Tensor) -> Tensor:
        """LN(total), [batch, tokens, width]."""

    @abstractmethod
    def select(self, positions: TokenPositions, rows: Tensor | None = None) -> Norm:
        """The norm of tokens at `positions`, in some rows of the batch or all.

        One with a composition of its own may differ from row to row and from token to token.
        """


class StockNorm(Norm):
    """A norm that is as the backbone has it, the same for all rows and tokens."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, total: Tensor) -> Tensor:
        out: Tensor = self.module(total)
        return out

    def select(self, positions: TokenPositions, rows: Tensor | None = None) -> Norm:
        return self


def norm_of(module: nn.Module) -> Norm:
    """The module that stands for a norm, as a `Norm`."""
    return module if isinstance(module, Norm) else StockNorm(module)
