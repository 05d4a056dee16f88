"""The context of one call of a model, which its sites read: one per model, one call at a time."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import groupby
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

TOKEN_POSITIONS, ENCODER_POSITIONS = (
    "places of a call's tokens",
    "places of the tokens that its encoder has read",
)
"""Key of the shared `TokenPositions` where tokens are not counted from the first of the call."""


class TokenPositions(NamedTuple):
    """The positions of a call's tokens in their rows.

    `first` is the number of the first of them, behind those in a cache. Where rows have different
    numbers of virtual tokens, `gap` says how many of the first are padding in front of a shorter
    prompt, [rows]. A branch for a range of the tokens counts them from `start`. `mask` is the
    attention mask of the call, [rows, tokens], those in a cache included; it is set where a
    primitive counts tokens. `has_cache` says whether the call continues from a cache.
    """

    first: int = 0
    padding: Tensor | None = None
    start: int = 0
    mask: Tensor | None = None
    has_cache: bool = False

    def own_mask(self, tokens: int) -> Tensor | None:
        """The mask of a row's own tokens, [rows, tokens]; None if all are its own."""
        if self.padding is None:
            return None
        numbers = torch.arange(self.first, self.first + tokens, device=self.padding.device)
        return numbers >= self.padding[:, None]

    def select_rows(self, rows: Tensor) -> Self:
        """Select some rows."""
        padding = None if self.padding is None else self.padding[rows]
        mask = None if self.mask is None else self.mask[rows]
        return self._replace(padding=padding, mask=mask)

    def repeat_rows(self, rows: int) -> Self:
        """Repeat to so many rows, one copy after another."""
        if self.mask is None or self.mask.shape[0] == rows:  # len() would fix the size in an export
            return self
        return self._replace(mask=self.mask.repeat(rows // self.mask.shape[0], 1))

    def distances(self, tokens: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """The distance of each token from the first and the last of its row, without padding.

        Both are [rows or 1, tokens], and negative for padding in front, and at the end.
        """
        number = torch.arange(self.first, self.first + tokens, device=device)[None]
        if self.mask is None:
            start = 0 if self.padding is None else self.padding[:, None]
            return number - start, self.first + tokens - 1 - number
        real = self.mask.to(device).ne(0).int()
        start = real.argmax(dim=1, keepdim=True)
        last = real.shape[1] - 1 - real.flip(1).argmax(dim=1, keepdim=True)
        return number - start, last - number

    def without_padding(self, padding: int) -> Self:
        """Positions counted after so much leading padding."""
        mask = None if self.mask is None else self.mask[:, padding:]
        return self._replace(first=max(self.first - padding, 0), padding=None, mask=mask)

    def select_range(self, start: int, end: int | None) -> tuple[slice, Self]:
        """The positions of the call's tokens from `start` to `end`."""
        start += self.start
        end = None if end is None else max(end + self.start - self.first, 0)
        here = slice(max(start - self.first, 0), end)
        return here, self._replace(first=max(self.first, start), start=start)


class CallContext:
    """The composition of every row, and values that sites share within one call.

    `members[i]` is the index of the composition that row i of the batch has, −1 for none. Where
    the batch was repeated by a fan, its rows are those of the repeated batch. `kept` holds what
    one site leaves for another, by a name of theirs.
    """

    def __init__(self) -> None:
        self.members: tuple[int, ...] = ()
        self.shared: dict[Hashable, Any] = {}
        self._row_groups: dict[Hashable, tuple[RowGroup, ...]] = {}

    def start_call(self, members: Sequence[int] = ()) -> None:
        """Start a new call; nothing of the previous one is left."""
        self.members = tuple(members)
        self.shared.clear()
        self._row_groups.clear()

    def checkpoint_contexts(
        self,
    ) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Contexts for checkpointing: the rerun in the backward pass sees this call, too."""
        return nullcontext(), self._restore(self.members, dict(self.shared), dict(self._row_groups))

    @contextmanager
    def _restore(self, *call: Any) -> Iterator[None]:
        now = self.members, self.shared, self._row_groups
        self.members, self.shared, self._row_groups = call
        try:
            yield
        finally:
            self.members, self.shared, self._row_groups = now

    def select_rows(self, rows: Sequence[int]) -> CallContext:
        """The context for some rows of the batch."""
        frame = CallContext()
        frame.start_call([self.members[row] for row in rows] if self.members else ())
        return frame

    def row_groups(
        self, groups: tuple[tuple[int, ...], ...], rows: int | None = None
    ) -> tuple[RowGroup, ...]:
        """The rows of every group of compositions; equal in all layers.

        A search for text keeps several hypotheses for a row, side by side: then there are more
        `rows` than members.
        """
        times = 1 if rows is None else rows // len(self.members)
        if (groups, times) not in self._row_groups:
            members = tuple(member for member in self.members for _ in range(times))
            self._row_groups[groups, times] = tuple(_group_rows(groups, members))
        return self._row_groups[groups, times]


def _group_rows(groups: tuple[tuple[int, ...], ...], members: tuple[int, ...]) -> list[RowGroup]:
    group_of = {member: number for number, group in enumerate(groups) for member in group}
    found: dict[int, list[int]] = {}
    for row, member in enumerate(members):
        found.setdefault(group_of.get(member, -1), []).append(row)
    return [RowGroup(number, tuple(rows), members) for number, rows in found.items()]


def restore_row_order(pieces: Sequence[Tensor], rows: Iterable[int]) -> Tensor:
    """Join slices of a batch in the order of its rows; `rows` numbers the slices' rows."""
    order = torch.tensor([*rows], device=pieces[0].device)
    return torch.cat(list(pieces))[order.argsort()]


class RowGroup:
    """The rows of one group (−1: no composition), and the composition of each row."""

    def __init__(self, group: int, rows: tuple[int, ...], members: tuple[int, ...]) -> None:
        self.number = group
        self.rows = rows
        self.members = tuple(members[row] for row in rows)
        self.covers_batch = len(rows) == len(members)
        self._index: Tensor | None = None

    def index(self, device: torch.device) -> Tensor:
        """The row numbers as an index tensor, [rows]."""
        if self._index is None or self._index.device != device:
            self._index = torch.tensor(self.rows, device=device)
        return self._index

    @property
    def blocks(self) -> tuple[int, ...]:
        """One composition per block of equal length, or one per row.

        >>> RowGroup(0, (0, 1, 2, 3), (5, 5, 7, 7)).blocks
        (5, 7)
        >>> RowGroup(0, (0, 1, 2), (5, 7, 5)).blocks
        (5, 7, 5)
        """
        runs = [(member, len([*run])) for member, run in groupby(self.members)]
        even = len({length for _, length in runs}) == 1
        return tuple(member for member, _ in runs) if even else self.members
