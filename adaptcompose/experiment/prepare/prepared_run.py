"""A spec of which everything is checked, resolved and pinned: what it runs on, and its plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from adaptcompose.backbones.layout import Facts
from adaptcompose.compiler.lower import lower
from adaptcompose.composition.graph import Block
from adaptcompose.composition.heads import Chosen
from adaptcompose.composition.operators import parts_of
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed, errors, once
from adaptcompose.experiment.data.examples import Examples
from adaptcompose.experiment.data.tasks import Task
from adaptcompose.experiment.prepare.data_sources import read
from adaptcompose.experiment.prepare.pruning import measured_on, with_members
from adaptcompose.experiment.prepare.spec_lock import references, unfetched
from adaptcompose.experiment.prepare.trainable import Item, Part
from adaptcompose.experiment.spec.sections import Spec
from adaptcompose.experiment.spec.value_types import DataRef
from adaptcompose.hub.lock import Lock
from adaptcompose.resolution.backbone import Backbone
from adaptcompose.resolution.sources import Sources
from adaptcompose.syntax import parser as syntax

if TYPE_CHECKING:
    from adaptcompose.compiler.plan import Plan
    from adaptcompose.compiler.trunk import Trunk


@dataclass(frozen=True)
class Prepared:
    """A spec of which everything is checked, resolved and pinned, and nothing has run."""

    spec: Spec
    path: Path
    backbone: Backbone
    sources: Sources
    tree: syntax.Tree
    graph: Block
    head: Chosen
    task: Task | None
    trained: frozenset[str]
    items: tuple[Item, ...]
    lock: Lock
    notes: tuple[Diagnostic, ...] = ()
    _examples: dict[str, tuple[Examples, list[Diagnostic]]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def facts(self) -> Facts:
        return self.backbone.facts

    def trunk(self) -> Trunk | None:
        """The layers that training computes once per example; None if nobody asks for that."""
        from adaptcompose.compiler.passes import optimise
        from adaptcompose.compiler.trunk import Trunk, trunk_of

        train = self.spec.train
        if train is None or train.trunk != "cached":
            return None
        if train.robust_drop:
            return Trunk(0, "robust drop changes from batch to batch")
        if self.task is not None and self.task.kind == "masked-lm":
            return Trunk(0, "other words are hidden in every epoch")
        return trunk_of(optimise(lower(self.pruned(), self.facts)), self.trained)

    def pruned(self) -> Block:
        """The composition with the members that the lock records for its fusions, if it does."""
        return with_members(self.graph, self.lock.members)

    def plan(self) -> Plan:
        """What the run loads, creates and trains, and what it has to fetch for that."""
        from adaptcompose.compiler.planning import make_plan

        parts = [("backbone", self.backbone), *((part.name, part) for part in self.parts())]
        made = make_plan(
            self.pruned(),
            self.facts,
            trained=self.trained,
            head=self.head,
            title=self.spec.name,
            expression=str(self.tree),
            pin=self.backbone.pin,
            cached={name for name, one in parts if self.sources.near(one.ref, one.pin)},
        )
        return replace(made, trunk=self.trunk(), besides={**made.besides, **self._besides()})

    def _besides(self) -> dict[str, int]:
        """The bytes to fetch of another tokenizer, and of data sets."""
        other, graphs = self.backbone.tokenizer, [item.graph for item in self.items]
        near = other is None or self.sources.near(other.ref, other.pin)
        kept = [with_members(graph, self.lock.members) for graph in (self.graph, *graphs)]
        data = unfetched(self.spec, measured_on(kept))
        return {"tokenizer": 0 if near or other is None else other.pin.size, "data": data}

    def examples(self, ref: DataRef, *, labelled: bool = True) -> Examples:
        """The examples of a split, labels optional where nothing is scored."""
        return self._told(ref, labelled)[0]

    def _told(self, ref: DataRef, labelled: bool) -> tuple[Examples, list[Diagnostic]]:
        """The examples of a split, read once, and what there is to say about them."""
        key = f"{ref} {labelled}"
        if key not in self._examples:
            found = read(self.spec, ref, labelled=labelled)
            notes = self.task.check(found) if self.task else []
            if problems := errors(notes):
                raise Failed(problems)
            self._examples[key] = found, notes
        return self._examples[key]

    def read(self) -> list[Diagnostic]:
        """Read all examples, fetch all adapters; everything wrong with them is in one Failed."""
        problems = [found for part in self.parts() for found in self._fetched(part)]
        try:
            self.sources.check_at_hand(self.backbone.pins)
        except Failed as failed:
            problems += failed.diagnostics
        notes: list[Diagnostic] = []
        for ref, labelled in references(self.spec):
            try:
                notes += self._told(ref, labelled)[1]
            except Failed as failed:
                problems += failed.diagnostics
        if problems:
            raise Failed(once(problems))
        return once(notes)

    def parts(self) -> list[Part]:
        """Every part of every composition of the run, each once."""
        graphs = (self.graph, *(item.graph for item in self.items))
        found = {name: part for graph in reversed(graphs) for name, part in parts_of(graph).items()}
        return list(found.values())

    def _fetched(self, part: Part) -> Iterator[Diagnostic]:
        if part.ref is not None and part.pin is not None:
            try:
                self.sources.fetch(part.ref, part.pin)
            except Failed as failed:
                yield from failed.at(part.span).diagnostics
