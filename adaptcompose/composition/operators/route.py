"""`route`: one composition per row of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from adaptcompose.composition.operator import operator
from adaptcompose.composition.operators.branches import Branches


@operator
@dataclass(frozen=True)
class Route(Branches):
    """Every row of a batch has a composition of its own: `model(**batch, rows=["a", "b", None])`.

    ⟦route(a=e₁, …)⟧ at row i = ⟦eₙ⟧ with n the name that `rows` gives the row; None is the bare
    backbone. Outermost only. Law: a row of route = the row alone.

    Examples:
        route(en=stack(lang=en, task=ner), sw=stack(lang=sw, task=ner))
        route(mnli=glue/mnli, base=none)
    """

    word: ClassVar[str] = "route"
