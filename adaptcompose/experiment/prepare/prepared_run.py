"""A spec of which everything is checked, resolved and pinned: what it runs on, and its plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from adaptcompose.backbones.layout import Facts
from adaptcompose.compiler.lower import lower
from adaptcompose.composition.graph import Block
from adaptcompose.composition.heads import ResolvedHead
from adaptcompose.composition.operators import parts_of
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed, deduplicate, select_errors
from adaptcompose.experiment.data.examples import Examples
from adaptcompose.experiment.data.tasks import Task
from adaptcompose.experiment.prepare.data_sources import read_split
from adaptcompose.experiment.prepare.pruning import prune_data_refs, with_recorded_members
from adaptcompose.experiment.prepare.spec_lock import data_download_bytes, data_refs
from adaptcompose.experiment.prepare.trainable import ExperimentRow, WeightedPart
from adaptcompose.experiment.spec.sections import Spec
from adaptcompose.experiment.spec.value_types import DataRef
from adaptcompose.hub.lock import Lock
from adaptcompose.resolution.backbone import Backbone
from adaptcompose.resolution.sources import Sources
from adaptcompose.syntax import parser as syntax

if TYPE_CHECKING:
    from adaptcompose.compiler.plan import Plan
    from adaptcompose.compiler.trunk import TrunkPlan


@dataclass(frozen=True)
class PreparedRun:
    """A spec of which everything is checked, resolved and pinned, and nothing has run."""

    spec: Spec
    path: Path
    backbone: Backbone
    sources: Sources
    tree: syntax.Tree
    graph: Block
    head: ResolvedHead
    task: Task | None
    trained_parts: frozenset[str]
    rows: tuple[ExperimentRow, ...]
    lock: Lock
    notes: tuple[Diagnostic, ...] = ()
    _examples: dict[str, tuple[Examples, list[Diagnostic]]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def facts(self) -> Facts:
        return self.backbone.facts

    def plan_trunk(self) -> TrunkPlan | None:
        """The layers that training computes once per example; None if nobody asks for that."""
        from adaptcompose.compiler.passes import optimise
        from adaptcompose.compiler.trunk import TrunkPlan, trunk_of

        train = self.spec.train
        if train is None or train.trunk != "cached":
            return None
        if train.robust_drop:
            return TrunkPlan(0, "robust_drop changes the composition with every batch")
        if self.task is not None and self.task.kind == "masked-lm":
            return TrunkPlan(0, "masked-lm hides other words in every epoch")
        return trunk_of(optimise(lower(self.pruned_graph(), self.facts)), self.trained_parts)

    def pruned_graph(self) -> Block:
        """The composition with the members that the lock records for its fusions, if it does."""
        return with_recorded_members(self.graph, self.lock.members)

    def make_plan(self) -> Plan:
        """What the run loads, creates and trains, and what it has to fetch for that."""
        from adaptcompose.compiler.planning import make_plan

        parts = [("backbone", self.backbone), *((part.name, part) for part in self.parts())]
        made = make_plan(
            self.pruned_graph(),
            self.facts,
            trained=self.trained_parts,
            head=self.head,
            title=self.spec.name,
            expression=str(self.tree),
            pin=self.backbone.pin,
            cached={name for name, one in parts if self.sources.is_on_disk(one.ref, one.pin)},
        )
        return replace(
            made,
            trunk=self.plan_trunk(),
            other_downloads={**made.other_downloads, **self._other_downloads()},
        )

    def _other_downloads(self) -> dict[str, int]:
        """The bytes to fetch of another tokenizer, and of data sets."""
        other, graphs = self.backbone.tokenizer, [item.graph for item in self.rows]
        near = other is None or self.sources.is_on_disk(other.ref, other.pin)
        kept = [with_recorded_members(graph, self.lock.members) for graph in (self.graph, *graphs)]
        data = data_download_bytes(self.spec, prune_data_refs(kept))
        return {"tokenizer": 0 if near or other is None else other.pin.size, "data": data}

    def read_examples(self, ref: DataRef, *, labelled: bool = True) -> Examples:
        """The examples of a split, labels optional where nothing is scored."""
        return self._read_once(ref, labelled)[0]

    def _read_once(self, ref: DataRef, labelled: bool) -> tuple[Examples, list[Diagnostic]]:
        """The examples of a split, read once, and what there is to say about them."""
        key = f"{ref} {labelled}"
        if key not in self._examples:
            found = read_split(self.spec, ref, labelled=labelled)
            notes = self.task.check(found) if self.task else []
            if problems := select_errors(notes):
                raise Failed(problems)
            self._examples[key] = found, notes
        return self._examples[key]

    def read_inputs(self) -> list[Diagnostic]:
        """Read all examples, fetch all adapters; everything wrong with them is in one Failed."""
        problems = [found for part in self.parts() for found in self._fetch_problems(part)]
        try:
            self.sources.check_offline(self.backbone.pins)
        except Failed as failed:
            problems += failed.diagnostics
        notes: list[Diagnostic] = []
        for ref, labelled in data_refs(self.spec):
            try:
                notes += self._read_once(ref, labelled)[1]
            except Failed as failed:
                problems += failed.diagnostics
        if problems:
            raise Failed(deduplicate(problems))
        return deduplicate(notes)

    def parts(self) -> list[WeightedPart]:
        """Every part of every composition of the run, each once."""
        graphs = (self.graph, *(item.graph for item in self.rows))
        found = {name: part for graph in reversed(graphs) for name, part in parts_of(graph).items()}
        return list(found.values())

    def _fetch_problems(self, part: WeightedPart) -> Iterator[Diagnostic]:
        if part.ref is not None and part.pin is not None:
            try:
                self.sources.fetch(part.ref, part.pin)
            except Failed as failed:
                yield from failed.with_default_span(part.span).diagnostics
