"""AdapterFusion for little more than the price of its members.

Everything around σ is linear. With zₙ = σ(Dₙx + bₙ) and uₙ = Uₙzₙ + cₙ (scale and gate inside), the
scores are tₙ = (Uₙᵀp)·zₙ + p·cₙ with p = W_kᵀ(W_q q + b_q); b_k adds the same number to every score
and leaves the softmax as it is. Uₙᵀ W_kᵀ W_q is one matrix, so scores and down-projections are one
product from d to 2Nr + N. Σ αₙ W_v uₙ = [W_v U₁ … W_v U_N, W_v C]·[α₁z₁; …; α_N z_N; α] is one from
Nr + N to d. Together they take 3Ndr multiplications instead of (2N+1)d² + 2Ndr.

In training, each step computes these matrices from the current weights. With few tokens, it applies
W_q, W_kᵀ and W_v once to every token instead, if that takes fewer multiplications. Then b_k is not
left out, so that every parameter has its gradient.

>>> from adaptcompose.compiler.passes.example import lower_example
>>> text = "fuse(bottleneck(reduction=2), bottleneck(reduction=4))"
>>> print(program := lower_example(text))
ffn.out of layer 0
  attention fuse 8 over 2
    bottleneck bottleneck 8→4→8 relu  h + u(LN(h+x))
    bottleneck bottleneck2 8→2→8 relu  h + u(LN(h+x))
h: output of the sub-layer, x: its input, LN: the backbone's norm, u: the contribution
>>> print(folded := fold_fusion(program, PassLog()))
ffn.out of layer 0
  folded attention fuse 8 over 2
    bottleneck bottleneck 8→4→8 relu  h + u(LN(h+x))
    bottleneck bottleneck2 8→2→8 relu  h + u(LN(h+x))
h: output of the sub-layer, x: its input, LN: the backbone's norm, u: the contribution
>>> program.multiplications(), folded.multiplications()
(448, 176)

Condition, per site: every branch is a single bottleneck that does not apply a LayerNorm of its own
last. All read the same state (the checker refuses anything else), possibly after a LayerNorm of
their own. Law: exact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

from adaptcompose.backbones.layout import Site
from adaptcompose.compiler.passes.pass_log import PassLog
from adaptcompose.ir.fusion import Mixture
from adaptcompose.ir.primitives import BottleneckMLP, Primitive, rewrite
from adaptcompose.ir.program import Program


@dataclass(frozen=True)
class FoldedMixture(Mixture):
    """r + [W_v U₁ … W_v U_N, W_v C]·[α₁z₁; …; α_N z_N; α]: a fusion of bottlenecks, folded.

    With N members, R the sum of their ranks and d the width, the two products are [2R + N, d] and
    [d, R + N]; see the top of this module (Pfeiffer et al., 2021, rearranged).
    """

    stackable: ClassVar[bool] = True

    @property
    def members(self) -> tuple[BottleneckMLP, ...]:
        """The branches, which are all bottlenecks."""
        return tuple(branch for branch in self.branches if isinstance(branch, BottleneckMLP))

    def multiplications(self) -> int:
        """Those of two products: [D; S] with 2R + N rows, and the values with R + N columns."""
        width, ranks = self.attention.width, sum(member.rank for member in self.members)
        gates = sum(member.width for member in self.members if member.gate)
        residual = width * width if self.attention.residual_before and self.attention.value else 0
        return (
            width * (2 * ranks + len(self.members))
            + width * (ranks + len(self.members))
            + gates
            + residual
        )

    def __str__(self) -> str:
        return f"folded {super().__str__()}"


def fold_fusion(program: Program, log: PassLog) -> Program:
    """Fold every mixture that meets the condition."""

    def fold(site: Site, node: Primitive) -> Primitive:
        if not isinstance(node, Mixture) or isinstance(node, FoldedMixture):
            return node
        if why := _obstacle(node):
            log.record_declined(site, why)
            return node
        log.record_applied(site)
        return FoldedMixture(node.branches, node.attention)

    sites = {s: rewrite(node, partial(fold, s)) for s, node in program.sites.items()}
    return replace(program, sites=sites)


def _obstacle(node: Mixture) -> str | None:
    """Why a mixture cannot be folded; None if it can."""
    for branch in node.branches:
        if not isinstance(branch, BottleneckMLP):
            return f"a member of `{node.attention.part}` is not a single bottleneck"
        if branch.norm_after:
            return f"`{branch.part}` has a LayerNorm of its own after it"
    return None
