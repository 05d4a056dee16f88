"""What primitives compute: one module class per primitive, looked up by its type.

Every module gets a `State` and splits its result into a residual r and a contribution u; its output
is r + u. Shapes: h, x, r, u are [batch, tokens, width].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.activations import ACT2FN, get_activation

from adaptcompose.diagnostics.codes import AC212
from adaptcompose.diagnostics.diagnostic import Failed, suggest
from adaptcompose.ir import primitives as ir
from adaptcompose.ir.primitives import Placement, Primitive
from adaptcompose.runtime.call_context import TOKEN_POSITIONS, CallContext, TokenPositions
from adaptcompose.runtime.ops.norms import Norm
from adaptcompose.runtime.parts import Parts

NORM_EPS = 1e-5  # of adapters' own LayerNorms, torch's default, as their files assume


class State:
    """The state at a site: the output h and the input x of the sub-layer, and the backbone's LN."""

    _positions: TokenPositions | None = None

    def __init__(
        self,
        h: Tensor,
        x: Tensor | None = None,
        norm: Norm | None = None,
        context: CallContext | None = None,
    ) -> None:
        self._h, self.x, self.norm = h, x, norm
        self._context = context
        self._normed: Tensor | None = None

    @property
    def h(self) -> Tensor:
        return self._h

    @property
    def context(self) -> CallContext:
        """The context of the call."""
        assert self._context is not None
        return self._context

    @property
    def dtype(self) -> torch.dtype:
        """The backbone's floating-point type; adapters compute in the type of their weights."""
        return self.h.dtype if self.x is None else torch.promote_types(self.h.dtype, self.x.dtype)

    @property
    def positions(self) -> TokenPositions:
        """The positions of its tokens."""
        if self._positions is None:
            kept = {} if self._context is None else self._context.shared
            positions: TokenPositions = kept.get(TOKEN_POSITIONS, TokenPositions())
            self._positions = positions.repeat_rows(self.h.shape[0])
        return self._positions

    def at_positions(self, positions: TokenPositions) -> Self:
        """The same state with other token positions."""
        self._positions = positions
        return self

    def mean_over_tokens(self, values: Tensor) -> Tensor:
        """The mean over the tokens of each row, padding included as in the published files."""
        return mean_over_tokens(values, self.positions.own_mask(values.shape[1]))

    def with_output(self, h: Tensor) -> State:
        """The state with another output of the sub-layer."""
        return State(h, self.x, self.norm, self._context).at_positions(self.positions)

    def after_member(
        self, out: Tensor, member: PrimitiveModule, weights: WeightTree | None = None
    ) -> State:
        """The state after a member of a chain with this output."""
        return self.with_output(out)

    def select_rows(self, rows: Tensor) -> State:
        """The state of some rows of the batch."""
        return self.select((rows,), self.positions.select_rows(rows), rows)

    def without_padding(self, padding: int) -> State:
        """The state without so much leading padding, which all rows have."""
        here, _ = self.positions.select_range(padding, None)
        return self.select((slice(None), here), self.positions.without_padding(padding))

    def select_tokens(self, start: int, end: int | None) -> State:
        """The state of a range of tokens."""
        here, places = self.positions.select_range(start, end)
        return self.select((slice(None), here), places)

    def select(
        self,
        index: tuple[Tensor | slice, ...],
        positions: TokenPositions,
        rows: Tensor | None = None,
    ) -> State:
        """The state of some rows or tokens, at `positions`."""
        x = None if self.x is None else self.x[index]
        norm = None if self.norm is None else self.norm.select(positions, rows)
        return State(self.h[index], x, norm, self._context).at_positions(positions)

    def add_and_norm(self, out: Tensor) -> Tensor:
        """Apply the residual and norm that the backbone applies here: LN(out + x)."""
        if self.x is None:
            return out
        return out + self.x if self.norm is None else self.norm(out + self.x)

    @property
    def sum(self) -> Tensor:
        return self.h if self.x is None else self.h + self.x

    @property
    def normed(self) -> Tensor:
        if self._normed is None:  # the members of a fusion read it once each
            self._normed = self.sum if self.norm is None else self.norm(self.sum)
        return self._normed

    def read(self, placement: Placement) -> Tensor:
        if placement.reads == "input":
            assert self.x is not None
            return self.x
        return self.h if placement.reads == "output" else self.normed

    def residual(self, placement: Placement) -> Tensor:
        if placement.residual == "read":
            return self.read(placement)
        return self.h if placement.residual == "output" else self.sum


def mean_over_tokens(values: Tensor, own: Tensor | None) -> Tensor:
    """The mean over all tokens of each row, or over its own tokens only."""
    if own is None:
        return values.mean(dim=1, keepdim=True)
    counted = own.unsqueeze(-1).to(values.dtype)
    return (values * counted).sum(dim=1, keepdim=True) / counted.sum(dim=1, keepdim=True)


WeightTree = Any
"""Tensors in mappings and tuples: what two primitives of one shape differ in."""


class PrimitiveModule(nn.Module):
    """The module of a primitive.

    Given `weights`, it computes with these instead of its own: those of several primitives of its
    shape, `stacked`. Each tensor has a row in front for each, and the batch a block of rows.
    """

    counts_tokens: ClassVar[bool] = False
    """Whether it has to know where in its row a token is, padding and a cache considered."""

    def residual_and_update(
        self, state: State, weights: WeightTree | None = None
    ) -> tuple[Tensor, Tensor]:
        """The residual r and the update u; the output is r + u."""
        raise NotImplementedError

    def forward(self, state: State) -> Tensor:
        residual, contribution = self.residual_and_update(state)
        return (residual + contribution).to(state.dtype)

    def stackable_weights(self) -> WeightTree | None:
        """The weights for `residual_and_update`; None where stacked weights cannot be used now."""
        return None


def stack_weights(trees: Sequence[WeightTree]) -> WeightTree:
    """Stack the weights of primitives of one structure."""
    first = trees[0]
    if isinstance(first, Tensor):
        return torch.stack(list(trees))
    if isinstance(first, Mapping):
        return {key: stack_weights([one[key] for one in trees]) for key in first}
    if first is None:
        return None
    each = [stack_weights(list(parts)) for parts in zip(*trees, strict=True)]
    return first._make(each) if hasattr(first, "_make") else tuple(each)


def product(z: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """z Wᵀ + b; with stacked W and b [blocks, out, in] each block of rows of z has its own."""
    if weight.dim() == 2:
        return functional.linear(z, weight, bias)
    blocks = z.reshape(len(weight), -1, z.shape[-1])
    if bias is None:
        out = torch.bmm(blocks, weight.mT)
    else:
        out = torch.baddbmm(bias.unsqueeze(1), blocks, weight.mT)
    return out.view(*z.shape[:-1], out.shape[-1])


def per_block(value: Tensor, z: Tensor) -> Tensor:
    """A stacked vector [blocks, n], to be used beside z [rows, tokens, n]; others as they are."""
    if value.dim() < 2:
        return value
    rows = value.repeat_interleave(len(z) // len(value), dim=0)
    return rows.view(len(z), *[1] * (z.dim() - 2), -1)


_MODULE_TYPES: dict[type[Primitive], Callable[[Any, Parts], PrimitiveModule]] = {}


R = TypeVar("R", bound=type[PrimitiveModule])


def implements(primitive: type[Primitive]) -> Callable[[R], R]:
    """Register the module class that computes a primitive."""

    def register(cls: R) -> R:
        _MODULE_TYPES[primitive] = cls
        return cls

    return register


def build_module(primitive: Primitive, parts: Parts) -> PrimitiveModule:
    """The module that computes a primitive with the weights of its parts."""
    return _MODULE_TYPES[type(primitive)](primitive, parts)


def linear_map(weights: Mapping[str, Tensor], name: str, z: Tensor) -> Tensor:
    weight = weights[f"{name}.weight"]
    return product(z.to(weight.dtype), weight, weights.get(f"{name}.bias"))


def _norm(weights: Mapping[str, Tensor], name: str, z: Tensor) -> Tensor:
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    z = z.to(weight.dtype)
    if weight.dim() == 1:
        return functional.layer_norm(z, weight.shape, weight, bias, NORM_EPS)
    normed = functional.layer_norm(z, weight.shape[-1:], eps=NORM_EPS)
    return normed * per_block(weight, z) + per_block(bias, z)


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """An activation by the name that adapter files use."""
    if name == "leakyrelu":
        return functional.leaky_relu
    try:
        found: Callable[[Tensor], Tensor] = get_activation(name)
    except KeyError:
        raise Failed(AC212.at(name=name, help=suggest(name, ACT2FN))) from None
    return found


@implements(ir.BottleneckMLP)
class BottleneckModule(PrimitiveModule):
    def __init__(self, node: ir.BottleneckMLP, parts: Parts) -> None:
        super().__init__()
        self.node = node
        self.weights = parts.weights(node)
        self.activation = activation(node.activation)
        self.dropout = nn.Dropout(node.dropout)

    def stackable_weights(self) -> WeightTree:
        return self.weights.read()

    def residual_and_update(
        self, state: State, weights: WeightTree | None = None
    ) -> tuple[Tensor, Tensor]:
        node = self.node
        weights = self.weights.read() if weights is None else weights
        z, residual = state.read(node.where), state.residual(node.where)
        y = _norm(weights, "norm_before", z) if node.norm_before else z
        u = linear_map(weights, "up", self.activation(linear_map(weights, "down", y)))
        u = self._depth_drop(u)
        if node.scale != 1.0:
            u = u * (per_block(weights["scale"], u) if isinstance(node.scale, str) else node.scale)
        u = self.dropout(u)
        if node.gate:
            u = u * state.mean_over_tokens(
                torch.sigmoid(linear_map(weights, "gate", z))
            )  # one per example
        if node.norm_after:
            inside = residual if node.residual_inside else torch.zeros_like(u)
            u = _norm(weights, "norm_after", u + inside) - inside
        return residual, u

    def _depth_drop(self, u: Tensor) -> Tensor:
        """Stochastic depth (Huang et al., 2016): leave the adapter out for some examples."""
        if not self.training or self.node.depth_drop == 0.0:
            return u
        keep = 1.0 - self.node.depth_drop
        mask = u.new_empty(u.shape[0], *([1] * (u.dim() - 1))).bernoulli_(keep)
        return u * mask / keep


@implements(ir.AdditiveCoupling)
class CouplingModule(PrimitiveModule):
    def __init__(self, node: ir.AdditiveCoupling, parts: Parts) -> None:
        super().__init__()
        self.node = node
        self.weights = parts.weights(node)
        self.activation = activation(node.activation)

    def _net(self, weights: Mapping[str, Tensor], name: str, half: Tensor) -> Tensor:
        inner = self.activation(linear_map(weights, f"{name}.0", half))
        return linear_map(weights, f"{name}.2", inner)

    def stackable_weights(self) -> WeightTree:
        return self.weights.read()

    def forward(self, state: State) -> Tensor:
        return self._transform(state, self.weights.read())

    def _transform(self, state: State, weights: Mapping[str, Tensor]) -> Tensor:
        first = self.node.width // 2
        one, two = state.h[..., :first], state.h[..., first:]
        if self.node.inverse:
            two = two - self._net(weights, "G", one)
            one = one - self._net(weights, "F", two)
        else:
            one = one + self._net(weights, "F", two)
            two = two + self._net(weights, "G", one)
        return torch.cat([one, two], dim=-1).to(state.dtype)

    def residual_and_update(
        self, state: State, weights: WeightTree | None = None
    ) -> tuple[Tensor, Tensor]:
        weights = self.weights.read() if weights is None else weights
        return state.h, self._transform(state, weights) - state.h


@implements(ir.Chain)
class ChainModule(PrimitiveModule):
    def __init__(self, node: ir.Chain, parts: Parts) -> None:
        super().__init__()
        self.members = nn.ModuleList(build_module(member, parts) for member in node.members)

    def forward(self, state: State) -> Tensor:
        for member in self.members:
            state = state.after_member(member(state), member)  # type: ignore[arg-type]
        return state.h

    def stackable_weights(self) -> WeightTree | None:
        found = tuple(member.stackable_weights() for member in self.members)  # type: ignore[operator]
        return None if any(one is None for one in found) else found

    def residual_and_update(
        self, state: State, weights: WeightTree | None = None
    ) -> tuple[Tensor, Tensor]:
        each = [None] * len(self.members) if weights is None else weights
        first: Tensor | None = None
        for member, own in zip(self.members, each, strict=True):
            residual, contribution = member.residual_and_update(state, own)  # type: ignore[operator]
            first = residual if first is None else first
            out = (residual + contribution).to(state.dtype)
            state = state.after_member(out, member, own)  # type: ignore[arg-type]
        assert first is not None
        return first, state.h - first
