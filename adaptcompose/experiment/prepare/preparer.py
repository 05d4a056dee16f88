"""From specs to prepared runs: check, resolve and pin, without torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from adaptcompose.catalogue.cards import Catalogue
from adaptcompose.composition.checker import CheckContext, CheckResult, check_aliases, check_tree
from adaptcompose.composition.graph import Block, adapters_of, walk
from adaptcompose.composition.heads import ResolvedHead
from adaptcompose.composition.structure import structural_problems
from adaptcompose.diagnostics.codes import AC412, AC604
from adaptcompose.diagnostics.diagnostic import (
    Diagnostic,
    Failed,
    Source,
    Span,
    deduplicate,
    select_errors,
)
from adaptcompose.experiment.data.tasks import Task
from adaptcompose.experiment.prepare.data_sources import (
    locate_data_sets,
    read_split,
    with_tokenizer,
)
from adaptcompose.experiment.prepare.prepared_run import PreparedRun
from adaptcompose.experiment.prepare.pruning import (
    prune_data_refs,
    prune_problems,
    reusable_members,
)
from adaptcompose.experiment.prepare.spec_lock import (
    data_refs,
    lock_path,
    merge_locks,
    pin_data,
    retained_pins,
    spec_digest,
)
from adaptcompose.experiment.prepare.trainable import (
    ExperimentRow,
    RowSection,
    branch_problems,
    choose_row_head,
    choose_task,
    choose_trained_parts,
    needs_training_labels,
    new_parts,
    untrained_diagnostic,
    untrained_use_problems,
)
from adaptcompose.experiment.spec.sections import Spec
from adaptcompose.hub.lock import Lock, Pin, compare_locks
from adaptcompose.resolution.backbone import Backbone, find_backbone
from adaptcompose.resolution.resolve import resolve
from adaptcompose.resolution.sources import Sources
from adaptcompose.resources import resource_folder
from adaptcompose.syntax import nodes, parser
from adaptcompose.syntax.references import is_path

T = TypeVar("T")


def prepare_runs(
    specs: Sequence[Spec],
    path: Path,
    *,
    upgrade: Collection[str] | None = None,
    rewrite_lock: bool = False,
) -> tuple[PreparedRun, ...]:
    """Check, resolve and pin the specs of a file, and give all of them one lock.

    The lock next to the file decides which revisions are used. With `rewrite_lock` the specs
    decide; pins of the old lock stay if they still fit, except those named in `upgrade` (all of
    them if it is empty). Raises one Failed with the problems of all specs.
    """
    runs, problems, _ = try_prepare_runs(specs, path, upgrade=upgrade, rewrite_lock=rewrite_lock)
    if problems:
        raise Failed(problems)
    return runs


def try_prepare_runs(
    specs: Sequence[Spec],
    path: Path,
    *,
    upgrade: Collection[str] | None = None,
    rewrite_lock: bool = False,
    may_query: bool = True,
) -> tuple[tuple[PreparedRun, ...], list[Diagnostic], list[Diagnostic]]:
    """The runs that can be prepared, the problems, and the notes of all specs.

    Without `may_query` only files on this machine are read, and a spec that needs others is left
    out of the runs. Runs get their lock only if no spec is missing.
    """
    old, digest = Lock.load(lock_path(path)), spec_digest(specs)
    pins = old if old is not None and old.spec == digest else None
    if rewrite_lock:
        old, pins = None, retained_pins(old, specs, upgrade)
    runs: list[PreparedRun] = []
    problems: list[Diagnostic] = []
    notes: list[Diagnostic] = []
    for spec in specs:
        preparer = Preparer(spec, path, pins)
        try:
            checked = preparer.check_expressions(may_query=may_query)
            if may_query or preparer.has_local_files(checked):
                runs.append(preparer.prepare(checked))
        except Failed as failed:
            problems += failed.diagnostics
        notes += preparer.notes
    if len(runs) == len(specs):
        try:
            runs = _with_shared_lock(runs, path, digest, old)
        except Failed as failed:
            problems += failed.diagnostics
    return tuple(runs), deduplicate(problems), notes


def _with_shared_lock(
    runs: Sequence[PreparedRun], path: Path, digest: str, old: Lock | None
) -> list[PreparedRun]:
    """The runs with one lock for all of them; AC410 if it differs from the old one."""
    lock = replace(merge_locks([run.lock for run in runs]), spec=digest)
    # overrides of the command line are not part of the spec that the old lock was written for
    binds = old is not None and (old.spec == digest or not runs[0].spec.overrides)
    if binds and old is not None and (changes := compare_locks(old, lock, lock_path(path).name)):
        help = f"run `adaptcompose lock {path}`"
        raise Failed(replace(change, help=help) for change in changes)
    return [replace(run, lock=lock) for run in runs]


class Preparer:
    """The steps of preparing one spec. Each step goes on after a problem and collects them all.

    `pins` is a lock that was written for this spec: pins of another one may belong to another
    backbone or hub.
    """

    def __init__(self, spec: Spec, path: Path, pins: Lock | None) -> None:
        self.spec, self.path, self.pins = spec, path, pins
        self.sources = Sources(spec.hub, spec.root, pins.adapters if pins else {})
        self.backbone: Backbone | None = None
        self.globs: dict[str, tuple[str, ...]] = {}
        self.notes: list[Diagnostic] = []
        self.problems: list[Diagnostic] = []

    def check_expressions(self, *, may_query: bool = True) -> list[CheckResult]:
        """Check the composition and those of all rows against the text, the cards and config.json.

        Without `may_query`, a backbone on a remote hub stays unknown.
        """
        local = replace(self.sources, may_query=may_query)
        self.spec, problems = locate_data_sets(self.spec, local, self.pins)
        self.problems += problems
        if may_query or not self.sources.is_remote or is_path(self.spec.backbone.model):
            self.backbone = self._try(self._find_backbone, may_query)
        checked = self._check_compositions(may_query)
        spec, main = self.spec, checked[0].graph if checked else None
        uses = spec.evaluate or spec.predict or spec.publish or spec.serve
        if main is not None and spec.train is None and uses and (new := new_parts(main)):
            self.problems.append(untrained_diagnostic(spec.compose.span(), set(new)))
        sections = (None, *_row_sections(spec))
        graphs = [result.graph for result in checked]
        self.problems += branch_problems(spec, zip(graphs, sections, strict=False))
        self.notes += _serve_notes(spec)
        self._raise_problems()
        return checked

    def check_text(self) -> list[Diagnostic]:
        """Check the expressions of a draft, without looking at hub or backbone."""
        if isinstance(self.spec.compose, Source):  # a draft may lack it
            self._check_compositions(may_query=False)
        return [*self.problems, *self.notes]

    def has_local_files(self, checked: list[CheckResult]) -> bool:
        """Whether all files that the compositions refer to are on this machine."""
        graphs = [result.graph for result in checked if result.graph]
        refs = [adapter.ref for graph in graphs for adapter in adapters_of(graph).values()]
        is_local_hub = not self.sources.is_remote
        if any(section.is_unresolved for section in self.spec.data.values()):
            return False
        if self.backbone is None or (self.spec.backbone.tokenizer and not self.backbone.tokenizer):
            return False
        return all(
            ref is None or ref.kind == "local" or (is_local_hub and not ref.has_hub_prefix)
            for ref in refs
        )

    def prepare(self, checked: list[CheckResult]) -> PreparedRun:
        """The prepared run. Raises Failed with all problems of the first step that has any."""
        assert self.backbone is not None
        self._try(self.backbone.check_files, self._backbone_span())
        graph, *others = graphs = self._resolve_graphs(checked)
        facts = self.backbone.facts
        task, head = self._choose_task(graph)
        trained = choose_trained_parts(self.spec, graph, head)
        rows = tuple(
            ExperimentRow(section, other, choose_row_head(other, head, task))
            for section, other in zip(_row_sections(self.spec), others, strict=True)
        )
        self.problems += untrained_use_problems(graph, rows, trained, facts)
        self._raise_problems()
        tree = checked[0].tree
        assert tree is not None
        return PreparedRun(
            self.spec,
            self.path,
            self.backbone,
            self.sources,
            tree,
            graph,
            head,
            task,
            trained,
            rows,
            self._make_lock(graphs),
            tuple(sorted(deduplicate(self.notes), key=Diagnostic.position)),
        )

    def _try(self, step: Callable[..., T], *arguments: Any) -> T | None:
        """The result of a step; None if it failed, and its problems join the others."""
        try:
            return step(*arguments)
        except Failed as failed:
            self.problems += (_move_to_hub_key(self.spec, one) for one in failed.diagnostics)
            return None

    def _raise_problems(self) -> None:
        """Raise Failed if there are problems so far."""
        if self.problems:
            raise Failed(deduplicate(self.problems))

    def _find_backbone(self, may_query: bool) -> Backbone:
        section = self.spec.backbone
        backbone = find_backbone(
            section.model,
            self.sources,
            known_as=section.known_as,
            pin=self.pins.backbone if self.pins and self.pins.backbone.files else None,
            span=self._backbone_span(),
        )
        sources = replace(self.sources, may_query=may_query)
        backbone = with_tokenizer(backbone, section, sources, self.pins)
        return backbone if section.dtype == "auto" else backbone.loaded_in(section.dtype)

    def _backbone_span(self) -> Span | None:
        return self.spec.backbone.span_of("model") or self.spec.span_of("backbone")

    def _check_compositions(self, may_query: bool) -> list[CheckResult]:
        cards = Catalogue.open(resource_folder("hub_cards"), self.spec.root / "hub_cards")
        facts = self.backbone.facts if self.backbone else None
        globs = self.pins.globs if self.pins else {}
        list_repositories = self.sources.list_repositories if may_query else None
        may_be_published = self.sources.may_be_published
        context = CheckContext(
            cards, facts, self.spec.adapters, {}, globs, list_repositories, may_be_published
        )
        tree = self._try(parser.parse_tree, self.spec.compose)
        main = self._check_tree(tree, context) if tree is not None else None
        context = replace(context, parts=new_parts(main.graph) if main and main.graph else {})
        results = [main]
        for section in _row_sections(self.spec):
            own_tree = self._try(row_tree, section, tree or parser.parse_tree("none"))
            # the parts and slots that a row may name come from the main composition
            if own_tree is not None and tree is not None:
                results.append(self._check_tree(own_tree, context))
        self._check_aliases(context)
        return [result for result in results if result is not None]

    def _check_aliases(self, context: CheckContext) -> None:
        """Check every alias, even if no expression uses it. Unused aliases are not pinned."""
        for result in check_aliases(replace(context, parts={})):
            self.problems += select_errors(result.diagnostics)
            for adapter in adapters_of(result.graph).values() if result.graph else ():
                if adapter.ref is not None and adapter.ref.kind == "local":
                    self._try(self.sources.local_folder, adapter.ref.path, adapter.span)

    def _check_tree(self, tree: nodes.Tree, context: CheckContext) -> CheckResult:
        result = check_tree(tree, context)
        errors = select_errors(result.diagnostics)
        self.problems += errors
        self.notes += [one for one in result.diagnostics if one not in errors]
        self.globs |= result.globs
        return result

    def _resolve_graphs(self, checked: list[CheckResult]) -> list[Block]:
        """Pin and read the references of all compositions, then check their structure."""
        assert self.backbone is not None
        facts = self.backbone.facts
        resolutions = [
            self._try(resolve, result.raise_errors(), facts, self.sources) for result in checked
        ]
        for resolution in filter(None, resolutions):
            self.problems += select_errors(structural_problems(resolution.graph, facts))
            self.notes += resolution.diagnostics
        graphs = [resolution.graph if resolution else None for resolution in resolutions]
        self.problems += prune_problems(graphs, self.spec)
        self._raise_problems()
        return [graph for graph in graphs if graph is not None]

    def _choose_task(self, graph: Block) -> tuple[Task | None, ResolvedHead]:
        assert self.backbone is not None
        spec, examples = self.spec, None
        if spec.task and spec.train and needs_training_labels(spec.task, graph):
            examples = self._try(read_split, spec, spec.train.data)
        if self.problems:
            for ref, labelled in data_refs(spec):
                self._try(partial(read_split, labelled=labelled), spec, ref)
            self._raise_problems()
        return choose_task(spec, graph, self.backbone.facts, examples)

    def _make_lock(self, graphs: list[Block]) -> Lock:
        assert self.backbone is not None
        pinned: dict[str, Pin] = {}
        for block in (block for graph in graphs for block in walk(graph)):
            pinned |= block.pins
        pin, data = self.backbone.pin, dict(pin_data(self.spec, prune_data_refs(graphs)))
        tokenizer = self.backbone.pins.get("tokenizer")
        lock = Lock("", pin, self.spec.hub, self.globs, pinned, data, tokenizer=tokenizer)
        return replace(lock, members=reusable_members(self.pins, lock, graphs))


def _row_sections(spec: Spec) -> tuple[RowSection, ...]:
    published = (spec.publish,) if spec.publish else ()
    served = spec.serve.served_sections() if spec.serve else ()
    return (*spec.evaluate, *spec.predict, *published, *served)


def row_tree(section: RowSection, tree: nodes.Tree) -> nodes.Tree:
    """The composition of a row: its own, or the main one followed by its pipe."""
    if section.compose is not None:
        return parser.parse_tree(section.compose)
    if section.pipe is not None:
        return parser.append_stages(tree, parser.parse_tree(section.pipe))
    return tree


def _serve_notes(spec: Spec) -> Iterator[Diagnostic]:
    """AC604 as a note: `serve` is checked and locked, but a run does not use it."""
    if spec.serve is not None:
        help = "remove it, or keep it for a later version: it is checked and locked"
        span = spec.span_of("serve")
        note = AC604.at(span and span.first_line(), name="serve", known="", help=help)
        yield replace(note, severity="note")


def _move_to_hub_key(spec: Spec, problem: Diagnostic) -> Diagnostic:
    """Point a problem with a missing hub folder at the key `hub`, whatever was looked up in it."""
    if problem.code != AC412.id or problem.values.get("path") != spec.hub:
        return problem
    return replace(problem, span=spec.span_of("hub"))
