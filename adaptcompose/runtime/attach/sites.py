"""Sites: small wrapper modules that replace stock modules in the copy and own them.

A wrapper holds the module that it stands for as `stock`. Several sites may share a module path:
then their wrappers are nested, each with modules of its own, and all are in the module tree. Paths
are those of the stock model, whatever is wrapped on the way: `module_at` reads one, and
`replace_module` is the only thing that changes one. How a kind of place is taken is said once, with
`@takes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import transformers
from torch import Tensor, nn
from torch.nn import functional

from adaptcompose.backbones.layout import Facts, Site, SiteKind
from adaptcompose.diagnostics.codes import AC520
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.ir.primitives import Primitive
from adaptcompose.runtime.call_context import CallContext
from adaptcompose.runtime.ops.norms import norm_of
from adaptcompose.runtime.ops.primitives import PrimitiveModule, State

AttachFunction = Callable[[nn.Module, Site, Facts, Primitive, PrimitiveModule, CallContext], None]
"""Put a running primitive at a site of a base model: (base, site, facts, node, running, frame)."""

_ATTACH_FUNCTIONS: dict[SiteKind, AttachFunction] = {}


def attaches(kind: SiteKind) -> Callable[[AttachFunction], AttachFunction]:
    """Register the function that attaches a primitive at sites of a kind."""

    def register(function: AttachFunction) -> AttachFunction:
        _ATTACH_FUNCTIONS[kind] = function
        return function

    return register


def attach_at(
    base: nn.Module,
    site: Site,
    facts: Facts,
    node: Primitive,
    adapter: PrimitiveModule,
    context: CallContext,
) -> None:
    """Attach a primitive's module at its site."""
    _ATTACH_FUNCTIONS[facts.layout.sites[site.name].kind](base, site, facts, node, adapter, context)


class Wrapper(nn.Module):
    """A module that replaces a stock module and owns it as `stock`.

    It forwards no attributes. What transformers reads of a module that a layout names is a property
    with its reason; anything else is read of the stock module itself, see `stock_of`.
    """

    def __init__(self, stock: nn.Module) -> None:
        super().__init__()
        self.stock = stock

    @property
    def weight(self) -> Any:
        """The stock module's own weight.

        T5 casts what its feed-forward's last map reads to the type of this tensor, and callers read
        `get_input_embeddings().weight` and `get_output_embeddings().weight`.
        """
        return self.stock.weight

    @property
    def word_embeddings(self) -> Any:
        """Of the embeddings of BERT's shape, where `get_input_embeddings` looks for them."""
        return self.stock.word_embeddings

    @property
    def attention_type(self) -> Any:
        """Of a layer, by which models that mix kinds of attention choose its mask.

        None of the ten families has it; layouts that are installed may be of models that do.
        """
        return self.stock.attention_type


def stock_of(module: nn.Module) -> nn.Module:
    """Unwrap a module down to the backbone's own."""
    while isinstance(module, Wrapper):
        module = module.stock
    return module


def find_module(base: nn.Module, path: str) -> nn.Module | None:
    """The module at a path of the stock model, wrappers included, or None."""
    module: nn.Module | None = base
    for name in path.split(".") if path else ():
        if module is None:
            return None
        module = stock_of(module)._modules.get(name)
    return module


def module_at(base: nn.Module, path: str) -> nn.Module:
    """The module at a path of the stock model, wrappers included.

    AttributeError if nothing does: then the layout is not that of the model.
    """
    module = find_module(base, path)
    if module is None:
        raise AttributeError(f"{type(stock_of(base)).__name__} has no module `{path}`")
    return module


def replace_module(base: nn.Module, path: str, module: nn.Module) -> None:
    """Replace the module at a path, in the stock module that is its parent."""
    parent, _, name = path.rpartition(".")
    stock_of(module_at(base, parent)).set_submodule(name, module)


class SiteWrapper(Wrapper):
    """A wrapper that owns a stock module and the composition at its site."""

    def __init__(self, stock: nn.Module, adapter: PrimitiveModule, context: CallContext) -> None:
        super().__init__(stock)
        self.adapter = adapter
        self.context = context


class DeferredSum:
    """The output h of a sub-layer, as long as the input x of the sub-layer is not added to it.

    A composition reads h and x, and what it gives takes the place of h + x. But x is out of its
    reach: a layer of transformers keeps x in a local variable, calls the sub-layer on LN(x) or on
    x, and adds the two in its own `forward`, in some families after a dropout that is no module:

        hidden_states = self.attn(self.ln_1(residual))
        hidden_states = nn.functional.dropout(hidden_states, p=self.dropout)
        hidden_states = residual + hidden_states

    So a module around the sub-layer sees no x, a hook behind the layer comes too late, and a copy
    of the layer's code would have to follow every release of every family. Giving out − x, for the
    layer to add x again, is off by rounding, and the dropout would fall on the composition.

    Therefore the sum itself is taken over, by the protocol that torch has for it: every function of
    torch that gets an argument with `__torch_function__` calls this instead. A sum with a tensor is
    what `added` makes of h and x; dropout acts on h alone and gives a summand again. A layer that
    does anything else with it, as one of a later transformers may, gets AC520: nothing is computed
    from h without the composition. `path` is where the sub-layer is.

    >>> import torch
    >>> summand = DeferredSum(torch.ones(2), lambda h, x: 10 * h + x, "h.0.attn")
    >>> torch.ones(2) + functional.dropout(summand, 0.5, training=False)
    tensor([11., 11.])
    """

    def __init__(self, h: Tensor, add: Callable[[Tensor, Tensor], Tensor], path: str) -> None:
        self.h = h
        self.add = add
        self.path = path

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """A sum or a dropout of a summand, in the one form that torch.compile follows."""
        first, *more = args or (None,)
        if func is functional.dropout and isinstance(first, cls):
            return cls(func(first.h, *more, **(kwargs or {})), first.add, first.path)
        if func.__name__ in _SUMS and len(args) == 2 and not kwargs:
            one, x = (first, more[0]) if isinstance(first, cls) else (more[0], first)
            if isinstance(x, Tensor):
                return one.add(one.h, x)
        raise unknown_residual_addition(_path_in((*args, *(kwargs or {}).values())), func.__name__)

    def __getattr__(self, name: str) -> Any:
        """Only reached by what a summand does not have: methods and attributes of tensors."""
        raise unknown_residual_addition(self.__dict__.get("path", ""), name)

    def _reject_operation(self, other: Any) -> Any:
        """An operation that no tensor takes part in, which never gets to torch."""
        if isinstance(other, Tensor):
            return NotImplemented
        raise unknown_residual_addition(self.path, "an operation with a number")

    __add__ = __radd__ = __mul__ = __rmul__ = __sub__ = __rsub__ = __truediv__ = _reject_operation


_SUMS = ("__add__", "__radd__", "add")
"""What `x + h` and `h + x` are called."""


def _path_in(values: Iterable[Any]) -> str:
    """Where the summand among arguments of a function is from; lists are looked into."""
    for value in values:
        if isinstance(value, DeferredSum):
            return value.path
        if isinstance(value, list | tuple) and (path := _path_in(value)):
            return path
    return ""


def unknown_residual_addition(path: str, function: str) -> Failed:
    """AC520: a layer adds the residual in a way that is not known."""
    version = transformers.__version__
    return Failed(AC520.at(path=path, function=function, version=version))


class SublayerSite(SiteWrapper):
    """A sub-layer whose composition runs where the layer adds the residual x to its output.

    `norm` is the norm of that sum, if the layer has one. Where a composition does without x, what
    it gives takes the place of the sum. `path` is where the sub-layer is, for AC520.
    """

    def __init__(
        self,
        stock: nn.Module,
        adapter: PrimitiveModule,
        context: CallContext,
        norm: nn.Module | None,
        *,
        followed_by_norm: bool,
        path: str,
    ) -> None:
        super().__init__(stock, adapter, context)
        # in a list, since a module would be registered here, too, and not only at its own path
        self.norm = [None if norm is None else norm_of(norm)]
        self.followed_by_norm = followed_by_norm
        self.path = path

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        found = self.stock(*args, **kwargs)
        if isinstance(found, tuple):
            return (DeferredSum(found[0], self.add, self.path), *found[1:])
        return DeferredSum(found, self.add, self.path)

    def add(self, h: Tensor, x: Tensor) -> Tensor:
        """The value that replaces h + x in the layer."""
        out: Tensor = self.adapter(State(h, x, self.norm[0], self.context))
        return out + x if self.followed_by_norm else out


class SkippedNorm(Wrapper):
    """The norm after a residual sum, skipped because the composition already applied it."""

    def forward(self, state: Tensor) -> Tensor:
        return state


@attaches("sublayer")
def attach_sublayer(
    base: nn.Module,
    site: Site,
    facts: Facts,
    node: Primitive,
    adapter: PrimitiveModule,
    context: CallContext,
) -> None:
    """Wrap the module that computes h."""
    path, behind, finish = (
        facts.layout.path(site),
        facts.layout.norm(site),
        node.placement.followed_by_norm,
    )
    norm = module_at(base, behind) if behind else None
    if norm is not None and not finish:
        replace_module(base, behind, SkippedNorm(norm))
    inner = SublayerSite(
        module_at(base, path), adapter, context, norm, followed_by_norm=finish, path=path
    )
    replace_module(base, path, inner)


class OutputSite(SiteWrapper):
    """A stock module whose output passes through the composition; of a tuple, the first value."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        found = self.stock(*args, **kwargs)
        if isinstance(found, tuple):  # of T5's layers: the state, and scores by distance
            return (self.adapter(State(found[0], context=self.context)), *found[1:])
        return self.adapter(State(found, context=self.context))


@attaches("output")
def attach_output(
    base: nn.Module,
    site: Site,
    facts: Facts,
    node: Primitive,
    adapter: PrimitiveModule,
    context: CallContext,
) -> None:
    """Wrap a module whose output is the state."""
    path = facts.layout.path(site)
    replace_module(base, path, OutputSite(module_at(base, path), adapter, context))


class InputSite(SiteWrapper):
    """A stock module whose first argument passes through the composition first."""

    def forward(self, state: Tensor, *args: Any, **kwargs: Any) -> Any:
        return self.stock(self.adapter(State(state, context=self.context)), *args, **kwargs)


@attaches("input")
def attach_input(
    base: nn.Module,
    site: Site,
    facts: Facts,
    node: Primitive,
    adapter: PrimitiveModule,
    context: CallContext,
) -> None:
    """Wrap a module whose input is the state."""
    path = facts.layout.path(site)
    replace_module(base, path, InputSite(module_at(base, path), adapter, context))


@attaches("vocabulary")
def attach_vocabulary(
    base: nn.Module,
    site: Site,
    facts: Facts,
    node: Primitive,
    adapter: PrimitiveModule,
    context: CallContext,
) -> None:
    """Wrap the vocabulary matrix; a model without one is left alone."""
    for path in facts.layout.paths(site):
        stock = find_module(base, path)
        if stock is not None:
            replace_module(base, path, InputSite(stock, adapter, context))
