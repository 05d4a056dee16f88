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

    Use it to predict several tasks at once, or to train them together: you pass labels by name,
    and the losses are summed. Layers below the first one in which the compositions differ are
    computed only once. `parallel` cannot be inside another block, but modifiers can follow it.

    ⟦parallel(a=e₁, …)⟧ = the family (⟦eₙ⟧)ₙ.

    Laws: a branch of parallel = the branch alone; parallel(a=e).a = e.

    Examples:
        parallel(mnli=glue/mnli, rte=glue/rte)
        let base = stack(lang=sw); parallel(ner=base | task/ner, upper=base)
    """

    word: ClassVar[str] = "parallel"

    @property
    def broadcasts_batch(self) -> bool:
        return True
