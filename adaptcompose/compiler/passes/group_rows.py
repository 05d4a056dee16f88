"""Rows with different adapters become grouped products: many adapters, few calls.

Row i of the batch has its own weights: z = σ(D⁽ⁱ⁾x + b⁽ⁱ⁾) for all rows at once is one product of
stacked matrices. Members of one shape (same ranks, activations and placements, weights aside) form
a group. A member whose shape is unique is computed on its own rows, as in the literal form.

>>> from adaptcompose.compiler.passes.example import lower_example
>>> text = "route(x=bottleneck(reduction=2), y=bottleneck(reduction=2))"
>>> print(program := lower_example(text))
ffn.out of layer 0
  rows of 2
    x:
      bottleneck x 8→4→8 relu  h + u(LN(h+x))
    y:
      bottleneck y 8→4→8 relu  h + u(LN(h+x))
h: output of the sub-layer, x: its input, LN: the backbone's norm, u: the contribution
>>> print(group_rows(program, PassLog()))
ffn.out of layer 0
  rows of 2, grouped by 2
    x:
      bottleneck x 8→4→8 relu  h + u(LN(h+x))
    y:
      bottleneck y 8→4→8 relu  h + u(LN(h+x))
h: output of the sub-layer, x: its input, LN: the backbone's norm, u: the contribution

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
    """Rows whose members are computed group by group; `groups` are tuples of member numbers.

    In a group of n members, weights are stacked to [n, out, in], and each row uses its own.
    """

    groups: tuple[tuple[int, ...], ...] = ()

    def __str__(self) -> str:
        sizes = ", ".join(str(len(group)) for group in self.groups)
        return f"{super().__str__()}, grouped by {sizes}"


def group_rows(program: Program, log: PassLog) -> Program:
    """Group members of one shape, at every site at which rows have different members."""
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
    """The numbers of the members of one shape, for every shape that at least two members have."""
    by_structure: dict[Primitive, list[int]] = {}
    for index, member in enumerate(node.members):
        if member is not None and _is_stackable(member):
            by_structure.setdefault(member.structure(), []).append(index)
    return tuple(tuple(group) for group in by_structure.values() if len(group) > 1)


def _is_stackable(node: Primitive) -> bool:
    return node.stackable and all(map(_is_stackable, node.inner()))
