"""Changes of a linear map become its weight: LoRA and its kin cost nothing at inference.

The primitives of a map that do not depend on the token give f'(x) = W' x + b', with W' = W + s·B A,
l ⊙ W, m ⊙ V/‖V‖, or means and chains of these. W' is computed once and cached until a tensor that
it depends on changes. W stays as it is, so W' takes as much memory again.

>>> from adaptcompose.compiler.passes.example import lower_example
>>> text = "stack(a=lora(rank=2, targets=[attn.q]), b=lora(rank=4, targets=[attn.q]))"
>>> print(program := lower_example(text))
attn.q of layer 0
  chain
    low-rank a 8→2→8 ×4
    low-rank b 8→4→8 ×2
>>> print(merge_deltas(program, PassLog()))
attn.q of layer 0
  merged 8→8, 64 numbers cached
    chain
      low-rank a 8→2→8 ×4
      low-rank b 8→4→8 ×2

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
    """f'(x) = W' x + b', W' [width, width_in], b' [width]: a linear map with its updates merged.

    `literal` is the primitive from which W' and b' are computed (LoRA, Hu et al., 2022, section
    4.1, merges weights in this way).
    """

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
        """The updates that are merged."""
        return tuple(_leaves(self.literal))

    def multiplications(self) -> int:
        return 0

    @property
    def cached_numbers(self) -> int:
        """The size of W', which is cached in addition to the backbone's weights."""
        return self.width * self.width_in

    def __str__(self) -> str:
        return f"merged {self.width_in}→{self.width}, {self.cached_numbers:,} numbers cached"


_EXACT = ("float32", "float64")
"""The types of weights that are precise enough to add an update to."""


def _leaves(node: Primitive) -> Iterator[LinearUpdate]:
    if isinstance(node, LinearUpdate):
        yield node
    for inner in node.inner():
        yield from _leaves(inner)


def merge_deltas(program: Program, log: PassLog) -> Program:
    """Merge the updates of every linear map that meets the condition."""
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
    """Why the updates at a site cannot be merged; None if they can."""
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
