"""Sites at work: small modules that own the stock modules they stand for, swapped into a copy.

Their inner modules keep the stock names, so that the copy's keys stay those of the checkpoint. How
a kind of place is taken is said once, with `@takes`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from adaptcompose.backbones.layout import Facts, Kind, Site
from adaptcompose.ir.primitives import Primitive
from adaptcompose.runtime.call_context import Frame
from adaptcompose.runtime.ops.primitives import Running, State

Taking = Callable[[nn.Module, Site, Facts, Primitive, Running, Frame], None]
"""Put a running primitive at a site of a base model: (base, site, facts, node, running, frame)."""

_TAKING: dict[Kind, Taking] = {}


def takes(kind: Kind) -> Callable[[Taking], Taking]:
    """Say how a primitive is put at places of a kind."""

    def register(function: Taking) -> Taking:
        _TAKING[kind] = function
        return function

    return register


def take(
    base: nn.Module, site: Site, facts: Facts, node: Primitive, adapter: Running, frame: Frame
) -> None:
    """Put a running primitive at its site."""
    _TAKING[facts.layout.sites[site.name].kind](base, site, facts, node, adapter, frame)


class Proxy(nn.Module):
    """A module around a stock one; what is asked of it is asked of the stock module."""

    def __init__(self, stock: nn.Module) -> None:
        super().__init__()
        self.stock = stock

    def __getattr__(self, name: str) -> Any:
        # transformers reaches into the embeddings, for instance for their position ids
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("stock"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        stock = self.__dict__.get("_modules", {}).get("stock")
        if stock is not None and name in stock._modules:
            setattr(stock, name, value)  # a site inside is taken after the one around it
        else:
            super().__setattr__(name, value)


class Wrapper(Proxy):
    """A stock module and the composition beside it."""

    def __init__(self, stock: nn.Module, adapter: Running, frame: Frame) -> None:
        super().__init__(stock)
        self.adapter = adapter
        self.frame = frame


class Summand:
    """The output h of a sub-layer, as long as the input x of the sub-layer is not added to it.

    Layers add the two themselves, some of them behind a dropout that is no module of its own. What
    passes through that stays a summand; its sum with x is what `added` makes of h and x.
    """

    def __init__(self, h: Tensor, added: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.h = h
        self.added = added

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """The functions that layers call, in the one form that torch.compile follows."""
        first, *more = args
        if func.__name__ not in _SUMS:
            assert func is functional.dropout
            return cls(func(first.h, *more, **(kwargs or {})), first.added)
        one, x = (first, more[0]) if isinstance(first, cls) else (more[0], first)
        return one.added(one.h, x)


_SUMS = ("__add__", "__radd__", "add")
"""What `x + h` and `h + x` are called."""


class Inner(Wrapper):
    """A sub-layer with the composition behind it: there where its layer adds x to what it gives.

    `norm` is the norm of that sum, if the layer has one. Where a composition does without x, what
    it gives takes the place of the sum.
    """

    def __init__(
        self,
        stock: nn.Module,
        adapter: Running,
        frame: Frame,
        norm: nn.Module | None,
        *,
        finish: bool,
    ) -> None:
        super().__init__(stock, adapter, frame)
        self.norm = [norm]  # it is registered where it stands
        self.finish = finish

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        found = self.stock(*args, **kwargs)
        if isinstance(found, tuple):
            return (Summand(found[0], self.added), *found[1:])
        return Summand(found, self.added)

    def added(self, h: Tensor, x: Tensor) -> Tensor:
        """What stands in the layer for h + x."""
        out: Tensor = self.adapter(State(h, x, self.norm[0], self.frame))
        return out + x if self.finish else out


class Passed(Proxy):
    """The norm behind a sum, where the composition has done all that follows the sum."""

    def forward(self, state: Tensor) -> Tensor:
        return state


@takes("sublayer")
def take_sublayer(
    base: nn.Module, site: Site, facts: Facts, node: Primitive, adapter: Running, frame: Frame
) -> None:
    """Around the module that computes h."""
    path, behind, finish = facts.layout.path(site), facts.layout.norm(site), node.placement.finish
    norm = base.get_submodule(behind) if behind else None
    if norm is not None and not finish:
        base.set_submodule(behind, Passed(norm))
    stock = base.get_submodule(path)
    base.set_submodule(path, Inner(stock, adapter, frame, norm, finish=finish))


class Output(Wrapper):
    """A stock module whose output passes through the composition."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.adapter(State(self.stock(*args, **kwargs), frame=self.frame))


@takes("output")
def take_output(
    base: nn.Module, site: Site, facts: Facts, node: Primitive, adapter: Running, frame: Frame
) -> None:
    """Behind a module whose output is the state."""
    path = facts.layout.path(site)
    base.set_submodule(path, Output(base.get_submodule(path), adapter, frame))


class Input(Wrapper):
    """A stock module whose first argument passes through the composition before."""

    def forward(self, state: Tensor, *args: Any, **kwargs: Any) -> Any:
        return self.stock(self.adapter(State(state, frame=self.frame)), *args, **kwargs)


@takes("input")
def take_input(
    base: nn.Module, site: Site, facts: Facts, node: Primitive, adapter: Running, frame: Frame
) -> None:
    """In front of a module."""
    path = facts.layout.path(site)
    base.set_submodule(path, Input(base.get_submodule(path), adapter, frame))


@takes("vocabulary")
def take_vocabulary(
    base: nn.Module, site: Site, facts: Facts, node: Primitive, adapter: Running, frame: Frame
) -> None:
    """In front of the vocabulary matrix; a model with another head needs nothing there."""
    names = {name for name, _ in base.named_modules()}
    for path in facts.layout.paths(site):
        if path in names:
            base.set_submodule(path, Input(base.get_submodule(path), adapter, frame))
