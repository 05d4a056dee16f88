"""`drop` and `keep`: adapters in some layers only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.compiler.program import Primitive
from adaptcompose.language import codes
from adaptcompose.language.diagnostics import Diagnostic
from adaptcompose.language.operator import Modifier, operator
from adaptcompose.language.signature import Layers, option, spans


@dataclass(frozen=True)
class Restriction(Modifier):
    """Adapters in some layers only; what is at the embeddings is in no layer and stays."""

    bottom: int = option(0, "so many lowest layers", least=0)
    top: int = option(0, "so many highest layers", least=0)
    layers: Layers = option(frozenset(), "layers counted from 0, as 3, 0..4 or [0, 5..7]")

    def named(self, facts: Facts) -> frozenset[int]:
        """The layers that the arguments name."""
        count = facts.layers
        bottom, top = range(min(self.bottom, count)), range(max(0, count - self.top), count)
        return self.layers | frozenset(bottom) | frozenset(top)

    def kept(self, facts: Facts) -> frozenset[int]:
        raise NotImplementedError

    def at(self, site: Site, facts: Facts) -> Primitive | None:
        if site.layer is not None and site.layer not in self.kept(facts):
            return None
        return self.body.at(site, facts)

    def problems(self, facts: Facts | None) -> Iterator[Diagnostic]:
        if facts is None:
            return
        beyond = [layer for layer in self.layers if layer >= facts.layers]
        if beyond:
            yield codes.AC312.at(self.span, wanted=spans(beyond), last=facts.layers - 1)
            return
        left = self.kept(facts)
        body = self.body
        while isinstance(body, Restriction):
            left, body = left & body.kept(facts), body.body
        if not left:
            yield codes.AC311.at(self.span, operator=self.word, layers=facts.layers)


@operator
@dataclass(frozen=True)
class Drop(Restriction):
    """AdapterDrop: no adapters in these layers (Rücklé et al., 2021).

    Laws: drop(bottom=0) = identity; drop(S) | drop(T) = drop(S ∪ T); invertible parts stay.

    Examples:
        fuse(glue/*) | drop(bottom=5)
        stack(lang=sw, task=ner) | drop(layers=[0, 2..4])
    """

    word: ClassVar[str] = "drop"

    def kept(self, facts: Facts) -> frozenset[int]:
        return frozenset(range(facts.layers)) - self.named(facts)


@operator
@dataclass(frozen=True)
class Keep(Restriction):
    """Adapters in these layers only. Law: keep(S) = drop(all layers without S).

    Example:
        stack(lang=sw, task=ner) | keep(top=3)
    """

    word: ClassVar[str] = "keep"

    def kept(self, facts: Facts) -> frozenset[int]:
        return self.named(facts)
