"""`drop` and `keep`: adapters in some layers of the backbone only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.composition.graph import Block, Empty
from adaptcompose.composition.operator import Modifier, register_operator
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Diagnostic, counted
from adaptcompose.ir.primitives import Primitive
from adaptcompose.syntax.signature import LayerSet, format_ranges, option


@dataclass(frozen=True)
class LayerFilter(Modifier):
    """A modifier that keeps adapters in some layers; parts at the embeddings always stay.

    In an encoder-decoder, layers are counted separately in the encoder and the decoder. An adapter
    after cross-attention belongs to its layer of the decoder.
    """

    bottom: int = option(0, "number of lowest layers", minimum=0)
    top: int = option(0, "number of highest layers", minimum=0)
    layers: LayerSet = option(frozenset(), "layers by number, counted from 0")

    part: Literal["encoder", "decoder"] | None = option(
        None, "restrict to the encoder or the decoder of an encoder-decoder"
    )

    def selected_layers(self, facts: Facts, part: str = "") -> frozenset[int]:
        """The layers that the arguments name, in one part of the backbone."""
        if self.part not in (None, part):
            return frozenset()
        count = facts.layers_by_part[part]
        bottom, top = range(min(self.bottom, count)), range(max(0, count - self.top), count)
        return self.layers | frozenset(bottom) | frozenset(top)

    def active_layers(self, facts: Facts, part: str) -> frozenset[int]:
        """The layers of one part of the backbone in which adapters stay."""
        raise NotImplementedError

    def all_active_layers(self, facts: Facts) -> frozenset[int]:
        """The layers in which adapters stay, in any part of the backbone."""
        return frozenset().union(
            *(self.active_layers(facts, part) for part in facts.layers_by_part)
        )

    def is_active_at(self, site: Site, facts: Facts) -> bool:
        """True if adapters stay at a site."""
        return site.layer is None or site.layer in self.active_layers(facts, site.part)

    def at(self, site: Site, facts: Facts) -> Primitive | None:
        return self.body.at(site, facts) if self.is_active_at(site, facts) else None

    def occupied_layers(self, facts: Facts, part: str) -> frozenset[int]:
        return self.body.occupied_layers(facts, part) & self.active_layers(facts, part)

    def in_layer(self, facts: Facts, layer: int) -> Block:
        is_active = layer in self.all_active_layers(facts)
        return self.body.in_layer(facts, layer) if is_active else Empty()

    def coverage_problems(self, facts: Facts, sites: Sequence[Site]) -> Iterator[Diagnostic]:
        active = [site for site in sites if self.is_active_at(site, facts)]
        yield from super().coverage_problems(facts, active)

    def problems(self, facts: Facts | None) -> Iterator[Diagnostic]:
        if facts is None:
            return
        if self.part is not None and self.part not in facts.layers_by_part:
            expected = "left out on a backbone that is not an encoder-decoder"
            values = {"name": "part", "operator": self.word, "expected": expected}
            yield codes.AC209.at(self.span, **values, got=f"`{self.part}`")
            return
        beyond = [layer for layer in self.layers if layer >= facts.layers]
        if beyond:
            last = facts.layers - 1
            yield codes.AC312.at(self.span, name="layers", wanted=format_ranges(beyond), last=last)
            return
        has_layers = any(reachable_layers(self.body, facts).values())
        if has_layers and not any(reachable_layers(self, facts).values()):
            used = [name for name in ("bottom", "top", "layers") if getattr(self, name)]
            name, layers = used[0] if len(used) == 1 else "", counted(facts.layers, "layer")
            yield codes.AC311.at(self.span, name=name, operator=self.word, layers=layers)


def reachable_layers(block: Block, facts: Facts) -> dict[str, frozenset[int]]:
    """The layers of each part of the backbone that the `drop` and `keep` of a block leave."""
    whole = {part: frozenset(range(count)) for part, count in facts.layers_by_part.items()}
    inner = [reachable_layers(child, facts) for child in block.inner()] or [whole]
    union = {part: frozenset[int]().union(*(layers[part] for layers in inner)) for part in whole}
    if isinstance(block, LayerFilter):
        return {part: layers & block.active_layers(facts, part) for part, layers in union.items()}
    return union


@register_operator
@dataclass(frozen=True)
class Drop(LayerFilter):
    """AdapterDrop: remove the adapters from these layers (Rücklé et al., 2021).

    Use it to make inference faster. In the lowest layers, adapters contribute least, and `parallel`
    computes the lowest layers only once if its branches have no adapters there. Parts at the
    embeddings belong to no layer and stay.

    In an encoder-decoder, layers are counted separately in the encoder and the decoder, and
    `part` restricts `drop` to one of them.

    Laws: drop(bottom=0) = identity; drop(S) | drop(T) = drop(S ∪ T); invertible parts stay.

    Examples:
        fuse(glue/*) | drop(bottom=5)
        stack(lang=sw, task=ner) | drop(layers=[0, 2..4])
    """

    word: ClassVar[str] = "drop"

    def active_layers(self, facts: Facts, part: str) -> frozenset[int]:
        return frozenset(range(facts.layers_by_part[part])) - self.selected_layers(facts, part)


@register_operator
@dataclass(frozen=True)
class Keep(LayerFilter):
    """Keep the adapters in these layers only.

    Use it instead of `drop` if it is shorter to name the layers that have adapters. Parts at the
    embeddings belong to no layer and stay.

    Law: keep(S) = drop(all layers without S).

    Example:
        stack(lang=sw, task=ner) | keep(top=3)
    """

    word: ClassVar[str] = "keep"

    def active_layers(self, facts: Facts, part: str) -> frozenset[int]:
        return self.selected_layers(facts, part)
