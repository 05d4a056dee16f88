"""Selecting modules per row at sites that add nothing to a state: prefixes, virtual tokens.

A chain there is several pieces beside each other, and rows with different compositions are one
padded tensor: nothing is computed row by row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from adaptcompose.ir.primitives import Primitive, Rows
from adaptcompose.runtime.call_context import CallContext, restore_row_order
from adaptcompose.runtime.ops.primitives import ChainModule, PrimitiveModule

R = TypeVar("R", bound=PrimitiveModule)


class RowModules(Generic[R]):
    """The modules of each composition at one site, the last of a chain first.

    Where the program has one composition, every row has it.
    """

    def __init__(self, node: Primitive, adapter: PrimitiveModule, kind: type[R]) -> None:
        self.routed = isinstance(node, Rows)
        self.compositions: tuple[tuple[R, ...], ...]
        if not isinstance(node, Rows):
            self.compositions = (_flatten_chain(adapter, kind),)
            return
        members = adapter.members
        assert isinstance(members, nn.ModuleDict)
        names = [str(index) for index in range(len(node.members))]
        self.compositions = tuple(
            _flatten_chain(members[name], kind) if name in members else () for name in names
        )

    def select(self, context: CallContext, rows: int, device: torch.device) -> BatchSelection[R]:
        """The compositions of a batch's rows."""
        if not self.routed:
            index = torch.zeros(rows, dtype=torch.long, device=device)
            return BatchSelection(self.compositions, index)
        members = context.members
        times = rows // len(members)  # a search keeps several hypotheses for a row, side by side
        if ("chosen", rows, device) not in context.shared:
            used = tuple(dict.fromkeys(members))
            places = [used.index(member) for member in members for _ in range(times)]
            index = torch.tensor(places, device=device)
            shares = [[row for row, p in enumerate(places) if p == one] for one in range(len(used))]
            context.shared["chosen", rows, device] = used, index, shares
        used, index, shares = context.shared["chosen", rows, device]
        found = tuple(self.compositions[member] if member >= 0 else () for member in used)
        return BatchSelection(found, index, shares)


class BatchSelection(Generic[R]):
    """The compositions used in a batch, and the index of the one that each row has."""

    def __init__(
        self,
        compositions: Sequence[tuple[R, ...]],
        index: Tensor,
        rows: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self.compositions = compositions
        self.index = index
        self._rows = rows

    def __bool__(self) -> bool:
        return any(self.compositions)

    def per_row(self, values: Sequence[int]) -> Tensor:
        """Expand one number per composition to one per row."""
        return torch.tensor(values, device=self.index.device)[self.index]

    def modules_and_rows(self) -> Iterator[tuple[tuple[R, ...], Tensor | slice]]:
        """Yield every composition's modules with its rows."""
        if self._rows is None:
            yield self.compositions[0], slice(None)
            return
        for pieces, rows in zip(self.compositions, self._rows, strict=True):
            yield pieces, torch.tensor(rows, device=self.index.device)

    def restore_order(self, blocks: Sequence[Tensor]) -> Tensor:
        """Join per-composition results in the order of the rows."""
        if self._rows is None:
            return blocks[0]
        return restore_row_order(blocks, (row for rows in self._rows for row in rows))


def _flatten_chain(adapter: nn.Module, kind: type[R]) -> tuple[R, ...]:
    if isinstance(adapter, ChainModule):
        members = reversed(list(adapter.members))
        return tuple(piece for member in members for piece in _flatten_chain(member, kind))
    assert isinstance(adapter, kind), adapter
    return (adapter,)


def pad_and_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Stack tensors of different lengths, with zeros in front of the shorter ones."""
    longest = max(len(tensor) for tensor in tensors)
    rest = [0] * (2 * tensors[0].dim() - 2)
    return torch.stack(
        [
            tensor if len(tensor) == longest else functional.pad(tensor, [*rest, gap, 0])
            for tensor in tensors
            for gap in [longest - len(tensor)]
        ]
    )
