"""`swap`: another block in a slot."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from adaptcompose.language.graph import Block, Slot, transform
from adaptcompose.language.operator import Modifier, Takes, operator
from adaptcompose.language.operators.stack import Stack


@operator
@dataclass(frozen=True)
class Swap(Modifier):
    """Put another block, or `none`, into a named slot, wherever it is to the left.

    Law: swap(k=a) | swap(k=b) = swap(k=b). The graph holds the result, not the operator.

    Examples:
        stack(lang=en, task=ner) | swap(lang=sw)
        stack(lang=en, task=ner) | fuse(glue/*) | swap(lang=none)
    """

    word: ClassVar[str] = "swap"
    takes: ClassVar[Takes] = "slots"
    least: ClassVar[int] = 1

    members: tuple[Slot, ...] = ()

    def applied(self) -> Block:
        """The body with its slots refilled."""
        new = {slot.name: slot.block for slot in self.members}

        def refill(block: Block) -> Block:
            if not isinstance(block, Stack):
                return block
            filled = [replace(s, block=new.get(s.name, s.block)) for s in block.members]
            return replace(block, members=tuple(filled))

        return transform(self.body, refill)
