"""Sites at work: small modules that own the stock modules they stand for, swapped into a copy.

Their inner modules keep the stock names, so that the copy's keys stay those of the checkpoint. How
a kind of place is taken is said once, with `@takes`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from adaptcompose.backbones.layout import Facts, Kind, Site
from adaptcompose.compiler.program import Primitive
from adaptcompose.runtime.frame import Frame
from adaptcompose.runtime.primitives import Running, State

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


class SubLayer(nn.Module):
    """dense, dropout, LN(h + x), with the composition between dropout and norm."""

    def __init__(self, stock: nn.Module, adapter: Running, frame: Frame, *, finish: bool) -> None:
        super().__init__()
        stock_parts: Any = stock
        self.dense: nn.Module = stock_parts.dense
        self.dropout: nn.Module = stock_parts.dropout
        self.LayerNorm: nn.Module = stock_parts.LayerNorm
        self.adapter = adapter
        self.frame = frame
        self.finish = finish

    def forward(self, hidden_states: Tensor, input_tensor: Tensor) -> Tensor:
        h = self.dropout(self.dense(hidden_states))
        state = State(h, input_tensor, self.LayerNorm, self.frame)
        out = self.adapter(state)
        return state.finish(out) if self.finish else out


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


class Whole:
    """The output of a sub-layer to which the layer's residual is not added.

    Layers compute x + h themselves; where h + x, or what replaces it, is there already, adding
    nothing is exact, and subtracting x first is not.
    """

    def __init__(self, out: Tensor) -> None:
        self.out = out

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Tensor:
        """The sum with a residual, in the one form that torch.compile follows."""
        assert func.__name__ in _SUMS
        return next(arg.out for arg in args if isinstance(arg, cls))


_SUMS = ("__add__", "__radd__", "add")
"""What `x + h` and `h + x` are called."""


class Entrance(Proxy):
    """The norm in front of a sub-layer: what enters it is the x of the site behind."""

    def __init__(self, stock: nn.Module, site: Site, frame: Frame) -> None:
        super().__init__(stock)
        self.site = site
        self.frame = frame

    def forward(self, x: Tensor) -> Tensor:
        self.frame.kept[self.site] = x
        normed: Tensor = self.stock(x)
        return normed


class Inner(Wrapper):
    """A sub-layer whose output h the layer adds to x, with the composition on h."""

    def __init__(
        self, stock: nn.Module, site: Site, adapter: Running, frame: Frame, *, finish: bool
    ) -> None:
        super().__init__(stock, adapter, frame)
        self.site = site
        self.finish = finish

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        found = self.stock(*args, **kwargs)
        h, *more = found if isinstance(found, tuple) else (found,)
        out = self.adapter(State(h, self.frame.kept.pop(self.site), None, self.frame))
        out = out if self.finish else Whole(out)
        return (out, *more) if isinstance(found, tuple) else out


@takes("sublayer")
def take_sublayer(
    base: nn.Module, site: Site, facts: Facts, node: Primitive, adapter: Running, frame: Frame
) -> None:
    """In place of the module that computes LN(h + x), or around the one that computes h."""
    path, finish = facts.layout.path(site), node.placement.finish
    stock = base.get_submodule(path)
    if not facts.layout.sites[site.name].norm:
        base.set_submodule(path, SubLayer(stock, adapter, frame, finish=finish))
        return
    norm = facts.layout.norm(site)
    base.set_submodule(norm, Entrance(base.get_submodule(norm), site, frame))
    base.set_submodule(path, Inner(stock, site, adapter, frame, finish=finish))


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
