"""The base of `route` and `parallel`, which contain several compositions by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.composition.graph import Block, walk
from adaptcompose.composition.operator import ArgumentKind, BlockOperator, Modifier
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Diagnostic
from adaptcompose.ir.primitives import Primitive, Rows


@dataclass(frozen=True)
class BranchOperator(BlockOperator):
    """Several compositions by name; each computes what it computes alone."""

    takes: ClassVar[ArgumentKind] = "slots"
    min_members: ClassVar[int] = 1

    @property
    def branches(self) -> dict[str, Block]:
        return {slot.name: slot.block for slot in self.members if slot.name}

    def at(self, site: Site, facts: Facts) -> Primitive | None:
        members = tuple(block.at(site, facts) for block in self.inner())
        if all(member is None for member in members):
            return None
        return Rows(tuple(self.branches), members)

    def problems(self, facts: Facts | None) -> Iterator[Diagnostic]:
        names: set[str] = set()
        for slot in self.members:
            if slot.name is None:
                yield codes.AC309.at(slot.block.span, operator=self.word)
            elif slot.name == "loss":
                help = "give this output another name; `loss` is the sum of the losses"
                yield codes.AC202.at(slot.block.span, name=slot.name, help=help)
            elif slot.name in names:
                yield codes.AC202.at(slot.block.span, name=slot.name)
            names |= {slot.name} if slot.name else set()


def branch_of(graph: Block, name: str) -> Block:
    """One branch of a graph, with the modifiers that follow all branches."""
    if isinstance(graph, Modifier):
        return graph.rebuild((branch_of(graph.body, name),))
    return graph.branches[name]


def branch_position_problems(graph: Block) -> Iterator[Diagnostic]:
    """Yield AC308 for branches inside another block; only modifiers can follow them."""
    while isinstance(graph, Modifier):
        graph = graph.body
    for block in walk(graph):
        if block is not graph and isinstance(block, BranchOperator):
            yield codes.AC308.at(block.span, operator=block.word)
