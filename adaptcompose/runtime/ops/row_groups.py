"""Rows with different compositions at work, and the fan that gives each composition its own rows.

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
from adaptcompose.runtime.call_context import Choice, in_order
from adaptcompose.runtime.ops.primitives import Constants, Running, State, running, runs, stacked
from adaptcompose.runtime.parts import Parts


@runs(Rows)
class RunningRows(Running):
    """Literally: the rows of each composition through its own primitive."""

    def __init__(self, node: Rows, parts: Parts) -> None:
        super().__init__()
        self.node = node
        self.members = nn.ModuleDict(
            {str(i): running(m, parts) for i, m in enumerate(node.members) if m is not None}
        )
        self.groups: tuple[tuple[int, ...], ...] = tuple((int(i),) for i in self.members)

    def forward(self, state: State) -> Tensor:
        state = self._fanned(state)
        pieces: list[Tensor] = []
        choices = state.frame.choices(self.groups, len(state.h))
        for choice in choices:
            mine = state if choice.whole else state.take(choice.index(state.h.device))
            pieces.append(self._run(choice, mine).to(state.dtype))
        if len(pieces) == 1:
            return pieces[0]
        return in_order(pieces, (row for choice in choices for row in choice.rows))

    def _fanned(self, state: State) -> State:
        """Once per composition, if the batch is repeated here."""
        rows, members = len(state.h), len(state.frame.members)
        if rows >= members:
            return state
        return state.take(torch.arange(rows, device=state.h.device).repeat(members // rows))

    def _run(self, choice: Choice, state: State) -> Tensor:
        if choice.group < 0:
            return state.finish(state.h)
        member = self._member(choice.members[0])
        return self._finished(choice, state, member(state))

    def _member(self, index: int) -> Running:
        found = self.members[str(index)]
        assert isinstance(found, Running)
        return found

    def _finished(self, choice: Choice, state: State, out: Tensor) -> Tensor:
        node = self.node.members[choice.members[0]]
        assert node is not None
        return state.finish(out) if node.placement.finish else out

    def split(self, state: State, weights: Constants | None = None) -> tuple[Tensor, Tensor]:
        return state.h, self(state) - state.h


@runs(GroupedRows)
class RunningGroups(RunningRows):
    """Rows of one group of members at once, with stacked weights."""

    def __init__(self, node: GroupedRows, parts: Parts) -> None:
        super().__init__(node, parts)
        grouped = {member for group in node.groups for member in group}
        alone = tuple(group for group in self.groups if group[0] not in grouped)
        self.groups = (*node.groups, *alone)

    def _run(self, choice: Choice, state: State) -> Tensor:
        if choice.group < 0 or len(set(choice.members)) == 1:
            return super()._run(choice, state)
        weights = self._stacked(choice.blocks)
        if weights is None:
            return self._one_by_one(choice, state)
        residual, contribution = self._member(choice.members[0]).split(state, weights)
        return self._finished(choice, state, residual + contribution)

    def _stacked(self, members: Sequence[int]) -> Any:
        """The weights of these members, each tensor with a row for each; None if that cannot be."""
        found = [self._member(index).constants() for index in members]
        return None if any(one is None for one in found) else stacked(found)

    def _one_by_one(self, choice: Choice, state: State) -> Tensor:
        """While weights are learned that only the literal form can give gradients to."""
        pieces, order = [], []
        for member in dict.fromkeys(choice.members):
            rows = [row for row, other in enumerate(choice.members) if other == member]
            mine = state.take(torch.tensor(rows, device=state.h.device))
            one = Choice(choice.group, tuple(rows), choice.members)
            pieces.append(self._finished(one, mine, self._member(member)(mine)))
            order += rows
        return in_order(pieces, order)


class Repeat(Wrapper):
    """A layer behind the fan: what comes in with one row per example leaves with one per branch."""

    def __init__(self, stock: nn.Module, times: int, *, first: bool) -> None:
        super().__init__(stock)
        self.times = times
        self.first = first

    def forward(self, state: Tensor, *args: Any, **kwargs: Any) -> Any:
        rows = len(state) if self.first else len(state) // self.times
        if self.first:
            state = repeat(state, rows, self.times)
        args = repeat(args, rows, self.times)
        return self.stock(state, *args, **repeat(kwargs, rows, self.times))


def repeat(value: Any, rows: int, times: int) -> Any:
    """Every tensor with `rows` rows, one copy after another; anything else as it is."""
    if isinstance(value, Tensor) and value.dim() > 1 and len(value) == rows:
        return value.repeat(times, *[1] * (value.dim() - 1))
    if isinstance(value, tuple):
        return tuple(repeat(one, rows, times) for one in value)
    if isinstance(value, dict):
        return {key: repeat(one, rows, times) for key, one in value.items()}
    return value


def fan_out(base: nn.Module, program: Program) -> None:
    """Behind the fan, every layer sees the batch once per branch."""
    if program.fan is None or program.fan < 0:
        return
    layers: Any = module_at(base, program.facts.layout.layers)
    for number in range(program.fan + program.inside, len(layers)):
        first = number == program.fan
        layers[number] = Repeat(layers[number], program.repeats, first=first)
