"""A spec that is ready to run: its composition, backbone, data and lock, and its plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from adaptcompose.backbones.layout import Facts
from adaptcompose.compiler.lower import lower
from adaptcompose.composition.graph import Block, WeightedPart
from adaptcompose.composition.heads import ResolvedHead
from adaptcompose.composition.operators import parts_of
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed, deduplicate, select_errors
from adaptcompose.experiment.data.examples import Examples
from adaptcompose.experiment.data.tasks import Task
from adaptcompose.experiment.prepare.data_sources import read_split
from adaptcompose.experiment.prepare.pruning import prune_data_refs, with_recorded_members
from adaptcompose.experiment.prepare.spec_lock import data_download_bytes, data_refs
from adaptcompose.experiment.prepare.trainable import ExperimentRow
from adaptcompose.experiment.spec.sections import Spec
from adaptcompose.experiment.spec.value_types import DataRef
from adaptcompose.hub.lock import Lock
from adaptcompose.resolution.backbone import Backbone
from adaptcompose.resolution.sources import Sources
from adaptcompose.syntax import nodes

if TYPE_CHECKING:
    from adaptcompose.compiler.plan import Plan
    from adaptcompose.compiler.trunk import TrunkPlan


@dataclass(frozen=True)
class PreparedRun:
    """A spec that is checked, resolved and pinned. Nothing has run yet.

    `graph` is the composition that is trained, `rows` are those of `evaluate`, `predict`,
    `publish` and `serve`. Examples are read when they are first needed, and then kept.
    """

    spec: Spec
    path: Path
    backbone: Backbone
    sources: Sources
    tree: nodes.Tree
    graph: Block
    head: ResolvedHead
    task: Task | None
    trained_parts: frozenset[str]
    rows: tuple[ExperimentRow, ...]
    lock: Lock
    notes: tuple[Diagnostic, ...] = ()
    _examples: dict[tuple[DataRef, bool], Examples] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def facts(self) -> Facts:
        return self.backbone.facts

    def plan_trunk(self) -> TrunkPlan | None:
        """The layers that training computes once per example; None without `trunk: cached`."""
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
        """The composition, with its fusions pruned to the members that the lock records."""
        return with_recorded_members(self.graph, self.lock.members)

    def make_plan(self) -> Plan:
        """The plan of the run: what it loads, creates, trains and downloads."""
        from adaptcompose.compiler.planning import make_plan

        cached = {part.name for part in self.parts() if self.sources.is_on_disk(part.ref, part.pin)}
        if self.sources.is_on_disk(self.backbone.ref, self.backbone.pin):
            cached.add("backbone")
        plan = make_plan(
            self.pruned_graph(),
            self.facts,
            trained=self.trained_parts,
            head=self.head,
            title=self.spec.name,
            expression=str(self.tree),
            pin=self.backbone.pin,
            cached=cached,
        )
        return replace(
            plan,
            trunk=self.plan_trunk(),
            other_downloads={**plan.other_downloads, **self._other_downloads()},
        )

    def _other_downloads(self) -> dict[str, int]:
        """Bytes to download for the tokenizer of `backbone.tokenizer`, and for data sets."""
        tokenizer, size = self.backbone.tokenizer, 0
        if tokenizer and not self.sources.is_on_disk(tokenizer.ref, tokenizer.pin):
            size = tokenizer.pin.size
        graphs = [self.graph, *(row.graph for row in self.rows)]
        pruned = [with_recorded_members(graph, self.lock.members) for graph in graphs]
        data = data_download_bytes(self.spec, prune_data_refs(pruned))
        return {"tokenizer": size, "data": data}

    def read_examples(self, ref: DataRef, *, labelled: bool = True) -> Examples:
        """The examples of a split, read once. Unless `labelled`, labels may be missing."""
        key = (ref, labelled)
        if key not in self._examples:
            self._examples[key] = read_split(self.spec, ref, labelled=labelled)
        return self._examples[key]

    def read_inputs(self) -> list[Diagnostic]:
        """Read all examples and fetch all adapters; return warnings about the examples.

        Raises one Failed with all problems.
        """
        problems = [problem for part in self.parts() for problem in self._fetch_problems(part)]
        try:
            self.sources.check_offline(self.backbone.pins)
        except Failed as failed:
            problems += failed.diagnostics
        diagnostics: list[Diagnostic] = []
        for ref, labelled in data_refs(self.spec):
            try:
                examples = self.read_examples(ref, labelled=labelled)
            except Failed as failed:
                problems += failed.diagnostics
                continue
            diagnostics += self.task.check(examples) if self.task else []
        if problems := [*problems, *select_errors(diagnostics)]:
            raise Failed(deduplicate(problems))
        return deduplicate(diagnostics)

    def parts(self) -> list[WeightedPart]:
        """The parts of all compositions of the run, each once."""
        graphs = (self.graph, *(row.graph for row in self.rows))
        by_name: dict[str, WeightedPart] = {}
        for graph in reversed(graphs):
            by_name |= parts_of(graph)
        return list(by_name.values())

    def _fetch_problems(self, part: WeightedPart) -> Iterator[Diagnostic]:
        if part.ref is not None and part.pin is not None:
            try:
                self.sources.fetch(part.ref, part.pin)
            except Failed as failed:
                yield from failed.with_default_span(part.span).diagnostics
