"""`prune`: fewer members in a fusion, where attention has shown that it needs no more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.composition.graph import Block, transform, walk
from adaptcompose.composition.operator import Modifier, operator
from adaptcompose.composition.operators.fuse import Fuse, fusions
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed, Span
from adaptcompose.ir.primitives import Primitive
from adaptcompose.storage.yaml_source import dump, load, open_source
from adaptcompose.syntax.signature import option

Activations = Mapping[str, Mapping[str, tuple[float, ...]]]
"""Per fusion and site the mean attention on each member, 0 where it has nothing."""

FILE = "activations.yaml"
"""What a run keeps of its fusions."""


@operator
@dataclass(frozen=True)
class Prune(Modifier):
    """Keep of every fusion the members with the most attention, site by site.

    Attention is measured once: its mean over the tokens of `data` in a spec, or as a run left it
    behind, `by=runs/glue` (Rücklé et al., 2021). The lock records what is kept, where all parts are
    loaded; of what a run trains it is measured in each run. Laws: keeping all is the identity;
    prune(keep=n) | prune(keep=m) = prune(keep=min(n, m)), measured alike.

    Examples:
        fuse(glue/*) | prune(keep=2, by=runs/glue)
        fuse(glue/*) | drop(bottom=5) | prune(keep=2, data=rte)
    """

    word: ClassVar[str] = "prune"

    keep: int = option(2, "so many members at each site", least=1)
    by: str | None = option(None, "a run, or a file of activations")
    data: str | None = option(None, "data of the spec to measure on")
    measured: Activations | None = field(default=None, compare=False, repr=False)

    def at(self, site: Site, facts: Facts) -> Primitive | None:
        if self.measured is None:
            return self.body.at(site, facts)
        found = self.measured

        def narrow(block: Block) -> Block:
            means = found.get(block.name, {}).get(str(site)) if isinstance(block, Fuse) else None
            if means is None or not isinstance(block, Fuse):
                return block
            left = range(len(block.members)) if block.only is None else block.only
            ranked = sorted(left, key=lambda member: (-means[member], member))
            return replace(block, only=frozenset(ranked[: self.keep]))

        return transform(self.body, narrow).at(site, facts)

    def problems(self, facts: Facts | None) -> Iterator[Diagnostic]:
        if not fusions(self.body):
            help = "put it after a fuse(…)"
            yield codes.AC301.at(self.span, operator=self.word, help=help)
        if (self.by is None) == (self.data is None):
            expected = "a run, or data= names what to measure on: one of the two"
            got = "neither" if self.by is None else "both"
            yield codes.AC204.at(
                self.span, name="by", operator=self.word, expected=expected, got=got
            )

    def fitted(self, measured: Activations, title: str) -> Prune:
        """The same with what was measured, if that was measured on these fusions."""
        for name, fusion in fusions(self.body).items():
            sizes = {len(means) for means in measured.get(name, {}).values()}
            if name not in measured or sizes - {len(fusion.members)}:
                known = ", ".join(measured) or "nothing"
                told = f"it measures `{name}` on {sizes.pop()} members" if sizes else None
                why = told or f"it measures {known}, not `{name}`"
                raise Failed(codes.AC413.at(self.span, file=title, why=why))
        return replace(self, measured=measured)


def beyond_text(graph: Block) -> Iterator[Diagnostic]:
    """AC204 for `data=` outside of a spec: an expression alone has none."""
    for block in unmeasured(graph):
        if block.data is not None:
            expected = "left to a spec, which has data: here by= names a run"
            values = {"name": "data", "operator": block.word, "expected": expected}
            yield codes.AC204.at(block.span, **values, got=block.data)


def read_activations(path: Path, title: str, span: Span | None = None) -> Activations:
    """What a run, or a file, says of its fusions."""
    place = path / FILE if path.is_dir() else path
    if not place.is_file():
        raise Failed(codes.AC607.at(span, path=title, root=path.parent))
    plain = load(open_source(place, title).text, title)
    try:
        return from_plain(plain["fusions"])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise Failed(codes.AC413.at(span, file=title, why="it holds no activations")) from None


def from_plain(plain: Any) -> Activations:
    """Activations as files have them; ValueError or the like if they are not."""
    return {
        str(name): {
            str(site): tuple(float(mean) for mean in means) for site, means in sites.items()
        }
        for name, sites in plain.items()
    }


def as_text(measured: Activations) -> str:
    """The content of a file of activations."""
    plain = {
        name: {site: [round(mean, 6) for mean in means] for site, means in sites.items()}
        for name, sites in measured.items()
    }
    return dump({"activations": 1, "fusions": plain})


def unmeasured(graph: Block) -> Iterator[Prune]:
    """Where a fusion is to be pruned by what nobody has measured yet."""
    for block in walk(graph):
        if isinstance(block, Prune) and block.measured is None:
            yield block
