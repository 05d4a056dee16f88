"""Everything that a run can know before it starts: check, lock and plan, without torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from adaptcompose.catalogue.cards import Catalogue
from adaptcompose.composition.checker import (
    CheckContext,
    CheckResult,
    check_aliases,
    check_tree,
)
from adaptcompose.composition.graph import Adapter, Block, Published, adapters_of, walk
from adaptcompose.composition.heads import ResolvedHead
from adaptcompose.composition.operators import Fuse
from adaptcompose.composition.structure import structural_problems
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
from adaptcompose.experiment.prepare.later import move_to_hub_key, serve_notes
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
from adaptcompose.hub.lock import Lock, compare_locks
from adaptcompose.resolution.backbone import Backbone, find_backbone
from adaptcompose.resolution.resolve import resolve
from adaptcompose.resolution.sources import Sources
from adaptcompose.resources import resource_folder
from adaptcompose.syntax import parser as syntax
from adaptcompose.syntax.references import is_path

T = TypeVar("T")


def prepare_run(spec: Spec, path: Path) -> PreparedRun:
    """Check, resolve and pin a spec; everything that is wrong comes as one Failed."""
    return prepare_runs((spec,), path)[0]


def prepare_runs(
    specs: Sequence[Spec],
    path: Path,
    *,
    upgrade: Collection[str] | None = None,
    rewrite_lock: bool = False,
) -> tuple[PreparedRun, ...]:
    """The specs of a file, prepared, with one lock for all of them.

    The lock that is there decides, unless it is written `rewrite_lock`: then what the specs say counts, and
    its pins stay where they are still needed and not among those to `upgrade`.
    """
    old, code = Lock.load(lock_path(path)), spec_digest(specs)
    pins = (
        retained_pins(old, specs, upgrade)
        if rewrite_lock
        else old
        if old and old.spec == code
        else None
    )
    found: list[PreparedRun] = []
    problems: list[Diagnostic] = []
    for spec in specs:
        preparation = Preparer(spec, path, pins)
        try:
            found.append(preparation.prepare(preparation.check_expressions()))
        except Failed as failed:
            problems += failed.diagnostics
    if problems:
        raise Failed(deduplicate(problems))
    return with_shared_lock(found, path, code, None if rewrite_lock else old)


def with_shared_lock(
    runs: Sequence[PreparedRun], path: Path, digest: str, old: Lock | None
) -> tuple[PreparedRun, ...]:
    """The specs of a file with the lock of all of them; AC410 where it is not the old one."""
    lock = replace(merge_locks([one.lock for one in runs]), spec=digest)
    # values from a command line are no part of what was locked
    bound = old is not None and (old.spec == digest or not runs[0].spec.overrides)
    if bound and old is not None and (changed := compare_locks(old, lock, lock_path(path).name)):
        raise Failed(replace(one, help=f"run `adaptcompose lock {path}`") for one in changed)
    return tuple(replace(one, lock=lock) for one in runs)


class Preparer:
    """The steps of preparing a spec; each goes as far as it can and says all that is wrong."""

    def __init__(self, spec: Spec, path: Path, pins: Lock | None) -> None:
        # pins of another spec may belong to another backbone or hub
        self.spec, self.path, self.pins = spec, path, pins
        self.sources = Sources(spec.hub, spec.root, self.pins.adapters if self.pins else {})
        self.backbone: Backbone | None = None
        self.globs: dict[str, tuple[str, ...]] = {}
        self.notes: list[Diagnostic] = []
        self.problems: list[Diagnostic] = []

    def check_expressions(self, *, ask: bool = True) -> list[CheckResult]:
        """The composition and that of every item, by what text, cards and config.json tell.

        Unless `ask`, a backbone on a hub that is no folder is left open.
        """
        self.spec, problems = locate_data_sets(
            self.spec, replace(self.sources, may_query=ask), self.pins
        )
        self.problems += problems
        if ask or not self.sources.is_remote or is_path(self.spec.backbone.model):
            self.backbone = self._try(self._find_backbone, ask)
        checked = self._check_compositions(ask)
        spec, main = self.spec, checked[0].graph if checked else None
        uses = spec.evaluate or spec.predict or spec.publish or spec.serve
        if main is not None and spec.train is None and uses and (new := new_parts(main)):
            self.problems.append(untrained_diagnostic(spec.compose.span(), set(new)))
        sections = (None, *_row_sections(spec))
        graphs = [one.graph for one in checked]
        self.problems += branch_problems(spec, zip(graphs, sections, strict=False))
        self.notes += serve_notes(spec)
        self._raise_problems()
        return checked

    def check_text(self) -> list[Diagnostic]:
        """What expressions have to be told before anything is known of hub and backbone."""
        if isinstance(self.spec.compose, Source):  # of a spec with mistakes it may be missing
            self._check_compositions(ask=False)
        return [*self.problems, *self.notes]

    def has_local_files(self, checked: list[CheckResult]) -> bool:
        """Whether all files that the compositions refer to are on this machine."""
        refs = [
            leaf.ref for one in checked if one.graph for leaf in adapters_of(one.graph).values()
        ]
        near = not self.sources.is_remote
        if any(section.is_unresolved for section in self.spec.data.values()):
            return False
        if self.backbone is None or (self.spec.backbone.tokenizer and not self.backbone.tokenizer):
            return False
        return all(
            ref is None or ref.kind == "local" or (near and not ref.has_hub_prefix) for ref in refs
        )

    def prepare(self, checked: list[CheckResult]) -> PreparedRun:
        """The prepared spec, or Failed with all problems of the first step that has any."""
        assert self.backbone is not None
        self._try(self.backbone.check_files, self._backbone_span())
        graph, *others = graphs = self._resolve_graphs(checked)
        facts = self.backbone.facts
        task, head = self._choose_task(graph)
        trained = choose_trained_parts(self.spec, graph, head)
        items = tuple(
            ExperimentRow(section, other, choose_row_head(other, head, task))
            for section, other in zip(_row_sections(self.spec), others, strict=True)
        )
        self.problems += untrained_use_problems(graph, items, trained, facts)
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
            items,
            self._make_lock(graphs),
            tuple(sorted(deduplicate(self.notes), key=Diagnostic.position)),
        )

    def _try(self, step: Callable[..., T], *given: Any) -> T | None:
        """The result of a step, or its problems with the others."""
        try:
            return step(*given)
        except Failed as failed:
            self.problems += (move_to_hub_key(self.spec, one) for one in failed.diagnostics)
            return None

    def _raise_problems(self) -> None:
        """Raise what was found so far."""
        if self.problems:
            raise Failed(deduplicate(self.problems))

    def _find_backbone(self, ask: bool) -> Backbone:
        section = self.spec.backbone
        found = find_backbone(
            section.model,
            self.sources,
            known_as=section.known_as,
            pin=self.pins.backbone if self.pins and self.pins.backbone.files else None,
            span=self._backbone_span(),
        )
        found = with_tokenizer(found, section, replace(self.sources, may_query=ask), self.pins)
        return found if section.dtype == "auto" else found.loaded_in(section.dtype)

    def _backbone_span(self) -> Span | None:
        return self.spec.backbone.span_of("model") or self.spec.span_of("backbone")

    def _check_compositions(self, ask: bool) -> list[CheckResult]:
        cards = Catalogue.open(resource_folder("hub_cards"), self.spec.root / "hub_cards")
        facts = self.backbone.facts if self.backbone else None
        globs = self.pins.globs if self.pins else {}
        listing, composed = (
            self.sources.list_repositories if ask else None,
            self.sources.may_be_published,
        )
        context = CheckContext(cards, facts, self.spec.adapters, {}, globs, listing, composed)
        tree = self._try(syntax.parse_tree, self.spec.compose)
        main = self._check_tree(tree, context) if tree is not None else None
        context = replace(context, parts=new_parts(main.graph) if main and main.graph else {})
        found = [main]
        for section in _row_sections(self.spec):
            whole = self._try(row_tree, section, tree or syntax.parse_tree("none"))
            # without its composition, an item's parts and slots are not known
            if whole is not None and tree is not None:
                found.append(self._check_tree(whole, context))
        self._check_aliases(context)
        return [one for one in found if one is not None]

    def _check_aliases(self, context: CheckContext) -> None:
        """What is wrong with an alias, also if nothing uses it; what it names is not locked."""
        for one in check_aliases(replace(context, parts={})):
            self.problems += select_errors(one.diagnostics)
            for leaf in adapters_of(one.graph).values() if one.graph else ():
                if leaf.ref is not None and leaf.ref.kind == "local":
                    self._try(self.sources.local_folder, leaf.ref.path, leaf.span)

    def _check_tree(self, tree: syntax.Tree, context: CheckContext) -> CheckResult:
        checked = check_tree(tree, context)
        found = select_errors(checked.diagnostics)
        self.problems += found
        self.notes += [one for one in checked.diagnostics if one not in found]
        self.globs |= checked.globs
        return checked

    def _resolve_graphs(self, checked: list[CheckResult]) -> list[Block]:
        """The compositions with their references pinned and read, and their structure verified."""
        assert self.backbone is not None
        facts = self.backbone.facts
        found = [self._try(resolve, one.raise_errors(), facts, self.sources) for one in checked]
        for one in filter(None, found):
            self.problems += select_errors(structural_problems(one.graph, facts))
            self.notes += one.diagnostics
        self.problems += prune_problems([one.graph if one else None for one in found], self.spec)
        self._raise_problems()
        return [one.graph for one in found if one]

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
        pinned = {
            str(block.ref): block.pin
            for graph in graphs
            for block in walk(graph)
            if isinstance(block, Adapter | Fuse | Published) and block.ref and block.pin
        }
        pin, data = self.backbone.pin, dict(pin_data(self.spec, prune_data_refs(graphs)))
        other = self.backbone.pins.get("tokenizer")
        lock = Lock("", pin, self.spec.hub, self.globs, pinned, data, tokenizer=other)
        return replace(lock, members=reusable_members(self.pins, lock, graphs))


def _row_sections(spec: Spec) -> tuple[RowSection, ...]:
    published = (spec.publish,) if spec.publish else ()
    served = spec.serve.served_sections() if spec.serve else ()
    return (*spec.evaluate, *spec.predict, *published, *served)


def row_tree(section: RowSection, tree: syntax.Tree) -> syntax.Tree:
    """What an item runs: its own composition, or the main one with its pipe behind it."""
    if section.compose is not None:
        return syntax.parse_tree(section.compose)
    if section.pipe is not None:
        return syntax.append_stages(tree, syntax.parse_tree(section.pipe))
    return tree
