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

    Use it to serve several tasks or languages with one backbone and mixed batches. `rows` names
    a composition for each row; None means the backbone alone. `route` cannot be inside another
    block, but modifiers can follow it.

    ⟦route(a=e₁, …)⟧ at row i = ⟦eₙ⟧, where n is the name in `rows[i]`.

    Law: a row of route = the row alone.

    Examples:
        route(en=stack(lang=en, task=ner), sw=stack(lang=sw, task=ner))
        route(mnli=glue/mnli, base=none)
    """

    word: ClassVar[str] = "route"
