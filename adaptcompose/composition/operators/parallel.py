"""`parallel`: one input, several outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from adaptcompose.composition.operator import register_operator
from adaptcompose.composition.operators.branches import BranchOperator


@register_operator
@dataclass(frozen=True)
class Parallel(BranchOperator):
    """Run several compositions on one input: a dict of outputs by name, each with its own head.

    ⟦parallel(a=e₁, …)⟧ = the family (⟦eₙ⟧)ₙ; the layers below the first one in which they
    differ are computed only once. You pass labels by name; the losses are summed. No other block
    can contain it. Laws: a branch of parallel = the branch alone; parallel(a=e).a = e.

    Examples:
        parallel(mnli=glue/mnli, rte=glue/rte)
        let base = stack(lang=sw); parallel(ner=base | task/ner, upper=base)
    """

    word: ClassVar[str] = "parallel"

    @property
    def broadcasts_batch(self) -> bool:
        return True
