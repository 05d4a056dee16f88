"""`prune`: fewer members in a fusion, where attention has shown that it needs no more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.composition.graph import Block, transform, walk
from adaptcompose.composition.operator import Modifier, operator
from adaptcompose.composition.operators.fuse import Fuse, fusions_of
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed, Span
from adaptcompose.ir.primitives import Primitive
from adaptcompose.storage.yaml_source import dump_yaml, load_yaml, read_source
from adaptcompose.syntax.signature import option

Activations = Mapping[str, Mapping[str, tuple[float, ...]]]
"""Per fusion and site the mean attention on each member, 0 where it has nothing."""

ACTIVATIONS_FILE = "activations.yaml"
"""What a run keeps of its fusions."""


@operator
@dataclass(frozen=True)
class Prune(Modifier):
    """Keep the members of every fusion that get the most attention, site by site.

    Attention is measured once (Rücklé et al., 2021): as the mean over the tokens of `data` in a
    spec, or in an earlier run, `by=runs/glue`. If all parts are loaded, the lock records which
    members are kept; if the run trains the fusion, each run measures again. Laws: keeping all
    members is the identity; prune(keep=n) | prune(keep=m) = prune(keep=min(n, m)) for the same
    measurement.

    Examples:
        fuse(glue/*) | prune(keep=2, by=runs/glue)
        fuse(glue/*) | drop(bottom=5) | prune(keep=2, data=rte)
    """

    word: ClassVar[str] = "prune"

    keep: int = option(2, "number of members to keep at each site", minimum=1)
    by: str | None = option(None, "a run, or a file that it wrote, with measured attention")
    data: str | None = option(None, "data of the spec to measure attention on")
    activations: Activations | None = field(default=None, compare=False, repr=False)

    def at(self, site: Site, facts: Facts) -> Primitive | None:
        if self.activations is None:
            return self.body.at(site, facts)
        found = self.activations

        def narrow(block: Block) -> Block:
            means = found.get(block.name, {}).get(str(site)) if isinstance(block, Fuse) else None
            if means is None or not isinstance(block, Fuse):
                return block
            left = (
                range(len(block.members)) if block.active_members is None else block.active_members
            )
            ranked = sorted(left, key=lambda member: (-means[member], member))
            return replace(block, active_members=frozenset(ranked[: self.keep]))

        return transform(self.body, narrow).at(site, facts)

    def problems(self, facts: Facts | None) -> Iterator[Diagnostic]:
        if not fusions_of(self.body):
            help = f"put it after a fusion: `fuse(…) | {self.word}(…)`"
            yield codes.AC301.at(self.span, operator=self.word, help=help)
        if (self.by is None) == (self.data is None):
            expected, got = "given when there is no `data`", "missing"
            if self.by is not None:
                expected, got = "left out when `data` is given", f"`{self.by}`"
            yield codes.AC204.at(
                self.span, name="by", operator=self.word, expected=expected, got=got
            )

    def with_activations(self, activations: Activations, title: str) -> Prune:
        """The same with what was measured, if that was measured on these fusions."""
        for name, fusion in fusions_of(self.body).items():
            sizes = {len(means) for means in activations.get(name, {}).values()}
            if name not in activations or sizes - {len(fusion.members)}:
                known = ", ".join(activations) or "nothing"
                told = f"it has `{name}` with {sizes.pop()} members" if sizes else None
                why = told or f"it has the attention of {known}, not of `{name}`"
                raise Failed(codes.AC413.at(self.span, file=title, why=why))
        return replace(self, activations=activations)


def spec_only_problems(graph: Block) -> Iterator[Diagnostic]:
    """AC204 for `data=` outside of a spec: an expression alone has none."""
    for block in unmeasured_prunes(graph):
        if block.data is not None:
            expected = "left out of an expression that is not in a spec (use `by`)"
            values = {"name": "data", "operator": block.word, "expected": expected}
            yield codes.AC204.at(block.span, **values, got=f"`{block.data}`")


def read_activations(path: Path, title: str, span: Span | None = None) -> Activations:
    """What a run, or a file, says of its fusions."""
    place = path / ACTIVATIONS_FILE if path.is_dir() else path
    if not place.is_file():
        raise Failed(codes.AC607.at(span, path=title, root=path.parent))
    plain = load_yaml(read_source(place, title).text, title)
    try:
        return parse_activations(plain["fusions"])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise Failed(
            codes.AC413.at(span, file=title, why="it does not contain the attention of fusions")
        ) from None


def parse_activations(plain: Any) -> Activations:
    """Activations as files have them; ValueError or the like if they are not."""
    return {
        str(name): {
            str(site): tuple(float(mean) for mean in means) for site, means in sites.items()
        }
        for name, sites in plain.items()
    }


def format_activations(activations: Activations) -> str:
    """The content of a file of activations."""
    plain = {
        name: {site: [round(mean, 6) for mean in means] for site, means in sites.items()}
        for name, sites in activations.items()
    }
    return dump_yaml({"activations": 1, "fusions": plain})


def unmeasured_prunes(graph: Block) -> Iterator[Prune]:
    """Where a fusion is to be pruned by what nobody has measured yet."""
    for block in walk(graph):
        if isinstance(block, Prune) and block.activations is None:
            yield block
