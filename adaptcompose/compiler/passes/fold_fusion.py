"""AdapterFusion for little more than the price of its members.

Everything around σ is linear. With zₙ = σ(Dₙx + bₙ), uₙ = Uₙzₙ + cₙ (scale and gate inside), the
scores are tₙ = (Uₙᵀp)·zₙ + p·cₙ with p = W_kᵀ(W_q q + b_q); b_k adds the same to every score and
leaves the softmax. Uₙᵀ W_kᵀ W_q is one matrix, so scores and down-projections are one product from
d to 2Nr + N. Σ αₙ W_v uₙ = [W_v U₁ … W_v U_N, W_v C]·[α₁z₁; …; α_N z_N; α] is one from Nr + N to d.
Together 3Ndr instead of (2N+1)d² + 2Ndr. While something is trained, each step makes these matrices
anew from the live weights or, on few tokens, applies W_q, W_kᵀ and W_v once to every token: what
multiplies less. b_k stays, so that every parameter has its gradient.

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
from adaptcompose.ir.primitives import BottleneckMLP, Mixture, Primitive, rewrite
from adaptcompose.ir.program import Program


@dataclass(frozen=True)
class FoldedMixture(Mixture):
    """A mixture of plain bottlenecks, computed with folded products."""

    stackable: ClassVar[bool] = True

    @property
    def members(self) -> tuple[BottleneckMLP, ...]:
        return tuple(branch for branch in self.branches if isinstance(branch, BottleneckMLP))

    def multiplications(self) -> int:
        """Two products: [D; S] of 2Nr + N rows, and the values of Nr + N columns."""
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
    for branch in node.branches:
        if not isinstance(branch, BottleneckMLP):
            return f"a member of `{node.attention.part}` is not a single bottleneck"
        if branch.norm_after:
            return f"`{branch.part}` has a LayerNorm of its own after it"
    return None
