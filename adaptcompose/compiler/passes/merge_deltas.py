"""Changes of a linear map become its weight: LoRA and its kin cost nothing at inference.

f'(x) = W'x + b' for everything that changes a map without looking at the token: W' = W + s·B A,
l ⊙ W, m ⊙ V/‖V‖, means and chains of these. W' is computed once and kept beside W until a tensor
that it comes from is changed; so it takes as much memory as W, which stays as it is.

Condition: every row has the same changes, and none of them has a gate or differs by token; W is
neither in half precision nor quantised. In training, and with a gradient to any of the sources, the
literal form is computed. Law: ≤ 1e-5 of the largest value, by the order of summation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.compiler.passes.log import Log
from adaptcompose.ir.linear import Change, Replaced, Shift, affine
from adaptcompose.ir.primitives import Placement, Primitive, Rows
from adaptcompose.ir.program import Program


@dataclass(frozen=True)
class Merged(Primitive):
    """A linear map with changed weight. `literal` is what it was made from."""

    literal: Primitive
    width: int
    width_in: int

    def inner(self) -> tuple[Primitive, ...]:
        return (self.literal,)

    def rebuild(self, inner: tuple[Primitive, ...]) -> Merged:
        return replace(self, literal=inner[0])

    @property
    def placement(self) -> Placement:
        return self.literal.placement

    @property
    def leaves(self) -> tuple[Change, ...]:
        """The changes inside."""
        return tuple(_leaves(self.literal))

    def multiplications(self) -> int:
        return 0

    @property
    def numbers(self) -> int:
        """How many numbers are kept beside those of the backbone."""
        return self.width * self.width_in

    def __str__(self) -> str:
        return f"merged {self.width_in}→{self.width}, {self.numbers:,} numbers kept"


_EXACT = ("float32", "float64")
"""Types of weights that another may be added to."""


def _leaves(node: Primitive) -> Iterator[Change]:
    if isinstance(node, Change):
        yield node
    for inner in node.inner():
        yield from _leaves(inner)


def merge_deltas(program: Program, log: Log) -> Program:
    """Merge what meets the condition at every linear map."""
    sites = dict(program.sites)
    for site, node in program.sites.items():
        if program.facts.layout.sites[site.name].kind != "linear":
            continue
        why = _obstacle(node, program.facts)
        if why:
            log.declined(site, why)
        else:
            log.fired(site)
            sites[site] = _merged(node, site, program.facts)
    return replace(program, sites=sites)


def _obstacle(node: Primitive, facts: Facts) -> str | None:
    """Why a site stays as it is."""
    if facts.config.get("quantization_config"):
        return "the backbone is quantised"
    if facts.dtype not in _EXACT:
        return f"the sum with a weight in {facts.dtype} would lose what is added"
    if isinstance(node, Rows):
        return "rows choose between changes"
    if not affine(node):
        return "a change depends on the example or the token"
    if all(isinstance(leaf, Shift) for leaf in _leaves(node)):
        return "another bias is cheaper than another weight"
    if all(isinstance(leaf, Replaced) for leaf in _leaves(node)):
        return "it is another weight already"
    return None


def _merged(node: Primitive, site: Site, facts: Facts) -> Merged:
    return Merged(node, facts.size(site), facts.size_in(site))
