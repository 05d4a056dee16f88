"""`drop` and `keep`: adapters in some layers only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.composition.graph import Block
from adaptcompose.composition.operator import Modifier, operator
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Diagnostic
from adaptcompose.ir.primitives import Primitive
from adaptcompose.syntax.signature import Layers, option, spans


@dataclass(frozen=True)
class Restriction(Modifier):
    """Adapters in some layers only; what is at the embeddings is in no layer and stays.

    In an encoder-decoder layers count in each of the two, and what is behind cross-attention is in
    the decoder's layer.
    """

    bottom: int = option(0, "so many lowest layers", least=0)
    top: int = option(0, "so many highest layers", least=0)
    layers: Layers = option(frozenset(), "layers counted from 0, as 3, 0..4 or [0, 5..7]")

    part: Literal["encoder", "decoder"] | None = option(
        None, "only the layers of this part of an encoder-decoder"
    )

    def named(self, facts: Facts, part: str = "") -> frozenset[int]:
        """The layers that the arguments name, of one part of an encoder-decoder."""
        if self.part not in (None, part):
            return frozenset()
        count = facts.stacks[part]
        bottom, top = range(min(self.bottom, count)), range(max(0, count - self.top), count)
        return self.layers | frozenset(bottom) | frozenset(top)

    def left(self, facts: Facts, part: str) -> frozenset[int]:
        """The layers of one part in which there are adapters."""
        raise NotImplementedError

    def kept(self, facts: Facts) -> frozenset[int]:
        """The layers of any part in which there are adapters."""
        return frozenset().union(*(self.left(facts, part) for part in facts.stacks))

    def keeps(self, site: Site, facts: Facts) -> bool:
        """Whether there are adapters at a site."""
        return site.layer is None or site.layer in self.left(facts, site.part)

    def at(self, site: Site, facts: Facts) -> Primitive | None:
        return self.body.at(site, facts) if self.keeps(site, facts) else None

    def problems(self, facts: Facts | None) -> Iterator[Diagnostic]:
        if facts is None:
            return
        if self.part is not None and self.part not in facts.stacks:
            expected = "left out on a backbone that is no encoder-decoder"
            yield codes.AC209.at(
                self.span, name="part", operator=self.word, expected=expected, got=self.part
            )
            return
        beyond = [layer for layer in self.layers if layer >= facts.layers]
        if beyond:
            last = facts.layers - 1
            yield codes.AC312.at(self.span, name="layers", wanted=spans(beyond), last=last)
            return
        if any(reach(self.body, facts).values()) and not any(reach(self, facts).values()):
            given = [name for name in ("bottom", "top", "layers") if getattr(self, name)]
            name = given[0] if len(given) == 1 else ""
            yield codes.AC311.at(self.span, name=name, operator=self.word, layers=facts.layers)


def reach(block: Block, facts: Facts) -> dict[str, frozenset[int]]:
    """The layers of each part in which restrictions let adapters be."""
    whole = {part: frozenset(range(count)) for part, count in facts.stacks.items()}
    inner = [reach(one, facts) for one in block.inner()] or [whole]
    found = {part: frozenset[int]().union(*(one[part] for one in inner)) for part in whole}
    if isinstance(block, Restriction):
        return {part: layers & block.left(facts, part) for part, layers in found.items()}
    return found


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

    def left(self, facts: Facts, part: str) -> frozenset[int]:
        return frozenset(range(facts.stacks[part])) - self.named(facts, part)


@operator
@dataclass(frozen=True)
class Keep(Restriction):
    """Adapters in these layers only. Law: keep(S) = drop(all layers without S).

    Example:
        stack(lang=sw, task=ner) | keep(top=3)
    """

    word: ClassVar[str] = "keep"

    def left(self, facts: Facts, part: str) -> frozenset[int]:
        return self.named(facts, part)
