"""`every` and `pick`: a modifier and a block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.composition.graph import Block
from adaptcompose.composition.operator import (
    ArgumentKind,
    BlockOperator,
    CheckedCall,
    Modifier,
    register_operator,
)
from adaptcompose.diagnostics.codes import AC204
from adaptcompose.diagnostics.diagnostic import Diagnostic
from adaptcompose.ir.primitives import Primitive
from adaptcompose.syntax.signature import option


@register_operator
@dataclass(frozen=True)
class Every(Modifier):
    """Adapters in every n-th layer only, the lowest one among them.

    Law: every(nth=1) = identity.

    Example:
        stack(lang=sw, task=ner) | every(nth=2)
    """

    word: ClassVar[str] = "every"

    nth: int = option(2, "distance between the layers that keep theirs", minimum=1)

    def at(self, site: Site, facts: Facts) -> Primitive | None:
        if site.layer is not None and site.layer % self.nth:
            return None
        return self.body.at(site, facts)


@register_operator
@dataclass(frozen=True)
class Pick(BlockOperator):
    """One of its members; which one may come from a sweep.

    Law: pick(a, b, take=1) = a.

    Example:
        pick(glue/mnli, glue/rte, take=2)
    """

    word: ClassVar[str] = "pick"
    takes: ClassVar[ArgumentKind] = "adapters"
    min_members: ClassVar[int] = 1

    take: int = option(1, "its number, counted from 1", minimum=1)

    @property
    def chosen(self) -> Block:
        return self.inner()[self.take - 1]

    @classmethod
    def from_call(cls, call: CheckedCall) -> Block:
        return cls(call.members, span=call.span, **call.options)

    def at(self, site: Site, facts: Facts) -> Primitive | None:
        return self.chosen.at(site, facts)

    def problems(self, facts: Facts | None) -> Iterator[Diagnostic]:
        if self.take > len(self.members):
            most = f"at most {len(self.members)}"
            yield AC204.at(self.span, name="take", operator="pick", expected=most, got=self.take)
