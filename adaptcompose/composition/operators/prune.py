"""`prune`: fusions with the members only that get the most attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.composition.fusion_activations import ACTIVATIONS_FILE, Activations
from adaptcompose.composition.graph import Block, ReadActivations, WeightedPart, transform, walk
from adaptcompose.composition.operator import Modifier, register_operator
from adaptcompose.composition.operators.fuse import Fuse, fusion_occurrences, fusions_of
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed
from adaptcompose.ir.primitives import Primitive
from adaptcompose.syntax.references import Ref
from adaptcompose.syntax.signature import option


@register_operator
@dataclass(frozen=True)
class Prune(Modifier):
    """Keep the members of every fusion that get the most attention, site by site.

    Use it to make a trained fusion faster (Rücklé et al., 2021). The attention is the mean
    over the tokens of `data` in a spec, or the mean that an earlier run has measured,
    `by=runs/glue`. If all parts are loaded, the lock records which members are kept; if the run
    trains the fusion, each run measures again.

    Laws: keeping all members is the identity; prune(keep=n) | prune(keep=m) = prune(keep=min(n, m))
    for the same measurement.

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
        means_by_fusion = self.activations

        def narrow(block: Block) -> Block:
            if not isinstance(block, Fuse):
                return block
            means = means_by_fusion.get(block.name, {}).get(str(site))
            return block if means is None else block.narrowed(means, self.keep)

        return transform(self.body, narrow).at(site, facts)

    def problems(self, facts: Facts | None) -> Iterator[Diagnostic]:
        if not fusions_of(self.body):
            help = f"put it after a fusion: `fuse(…) | {self.word}(…)`"
            yield codes.AC301.at(self.span, operator=self.word, help=help)
        if (self.by is None) == (self.data is None):
            values = {"expected": "given when there is no `data`", "got": "missing"}
            if self.by is not None:
                values = {"expected": "left out when `data` is given", "got": f"`{self.by}`"}
            yield codes.AC204.at(self.span, name="by", operator=self.word, **values)

    def resolved(self, read_activations: ReadActivations) -> Block:
        if self.by is None or self.activations is not None:
            return self
        return self.with_activations(read_activations(self.by, self.span), self.by)

    def pinned(self, reference_of: Callable[[WeightedPart], Ref]) -> Block:
        if not self.activations:
            return self.body
        return replace(self, by=ACTIVATIONS_FILE, data=None)

    def with_activations(self, activations: Activations, title: str) -> Prune:
        """This modifier with measured attention; `title` names its source in messages.

        Raises Failed with AC413 unless the attention was measured on the fusions to the left.
        """
        for name, fusion in fusions_of(self.body).items():
            sizes = {len(means) for means in activations.get(name, {}).values()}
            if name not in activations or sizes - {len(fusion.members)}:
                known = ", ".join(activations) or "nothing"
                why = f"it has the attention of {known}, not of `{name}`"
                if sizes:
                    why = f"it has `{name}` with {sizes.pop()} members"
                raise Failed(codes.AC413.at(self.span, file=title, why=why))
        return replace(self, activations=activations)


def spec_only_problems(graph: Block) -> Iterator[Diagnostic]:
    """Yield AC204 for every `data=` in an expression that is not in a spec."""
    for block in unmeasured_prunes(graph):
        if block.data is not None:
            expected = "left out of an expression that is not in a spec (use `by`)"
            values = {"name": "data", "operator": block.word, "expected": expected}
            yield codes.AC204.at(block.span, **values, got=f"`{block.data}`")


def prunes_on(graph: Block, data: str) -> list[Prune]:
    """The `prune` modifiers of a graph that measure attention on `data`."""
    return [block for block in walk(graph) if isinstance(block, Prune) and block.data == data]


def unmeasured_prunes(graph: Block) -> Iterator[Prune]:
    """Yield the `prune` modifiers of a graph that have no measured attention yet."""
    for block in walk(graph):
        if isinstance(block, Prune) and block.activations is None:
            yield block


def measure_prunes(graph: Block, data: str | None, activations: Activations) -> Block:
    """The graph with `activations` in every unmeasured `prune(data=…)` on that data.

    Raises Failed with AC413 if the activations belong to other fusions.
    """

    def measure(block: Block) -> Block:
        if isinstance(block, Prune) and block.activations is None and block.data == data:
            return block.with_activations(activations, str(data))
        return block

    return transform(graph, measure)


def without_prunes(graph: Block) -> Block:
    """The graph with all members in all fusions."""
    return transform(graph, lambda block: block.body if isinstance(block, Prune) else block)


def recorded_activations(graph: Block) -> Activations:
    """The attention by which a graph is pruned, as a saved composition records it.

    The names of the fusions are those that they get when the saved expression is read again.
    """
    known: dict[str, Mapping[str, tuple[float, ...]]] = {}
    for block in walk(graph):
        known |= (block.activations or {}) if isinstance(block, Prune) else {}
    numbered = enumerate(fusion_occurrences(graph), 1)
    names = ((f"fuse{number}" if number > 1 else "fuse", fusion) for number, fusion in numbered)
    return {name: known[fusion.name] for name, fusion in names if fusion.name in known}
