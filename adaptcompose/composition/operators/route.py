"""`route`: one composition per row of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from adaptcompose.composition.operator import register_operator
from adaptcompose.composition.operators.branches import BranchOperator


@register_operator
@dataclass(frozen=True)
class Route(BranchOperator):
    """Give every row of a batch its own composition: `model(**batch, rows=["a", "b", None])`.

    ⟦route(a=e₁, …)⟧ at row i = ⟦eₙ⟧, where `rows` has the name n for the row; None means the
    backbone alone. No other block can contain it. Law: a row of route = the row alone.

    Examples:
        route(en=stack(lang=en, task=ner), sw=stack(lang=sw, task=ner))
        route(mnli=glue/mnli, base=none)
    """

    word: ClassVar[str] = "route"
