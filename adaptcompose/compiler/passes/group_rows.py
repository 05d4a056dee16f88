"""Rows with different adapters become grouped products: many adapters, few calls.

Row i of the batch has its own weights: z = σ(D⁽ⁱ⁾x + b⁽ⁱ⁾) for all rows at once is one product of
stacked matrices. Members of one shape (same ranks, activations and placements, weights aside) form
a group; what is alone in its shape is computed for its rows as it is.

Condition: at least two members have the same shape and can be stacked. Matrices of a whole
vocabulary are not stacked, because a token reads only one column. Law: every row has the output
that it has alone, up to the order of summation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from adaptcompose.compiler.passes.pass_log import PassLog
from adaptcompose.ir.primitives import Primitive, Rows
from adaptcompose.ir.program import Program


@dataclass(frozen=True)
class GroupedRows(Rows):
    """Rows of which some groups of members are computed at once; a group holds their indices."""

    groups: tuple[tuple[int, ...], ...] = ()

    def __str__(self) -> str:
        sizes = ", ".join(str(len(group)) for group in self.groups)
        return f"{super().__str__()}, grouped by {sizes}"


def group_rows(program: Program, log: PassLog) -> Program:
    """Group what has one shape, at every site where rows choose."""
    sites = {}
    for site, node in program.sites.items():
        sites[site] = node
        if not isinstance(node, Rows):
            continue
        if program.facts.layout.sites[site.name].kind == "lookup":
            log.record_declined(site, "matrices of a whole vocabulary are too large to stack")
            continue
        groups = _groups(node)
        if groups:
            log.record_applied(site)
            sites[site] = GroupedRows(node.names, node.members, groups)
        else:
            log.record_declined(site, "no two members have the same shape and can be stacked")
    return replace(program, sites=sites)


def _groups(node: Rows) -> tuple[tuple[int, ...], ...]:
    found: dict[Primitive, list[int]] = {}
    for index, member in enumerate(node.members):
        if member is not None and _stackable(member):
            found.setdefault(member.structure(), []).append(index)
    return tuple(tuple(group) for group in found.values() if len(group) > 1)


def _stackable(node: Primitive) -> bool:
    return node.stackable and all(map(_stackable, node.inner()))
