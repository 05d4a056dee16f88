"""Changes of a linear map become its weight: LoRA and its kin cost nothing at inference.

f'(x) = W'x + b' for everything that changes a map without looking at the token: W' = W + s·B A,
l ⊙ W, m ⊙ V/‖V‖, means and chains of these. W' is computed once and kept beside W until a tensor
that it comes from is changed; so it takes as much memory as W, which stays as it is.

Condition: every row has the same updates, and none of them has a gate or depends on the token; W is
neither in half precision nor quantised. In training, or if any source needs a gradient, the literal
form is computed. Law: ≤ 1e-5 of the largest value, by the order of summation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.compiler.passes.pass_log import PassLog
from adaptcompose.ir.linear import BiasDelta, LinearUpdate, WeightReplacement, is_input_independent
from adaptcompose.ir.primitives import Placement, Primitive, Rows
from adaptcompose.ir.program import Program


@dataclass(frozen=True)
class MergedLinear(Primitive):
    """A linear map with changed weight. `literal` is what it was made from."""

    literal: Primitive
    width: int
    width_in: int

    def inner(self) -> tuple[Primitive, ...]:
        return (self.literal,)

    def rebuild(self, inner: tuple[Primitive, ...]) -> MergedLinear:
        return replace(self, literal=inner[0])

    @property
    def placement(self) -> Placement:
        return self.literal.placement

    @property
    def updates(self) -> tuple[LinearUpdate, ...]:
        """The changes inside."""
        return tuple(_leaves(self.literal))

    def multiplications(self) -> int:
        return 0

    @property
    def cached_numbers(self) -> int:
        """How many numbers are kept beside those of the backbone."""
        return self.width * self.width_in

    def __str__(self) -> str:
        return f"merged {self.width_in}→{self.width}, {self.cached_numbers:,} numbers cached"


_EXACT = ("float32", "float64")
"""Types of weights that another may be added to."""


def _leaves(node: Primitive) -> Iterator[LinearUpdate]:
    if isinstance(node, LinearUpdate):
        yield node
    for inner in node.inner():
        yield from _leaves(inner)


def merge_deltas(program: Program, log: PassLog) -> Program:
    """Merge what meets the condition at every linear map."""
    sites = dict(program.sites)
    for site, node in program.sites.items():
        if program.facts.layout.sites[site.name].kind != "linear":
            continue
        why = _obstacle(node, program.facts)
        if why:
            log.record_declined(site, why)
        else:
            log.record_applied(site)
            sites[site] = _merged(node, site, program.facts)
    return replace(program, sites=sites)


def _obstacle(node: Primitive, facts: Facts) -> str | None:
    """Why a site stays as it is."""
    if facts.config.get("quantization_config"):
        return "the backbone is quantised"
    if facts.dtype not in _EXACT:
        return f"adding the update to a weight in {facts.dtype} would lose precision"
    if isinstance(node, Rows):
        return "rows use different updates"
    if not is_input_independent(node):
        return "an update depends on the example or the token"
    if all(isinstance(leaf, BiasDelta) for leaf in _leaves(node)):
        return "only the bias changes, which is cheaper than a new weight"
    if all(isinstance(leaf, WeightReplacement) for leaf in _leaves(node)):
        return "the weight is already replaced as a whole"
    return None


def _merged(node: Primitive, site: Site, facts: Facts) -> MergedLinear:
    return MergedLinear(node, facts.width_at(site), facts.input_width_at(site))
