"""`scale`: a factor on what adapters add to hidden states."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.composition.graph import Adapter, Block, has_known_methods, walk
from adaptcompose.composition.operator import Modifier, register_operator
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Diagnostic
from adaptcompose.ir.mixing import ScaledUpdate
from adaptcompose.ir.primitives import Primitive, Rows
from adaptcompose.methods.invertible import EMBEDDINGS_SITE, HEAD_SITE
from adaptcompose.syntax.signature import format_value, option


@register_operator
@dataclass(frozen=True)
class Scale(Modifier):
    """Multiply what the composition to its left adds to each hidden state.

    Use it to weaken or strengthen trained adapters without training them again. A part that does
    more than add to a hidden state, such as an invertible part at the embeddings, can only be
    kept (`by=1`) or removed (`by=0`).

    ⟦scale(by=c)(e)⟧(h) = h + c (⟦e⟧(h) − h).

    Laws: scale(by=1) = identity; e | scale(by=0) = none;
    scale(by=p) | scale(by=q) = scale(by=pq).

    Example:
        stack(lang=sw, task=ner) | scale(by=0.5)
    """

    word: ClassVar[str] = "scale"

    by: float = option(1.0, "factor of the contribution")

    def at(self, site: Site, facts: Facts) -> Primitive | None:
        inner = self.body.at(site, facts) if self.by else None
        if inner is None or self.by == 1.0 or site in (EMBEDDINGS_SITE, HEAD_SITE):
            return inner
        if isinstance(inner, Rows):
            return inner.rebuild(tuple(ScaledUpdate(member, self.by) for member in inner.inner()))
        return ScaledUpdate(inner, self.by)

    def problems(self, facts: Facts | None) -> Iterator[Diagnostic]:
        if facts is None or self.by in (0.0, 1.0) or not has_known_methods(self):
            return
        leaves = (leaf for leaf in walk(self.body) if isinstance(leaf, Adapter))
        if _is_unscalable(self.body, facts):
            name = next((leaf for leaf in leaves if _is_unscalable(leaf, facts)), self.body)
            yield codes.AC319.at(self.span, name=name, by=format_value(self.by))


def _is_unscalable(block: Block, facts: Facts) -> bool:
    """True if the block does more than add to a hidden state, so that scaling has no meaning.

    Examples are invertible parts, virtual tokens, and adapters that replace the backbone's norm.
    """
    virtual = facts.sites_of_kind("attention", "tokens", "positions")
    for site in (EMBEDDINGS_SITE, *facts.sublayer_sites(), *virtual):
        inner = block.at(site, facts)
        members = inner.inner() if isinstance(inner, Rows) else (inner,) if inner else ()
        if any(site == EMBEDDINGS_SITE or not node.placement.followed_by_norm for node in members):
            return True
    return False
