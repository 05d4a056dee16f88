"""`parallel`: one input, several outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from adaptcompose.composition.operator import operator
from adaptcompose.composition.operators.branches import Branches


@operator
@dataclass(frozen=True)
class Parallel(Branches):
    """Several compositions over one input: a dict of outputs by name, each with its own head.

    ⟦parallel(a=e₁, …)⟧ = the family (⟦eₙ⟧)ₙ; layers below the first in which they differ are
    computed once for all. Labels are given by name, losses are summed. Outermost only. Laws: a
    branch of parallel = the branch alone; parallel(a=e).a = e.

    Examples:
        parallel(mnli=glue/mnli, rte=glue/rte)
        let base = stack(lang=sw); parallel(ner=base | task/ner, upper=base)
    """

    word: ClassVar[str] = "parallel"

    @property
    def fans(self) -> bool:
        return True
