"""A cache of values computed from weights; a change of any weight invalidates it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, Self, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


class WeightCache(nn.Module, Generic[T]):
    """A cached value and the tensors it was computed from.

    A change in place, by an optimiser or by hand, makes it anew; one that torch does not count,
    through `.data` or of tensors made in inference mode, is not seen before the next `train()` or
    `eval()`. While a graph is compiled or exported the value of the moment is taken as it is, or
    computed in the graph: a compiled model does not look for changes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._clear()

    def _clear(self) -> None:
        # detached twins, whose memory cannot be given to other tensors meanwhile
        self._aliases: tuple[Tensor, ...] = ()
        self._key: tuple[int, ...] = ()
        self._value: T | None = None

    def train(self, mode: bool = True) -> Self:
        """Drop the value: anything may have changed between the modes."""
        self._clear()
        return super().train(mode)

    def get(self, tensors: Iterable[Tensor], make: Callable[[], T]) -> T:
        """The cached value, or a new one computed without gradients."""
        if torch.compiler.is_compiling():
            return make() if self._value is None else self._value
        sources = tuple(tensors)
        key = tuple(number for t in sources for number in (tensor_version(t), t.data_ptr()))
        if self._value is None or self._key != key:
            # a tensor made in inference mode could not be used in training afterwards
            with torch.inference_mode(False), torch.no_grad():
                self._value = make()
            self._aliases, self._key = tuple(t.detach() for t in sources), key
        return self._value


def tensor_version(tensor: Tensor) -> int:
    """The in-place version counter of a tensor, as far as torch keeps one."""
    return 0 if tensor.is_inference() else tensor._version


def needs_gradient(tensors: Iterable[Tensor]) -> bool:
    """True if gradients must reach one of the tensors."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
