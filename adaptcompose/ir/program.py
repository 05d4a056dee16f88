"""The program that a composition is compiled to: per site of the backbone, a few primitives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.ir.primitives import Primitive, Rows
from adaptcompose.syntax.signature import format_ranges


@dataclass(frozen=True)
class Program:
    """Which primitive stands at which site; sites without one are the backbone's own.

    `names` are those of the compositions that `Rows` choose between, if there are several. They
    are chosen row by row by the caller, or, if `fan` is set, each works on a batch of its own: in
    front of layer `fan` the batch is repeated once per name (−1: in front of the embeddings), or
    `inside` of it, at the first site where the compositions differ.
    """

    facts: Facts
    sites: Mapping[Site, Primitive] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    branch_layer: int | None = None
    branch_inside_layer: bool = False

    def __str__(self) -> str:
        """Equal layers are printed once.

        >>> print(Program(None))
        backbone only
        """
        blocks: dict[tuple[str, ...], list[Site]] = {}
        for site, primitive in self.sites.items():
            name = (site.part, site.name, *primitive.lines())
            blocks.setdefault(name, []).append(site)
        fan = None if self.branch_layer is None else self._branch_point(self.branch_layer)
        texts = [f"{self.batch_repeats}x the batch from {fan} on"] if fan else []
        texts += ["\n  ".join([_where(sites), *lines[2:]]) for lines, sites in blocks.items()]
        text = "\n".join(texts) or "backbone only"
        return text + (f"\n{_SYMBOLS}" if "u(" in text else "")

    def _branch_point(self, layer: int) -> str:
        if layer < 0 or layer >= self.facts.layers:
            return "the embeddings" if layer < 0 else "the heads"
        firsts = (s.name for s in self.sites if s.layer == layer and self.branches_differ_at(s))
        return f"{next(firsts)} of layer {layer}" if self.branch_inside_layer else f"layer {layer}"

    def branches_differ_at(self, site: Site) -> bool:
        """Whether not all of the compositions are the same at a site."""
        node = self.sites[site]
        return isinstance(node, Rows) and len(set(node.members)) > 1

    @property
    def batch_repeats(self) -> int:
        """How often the batch is there behind the fan."""
        return 1 if self.branch_layer is None else len(self.names)

    def parts(self) -> set[str]:
        return {part for primitive in self.sites.values() for part in primitive.parts()}

    def multiplications(self) -> int:
        """Multiplications of matrix products per token that the composition adds.

        Where rows choose, the mean over their compositions.
        """
        return sum(map(self._cost, self.sites.values()))

    def _cost(self, node: Primitive) -> int:
        total = node.multiplications()
        return (
            total // len(node.names)
            if isinstance(node, Rows) and self.branch_layer is None
            else total
        )


_SYMBOLS = "h: output of the sub-layer, x: its input, LN: the backbone's norm, u: the contribution"


def _where(sites: list[Site]) -> str:
    """`ffn.out of layers 5..9`."""
    layers = [site.layer for site in sites if site.layer is not None]
    first = Site(sites[0].name, None, sites[0].part)
    word = "layer" if len(layers) == 1 else "layers"
    return f"{first} of {word} {format_ranges(layers)}" if layers else str(first)
