"""Everything that a run can know before it starts: check, lock and plan, without torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from adaptcompose.catalogue.cards import Catalogue
from adaptcompose.composition.check import Checked, Context, check_aliases, check_tree
from adaptcompose.composition.graph import Adapter, Block, Published, adapters, walk
from adaptcompose.composition.heads import Chosen
from adaptcompose.composition.operators import Fuse
from adaptcompose.composition.structure import verify
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed, Source, Span, errors, once
from adaptcompose.experiment.data.tasks import Task
from adaptcompose.experiment.prepare.data_sources import located, read, with_tokenizer
from adaptcompose.experiment.prepare.later import at_hub, served_later
from adaptcompose.experiment.prepare.prepared_run import Prepared
from adaptcompose.experiment.prepare.pruning import measured_on, still, unfit
from adaptcompose.experiment.prepare.spec_lock import (
    digest,
    kept,
    lock_path,
    merged,
    pinned_data,
    references,
)
from adaptcompose.experiment.prepare.trainable import (
    Item,
    Section,
    branched,
    choose_task,
    choose_trained,
    head_for,
    needs_examples,
    new_parts,
    unready,
    untrained,
)
from adaptcompose.experiment.spec.sections import Spec
from adaptcompose.hub.lock import Lock, compare
from adaptcompose.resolution.backbone import Backbone, find_backbone
from adaptcompose.resolution.resolve import resolve
from adaptcompose.resolution.sources import Sources
from adaptcompose.resources import resource
from adaptcompose.syntax import parser as syntax
from adaptcompose.syntax.references import is_path

T = TypeVar("T")


def prepare(spec: Spec, path: Path) -> Prepared:
    """Check, resolve and pin a spec; everything that is wrong comes as one Failed."""
    return prepare_all((spec,), path)[0]


def prepare_all(
    specs: Sequence[Spec], path: Path, *, upgrade: Collection[str] | None = None, anew: bool = False
) -> tuple[Prepared, ...]:
    """The specs of a file, prepared, with one lock for all of them.

    The lock that is there decides, unless it is written `anew`: then what the specs say counts, and
    its pins stay where they are still needed and not among those to `upgrade`.
    """
    old, code = Lock.open(lock_path(path)), digest(specs)
    pins = kept(old, specs, upgrade) if anew else old if old and old.spec == code else None
    found: list[Prepared] = []
    problems: list[Diagnostic] = []
    for spec in specs:
        preparation = Preparation(spec, path, pins)
        try:
            found.append(preparation.whole(preparation.expressions()))
        except Failed as failed:
            problems += failed.diagnostics
    if problems:
        raise Failed(once(problems))
    return with_one_lock(found, path, code, None if anew else old)


def with_one_lock(
    found: Sequence[Prepared], path: Path, code: str, old: Lock | None
) -> tuple[Prepared, ...]:
    """The specs of a file with the lock of all of them; AC410 where it is not the old one."""
    lock = replace(merged([one.lock for one in found]), spec=code)
    # values from a command line are no part of what was locked
    bound = old is not None and (old.spec == code or not found[0].spec.overrides)
    if bound and old is not None and (changed := compare(old, lock, lock_path(path).name)):
        raise Failed(replace(one, help=f"adaptcompose lock {path}") for one in changed)
    return tuple(replace(one, lock=lock) for one in found)


class Preparation:
    """The steps of preparing a spec; each goes as far as it can and says all that is wrong."""

    def __init__(self, spec: Spec, path: Path, pins: Lock | None) -> None:
        # pins of another spec may belong to another backbone or hub
        self.spec, self.path, self.pins = spec, path, pins
        self.sources = Sources(spec.hub, spec.root, self.pins.adapters if self.pins else {})
        self.backbone: Backbone | None = None
        self.globs: dict[str, tuple[str, ...]] = {}
        self.notes: list[Diagnostic] = []
        self.problems: list[Diagnostic] = []

    def expressions(self, *, ask: bool = True) -> list[Checked]:
        """The composition and that of every item, by what text, cards and config.json tell.

        Unless `ask`, a backbone on a hub that is no folder is left open.
        """
        self.spec, problems = located(self.spec, replace(self.sources, ask=ask), self.pins)
        self.problems += problems
        if ask or not self.sources.remote or is_path(self.spec.backbone.model):
            self.backbone = self._try(self._backbone, ask)
        checked = self._checked(ask)
        spec, main = self.spec, checked[0].graph if checked else None
        uses = spec.evaluate or spec.predict or spec.publish or spec.serve
        if main is not None and spec.train is None and uses and (new := new_parts(main)):
            self.problems.append(untrained(spec.compose.span(), set(new)))
        sections = (None, *_sections(spec))
        graphs = [one.graph for one in checked]
        self.problems += branched(spec, zip(graphs, sections, strict=False))
        self.notes += served_later(spec)
        self._stop()
        return checked

    def by_text(self) -> list[Diagnostic]:
        """What expressions have to be told before anything is known of hub and backbone."""
        if isinstance(self.spec.compose, Source):  # of a spec with mistakes it may be missing
            self._checked(ask=False)
        return [*self.problems, *self.notes]

    def at_hand(self, checked: list[Checked]) -> bool:
        """Whether all files that the compositions refer to are on this machine."""
        refs = [leaf.ref for one in checked if one.graph for leaf in adapters(one.graph).values()]
        near = not self.sources.remote
        if any(section.waiting for section in self.spec.data.values()):
            return False
        if self.backbone is None or (self.spec.backbone.tokenizer and not self.backbone.tokenizer):
            return False
        return all(ref is None or ref.kind == "local" or (near and not ref.forced) for ref in refs)

    def whole(self, checked: list[Checked]) -> Prepared:
        """The prepared spec, or Failed with all problems of the first step that has any."""
        assert self.backbone is not None
        self._try(self.backbone.check_files, self._place())
        graph, *others = graphs = self._resolved(checked)
        facts = self.backbone.facts
        task, head = self._task(graph)
        trained = choose_trained(self.spec, graph, head)
        items = tuple(
            Item(section, other, head_for(other, head, task))
            for section, other in zip(_sections(self.spec), others, strict=True)
        )
        self.problems += unready(graph, items, trained, facts)
        self._stop()
        tree = checked[0].tree
        assert tree is not None
        return Prepared(
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
            self._lock(graphs),
            tuple(sorted(once(self.notes), key=Diagnostic.position)),
        )

    def _try(self, step: Callable[..., T], *given: Any) -> T | None:
        """The result of a step, or its problems with the others."""
        try:
            return step(*given)
        except Failed as failed:
            self.problems += (at_hub(self.spec, one) for one in failed.diagnostics)
            return None

    def _stop(self) -> None:
        """Raise what was found so far."""
        if self.problems:
            raise Failed(once(self.problems))

    def _backbone(self, ask: bool) -> Backbone:
        section = self.spec.backbone
        found = find_backbone(
            section.model,
            self.sources,
            known_as=section.known_as,
            pin=self.pins.backbone if self.pins and self.pins.backbone.files else None,
            span=self._place(),
        )
        found = with_tokenizer(found, section, replace(self.sources, ask=ask), self.pins)
        return found if section.dtype == "auto" else found.loaded_in(section.dtype)

    def _place(self) -> Span | None:
        return self.spec.backbone.place("model") or self.spec.place("backbone")

    def _checked(self, ask: bool) -> list[Checked]:
        cards = Catalogue.open(resource("hub_cards"), self.spec.root / "hub_cards")
        facts = self.backbone.facts if self.backbone else None
        globs = self.pins.globs if self.pins else {}
        listing, composed = self.sources.repositories if ask else None, self.sources.composed
        context = Context(cards, facts, self.spec.adapters, {}, globs, listing, composed)
        tree = self._try(syntax.parse_tree, self.spec.compose)
        main = self._check(tree, context) if tree is not None else None
        context = replace(context, parts=new_parts(main.graph) if main and main.graph else {})
        found = [main]
        for section in _sections(self.spec):
            whole = self._try(tree_of, section, tree or syntax.parse_tree("none"))
            # without its composition, an item's parts and slots are not known
            if whole is not None and tree is not None:
                found.append(self._check(whole, context))
        self._check_aliases(context)
        return [one for one in found if one is not None]

    def _check_aliases(self, context: Context) -> None:
        """What is wrong with an alias, also if nothing uses it; what it names is not locked."""
        for one in check_aliases(replace(context, parts={})):
            self.problems += errors(one.diagnostics)
            for leaf in adapters(one.graph).values() if one.graph else ():
                if leaf.ref is not None and leaf.ref.kind == "local":
                    self._try(self.sources.local, leaf.ref.path, leaf.span)

    def _check(self, tree: syntax.Tree, context: Context) -> Checked:
        checked = check_tree(tree, context)
        found = errors(checked.diagnostics)
        self.problems += found
        self.notes += [one for one in checked.diagnostics if one not in found]
        self.globs |= checked.globs
        return checked

    def _resolved(self, checked: list[Checked]) -> list[Block]:
        """The compositions with their references pinned and read, and their structure verified."""
        assert self.backbone is not None
        facts = self.backbone.facts
        found = [self._try(resolve, one.raise_errors(), facts, self.sources) for one in checked]
        for one in filter(None, found):
            self.problems += errors(verify(one.graph, facts))
            self.notes += one.notes
        self.problems += unfit([one.graph if one else None for one in found], self.spec)
        self._stop()
        return [one.graph for one in found if one]

    def _task(self, graph: Block) -> tuple[Task | None, Chosen]:
        assert self.backbone is not None
        spec, examples = self.spec, None
        if spec.task and spec.train and needs_examples(spec.task, graph):
            examples = self._try(read, spec, spec.train.data)
        if self.problems:
            for ref, labelled in references(spec):
                self._try(partial(read, labelled=labelled), spec, ref)
            self._stop()
        return choose_task(spec, graph, self.backbone.facts, examples)

    def _lock(self, graphs: list[Block]) -> Lock:
        assert self.backbone is not None
        pinned = {
            str(block.ref): block.pin
            for graph in graphs
            for block in walk(graph)
            if isinstance(block, Adapter | Fuse | Published) and block.ref and block.pin
        }
        pin, data = self.backbone.pin, dict(pinned_data(self.spec, measured_on(graphs)))
        other = self.backbone.pins.get("tokenizer")
        lock = Lock("", pin, self.spec.hub, self.globs, pinned, data, tokenizer=other)
        return replace(lock, members=still(self.pins, lock, graphs))


def _sections(spec: Spec) -> tuple[Section, ...]:
    published = (spec.publish,) if spec.publish else ()
    served = spec.serve.items() if spec.serve else ()
    return (*spec.evaluate, *spec.predict, *published, *served)


def tree_of(section: Section, tree: syntax.Tree) -> syntax.Tree:
    """What an item runs: its own composition, or the main one with its pipe behind it."""
    if section.compose is not None:
        return syntax.parse_tree(section.compose)
    if section.pipe is not None:
        return syntax.piped(tree, syntax.parse_tree(section.pipe))
    return tree
