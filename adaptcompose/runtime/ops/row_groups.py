"""Rows with different compositions, and the fan-out that gives each composition a batch of its own.

A batch's rows are sorted by nothing: every group of rows is taken out, computed, and put back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adaptcompose.compiler.passes.group_rows import GroupedRows
from adaptcompose.ir.primitives import Rows
from adaptcompose.ir.program import Program
from adaptcompose.runtime.attach.sites import Wrapper, module_at
from adaptcompose.runtime.call_context import RowGroup, restore_row_order
from adaptcompose.runtime.ops.primitives import (
    PrimitiveModule,
    State,
    WeightTree,
    build_module,
    implements,
    stack_weights,
)
from adaptcompose.runtime.parts import Parts


@implements(Rows)
class RowsModule(PrimitiveModule):
    """The literal form: run the rows of each composition through its own primitive."""

    def __init__(self, node: Rows, parts: Parts) -> None:
        super().__init__()
        self.node = node
        self.members = nn.ModuleDict(
            {str(i): build_module(m, parts) for i, m in enumerate(node.members) if m is not None}
        )
        self.groups: tuple[tuple[int, ...], ...] = tuple((int(i),) for i in self.members)

    def forward(self, state: State) -> Tensor:
        state = self._repeat_batch(state)
        pieces: list[Tensor] = []
        choices = state.context.row_groups(self.groups, len(state.h))
        for choice in choices:
            mine = state if choice.covers_batch else state.select_rows(choice.index(state.h.device))
            pieces.append(self._compute_group(choice, mine).to(state.dtype))
        if len(pieces) == 1:
            return pieces[0]
        return restore_row_order(pieces, (row for choice in choices for row in choice.rows))

    def _repeat_batch(self, state: State) -> State:
        """Repeat the batch once per composition, if this is the place."""
        rows, members = len(state.h), len(state.context.members)
        if rows >= members:
            return state
        return state.select_rows(torch.arange(rows, device=state.h.device).repeat(members // rows))

    def _compute_group(self, group: RowGroup, state: State) -> Tensor:
        if group.number < 0:
            return state.add_and_norm(state.h)
        member = self._member(group.members[0])
        return self._add_and_norm(group, state, member(state))

    def _member(self, index: int) -> PrimitiveModule:
        found = self.members[str(index)]
        assert isinstance(found, PrimitiveModule)
        return found

    def _add_and_norm(self, group: RowGroup, state: State, out: Tensor) -> Tensor:
        node = self.node.members[group.members[0]]
        assert node is not None
        return state.add_and_norm(out) if node.placement.followed_by_norm else out

    def residual_and_update(
        self, state: State, weights: WeightTree | None = None
    ) -> tuple[Tensor, Tensor]:
        return state.h, self(state) - state.h


@implements(GroupedRows)
class GroupedRowsModule(RowsModule):
    """Run all rows of a group of members at once, with stacked weights."""

    def __init__(self, node: GroupedRows, parts: Parts) -> None:
        super().__init__(node, parts)
        grouped = {member for group in node.groups for member in group}
        alone = tuple(group for group in self.groups if group[0] not in grouped)
        self.groups = (*node.groups, *alone)

    def _compute_group(self, group: RowGroup, state: State) -> Tensor:
        if group.number < 0 or len(set(group.members)) == 1:
            return super()._compute_group(group, state)
        weights = self._stacked_weights(group.blocks)
        if weights is None:
            return self._one_by_one(group, state)
        residual, contribution = self._member(group.members[0]).residual_and_update(state, weights)
        return self._add_and_norm(group, state, residual + contribution)

    def _stacked_weights(self, members: Sequence[int]) -> Any:
        """Stack the weights of these members, or None if that is impossible."""
        found = [self._member(index).stackable_weights() for index in members]
        return None if any(one is None for one in found) else stack_weights(found)

    def _one_by_one(self, group: RowGroup, state: State) -> Tensor:
        """True while weights are trained that only the literal form gives gradients to."""
        pieces, order = [], []
        for member in dict.fromkeys(group.members):
            rows = [row for row, other in enumerate(group.members) if other == member]
            mine = state.select_rows(torch.tensor(rows, device=state.h.device))
            one = RowGroup(group.number, tuple(rows), group.members)
            pieces.append(self._add_and_norm(one, mine, self._member(member)(mine)))
            order += rows
        return restore_row_order(pieces, order)


class BranchedLayer(Wrapper):
    """A layer after the fan-out: inputs with one row per example become one row per branch."""

    def __init__(self, stock: nn.Module, times: int, *, first: bool) -> None:
        super().__init__(stock)
        self.branch_count = times
        self.first = first

    def forward(self, state: Tensor, *args: Any, **kwargs: Any) -> Any:
        rows = len(state) if self.first else len(state) // self.branch_count
        if self.first:
            state = repeat_rows(state, rows, self.branch_count)
        args = repeat_rows(args, rows, self.branch_count)
        return self.stock(state, *args, **repeat_rows(kwargs, rows, self.branch_count))


def repeat_rows(value: Any, rows: int, times: int) -> Any:
    """Every tensor with `rows` rows, one copy after another; anything else as it is."""
    if isinstance(value, Tensor) and value.dim() > 1 and len(value) == rows:
        return value.repeat(times, *[1] * (value.dim() - 1))
    if isinstance(value, tuple):
        return tuple(repeat_rows(one, rows, times) for one in value)
    if isinstance(value, dict):
        return {key: repeat_rows(one, rows, times) for key, one in value.items()}
    return value


def wrap_branched_layers(base: nn.Module, program: Program) -> None:
    """Wrap the layers after the fan-out, which see the batch once per branch."""
    if program.branch_layer is None or program.branch_layer < 0:
        return
    layers: Any = module_at(base, program.facts.layout.layers)
    for number in range(program.branch_layer + program.branch_inside_layer, len(layers)):
        first = number == program.branch_layer
        layers[number] = BranchedLayer(layers[number], program.batch_repeats, first=first)
