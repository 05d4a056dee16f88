"""Programs, to which compositions are compiled: one primitive for each site of the backbone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.ir.primitives import Primitive, Rows
from adaptcompose.syntax.signature import format_ranges


@dataclass(frozen=True)
class Program:
    """A primitive for each site; a site without one computes what the backbone computes.

    If there are several compositions, `names` are their names. Without a `branch_layer`, the caller
    chooses one of them for each row of a batch. With a `branch_layer`, every composition runs on
    the whole batch: it is repeated once per name in front of that layer (−1: in front of the
    embeddings). With `branch_inside_layer`, the batch is repeated inside of that layer, at the
    first site at which the compositions differ.
    """

    facts: Facts
    sites: Mapping[Site, Primitive] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    branch_layer: int | None = None
    branch_inside_layer: bool = False

    def __str__(self) -> str:
        """The program as text; equal layers are printed once.

        >>> print(Program(None))
        backbone only
        """
        blocks: dict[tuple[str, ...], list[Site]] = {}
        for site, primitive in self.sites.items():
            name = (site.part, site.name, *primitive.lines())
            blocks.setdefault(name, []).append(site)
        texts = []
        if self.branch_layer is not None:
            start = self._branch_point(self.branch_layer)
            texts.append(f"{self.batch_repeats}x the batch from {start} on")
        texts += ["\n  ".join([_where(sites), *lines[2:]]) for lines, sites in blocks.items()]
        text = "\n".join(texts) or "backbone only"
        return text + (f"\n{_SYMBOLS}" if "u(" in text else "")

    def _branch_point(self, layer: int) -> str:
        if layer < 0 or layer >= self.facts.layers:
            return "the embeddings" if layer < 0 else "the heads"
        firsts = (s.name for s in self.sites if s.layer == layer and self.branches_differ_at(s))
        return f"{next(firsts)} of layer {layer}" if self.branch_inside_layer else f"layer {layer}"

    def branches_differ_at(self, site: Site) -> bool:
        """Whether two of the compositions differ at a site."""
        node = self.sites[site]
        return isinstance(node, Rows) and len(set(node.members)) > 1

    @property
    def batch_repeats(self) -> int:
        """How many copies of the batch there are from the branch layer on."""
        return 1 if self.branch_layer is None else len(self.names)

    def parts(self) -> set[str]:
        """The names of the parts whose weights the program uses."""
        return {part for primitive in self.sites.values() for part in primitive.parts()}

    def multiplications(self) -> int:
        """The number of scalar multiplications that the composition adds, per token.

        Only matrix products count. Where each row chooses a composition, it is the mean over the
        compositions.
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
    """The first line of a block of equal layers, such as `ffn.out of layers 5..9`."""
    layers = [site.layer for site in sites if site.layer is not None]
    first = Site(sites[0].name, None, sites[0].part)
    word = "layer" if len(layers) == 1 else "layers"
    return f"{first} of {word} {format_ranges(layers)}" if layers else str(first)
