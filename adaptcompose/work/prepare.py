"""Everything that a run can know before it starts: check, lock and plan, without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from adaptcompose.backbones.layout import Facts
from adaptcompose.compiler.plan import Plan, make_plan
from adaptcompose.hub.backbone import Backbone, find_backbone, is_local
from adaptcompose.hub.cards import Catalogue
from adaptcompose.hub.lock import Lock, Locked, compare, hash_of
from adaptcompose.hub.resolve import Sources, resolve
from adaptcompose.hub.store import record
from adaptcompose.language import codes, syntax
from adaptcompose.language.check import Checked, Context, check_tree, piped, verify
from adaptcompose.language.diagnostics import Diagnostic, Failed, Span, errors
from adaptcompose.language.graph import Adapter, Block, adapters, walk
from adaptcompose.language.heads import Chosen
from adaptcompose.language.operators import Fuse
from adaptcompose.resources import resource
from adaptcompose.work.data import Examples, open_data
from adaptcompose.work.references import DataRef
from adaptcompose.work.sections import Spec
from adaptcompose.work.targets import (
    Item,
    Part,
    Section,
    choose_task,
    choose_trained,
    head_for,
    needs_examples,
    new_parts,
    parts_of,
    unready,
    untrained,
)
from adaptcompose.work.tasks import Task, roles_of

T = TypeVar("T")


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
    _examples: dict[str, Examples] = field(default_factory=dict, repr=False, compare=False)

    @property
    def facts(self) -> Facts:
        return self.backbone.facts

    def plan(self) -> Plan:
        """What the run loads, creates and trains; nothing is fetched from a folder."""
        remote = self.spec.hub == "hf" or "://" in self.spec.hub
        return make_plan(
            self.graph,
            self.facts,
            trained=self.trained,
            head=self.head,
            title=self.spec.name,
            expression=str(self.tree),
            pin=self.backbone.pin,
            cached=() if remote else {"backbone", *(part.name for part in self.parts())},
        )

    def examples(self, ref: DataRef, *, labelled: bool = True) -> Examples:
        """The examples of a split, labels optional where nothing is scored."""
        assert self.task is not None
        key = f"{ref} {labelled}"
        if key not in self._examples:
            found = _read(self.spec, ref, labelled=labelled)
            if problems := errors(self.task.check(found)):
                raise Failed(problems)
            self._examples[key] = found
        return self._examples[key]

    def read(self) -> list[Diagnostic]:
        """Read all examples, fetch all adapters; everything wrong with them is in one Failed."""
        problems = [found for part in self.parts() for found in self._fetched(part)]
        notes: list[Diagnostic] = []
        for ref, labelled in _references(self.spec):
            try:
                found = self.examples(ref, labelled=labelled)
                notes += self.task.check(found) if self.task else ()
            except Failed as failed:
                problems += failed.diagnostics
        if problems:
            raise Failed(_once(problems))
        return _once(notes)

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
                yield from (replace(one, span=one.span or part.span) for one in failed.diagnostics)


def lock_path(spec_path: Path) -> Path:
    """`<spec stem>.lock` beside the spec."""
    return spec_path.with_suffix(".lock")


def prepare(spec: Spec, path: Path) -> Prepared:
    """Check, resolve and pin a spec; everything that is wrong comes as one Failed."""
    preparation = _Preparation(spec, path)
    return preparation.whole(preparation.expressions())


def check_spec(spec: Spec, path: Path) -> list[Diagnostic]:
    """Everything that is wrong with a spec, and what there is to say about it, sorted by place.

    A check never waits for the network: where an adapter or the backbone is on a hub that is not
    a folder, names and structure count, and what only their files can tell is left to `plan`.
    """
    preparation = _Preparation(spec, path)
    found: list[Diagnostic] = []
    try:
        checked = preparation.expressions(ask=False)
        if preparation.at_hand(checked):
            found += preparation.whole(checked).read()
    except Failed as failed:
        found += failed.diagnostics
    return sorted(_once([*found, *preparation.notes]), key=Diagnostic.position)


class _Preparation:
    """The steps of preparing a spec; each goes as far as it can and says all that is wrong."""

    def __init__(self, spec: Spec, path: Path) -> None:
        self.spec, self.path, self.digest = spec, path, _digest(spec)
        self.old = Lock.open(lock_path(path))
        # pins of another spec may belong to another backbone or hub
        self.pins = self.old if self.old and self.old.spec == self.digest else None
        self.sources = Sources(spec.hub, spec.root, self.pins.adapters if self.pins else {})
        self.backbone: Backbone | None = None
        self.globs: dict[str, tuple[str, ...]] = {}
        self.notes: list[Diagnostic] = []
        self.problems: list[Diagnostic] = []

    def expressions(self, *, ask: bool = True) -> list[Checked]:
        """The composition and that of every item, by what text, cards and config.json tell.

        Unless `ask`, a backbone on a hub that is no folder is left open.
        """
        if ask or not self.sources.remote or is_local(self.spec.backbone.model):
            self.backbone = self._try(self._backbone)
        checked = self._checked()
        spec, main = self.spec, checked[0].graph if checked else None
        uses = spec.evaluate or spec.predict or spec.publish
        if main is not None and spec.train is None and uses and (new := new_parts(main)):
            self.problems.append(untrained(spec.compose.span(), set(new)))
        self.problems += _not_yet(spec)
        self._stop()
        return checked

    def at_hand(self, checked: list[Checked]) -> bool:
        """Whether all files that the compositions refer to are on this machine."""
        refs = [leaf.ref for one in checked if one.graph for leaf in adapters(one.graph).values()]
        near = not self.sources.remote
        return self.backbone is not None and all(
            ref is None or ref.kind == "local" or (near and not ref.forced) for ref in refs
        )

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
            tuple(sorted(_once(self.notes), key=Diagnostic.position)),
        )

    def _try(self, step: Callable[..., T], *given: Any) -> T | None:
        """The result of a step, or its problems with the others."""
        try:
            return step(*given)
        except Failed as failed:
            self.problems += failed.diagnostics
            return None

    def _stop(self) -> None:
        """Raise what was found so far."""
        if self.problems:
            raise Failed(_once(self.problems))

    def _backbone(self) -> Backbone:
        section = self.spec.backbone
        return find_backbone(
            section.model,
            self.sources,
            known_as=section.known_as,
            pin=self.pins.backbone if self.pins else None,
            span=self._place(),
        )

    def _place(self) -> Span | None:
        return self.spec.backbone.place("model") or self.spec.place("backbone")

    def _checked(self) -> list[Checked]:
        cards = Catalogue.open(resource("hub_cards"), self.spec.root / "hub_cards")
        facts = self.backbone.facts if self.backbone else None
        globs = self.pins.globs if self.pins else {}
        context = Context(cards, facts, aliases=self.spec.adapters, globs=globs)
        tree = self._try(syntax.parse_tree, self.spec.compose)
        main = self._check(tree, context) if tree is not None else None
        context = replace(context, parts=new_parts(main.graph) if main and main.graph else {})
        found = [main]
        for section in _sections(self.spec):
            whole = self._try(tree_of, section, tree or syntax.parse_tree("none"))
            # without its composition, an item's parts and slots are not known
            if whole is not None and tree is not None:
                found.append(self._check(whole, context))
        return [one for one in found if one is not None]

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
        graphs: list[Block] = []
        for one in checked:
            assert one.graph is not None
            resolved = self._try(resolve, one.graph, facts, self.sources)
            if resolved is not None:
                self.problems += errors(verify(resolved.graph, facts))
                self.notes += resolved.notes
                graphs.append(resolved.graph)
        self._stop()
        return graphs

    def _task(self, graph: Block) -> tuple[Task | None, Chosen]:
        assert self.backbone is not None
        spec, examples = self.spec, None
        if spec.task and spec.train and needs_examples(spec.task, graph):
            examples = self._try(_read, spec, spec.train.data)
        if self.problems:
            for ref, labelled in _references(spec):
                self._try(partial(_read, labelled=labelled), spec, ref)
            self._stop()
        return choose_task(spec, graph, self.backbone.facts, examples)

    def _lock(self, graphs: list[Block]) -> Lock:
        assert self.backbone is not None
        pinned = {
            str(block.ref): block.pin
            for graph in graphs
            for block in walk(graph)
            if isinstance(block, Adapter | Fuse) and block.ref and block.pin
        }
        pin, data = self.backbone.pin, dict(_pinned_data(self.spec))
        lock = Lock(self.digest, pin, self.spec.hub, self.globs, pinned, data)
        if self.old is not None and (found := compare(self.old, lock, lock_path(self.path).name)):
            raise Failed(found)
        return lock


def _once(found: Iterable[Diagnostic]) -> list[Diagnostic]:
    """An item with `each` is read for every combination; its mistakes are told once."""
    return list({(one.code, one.message, one.position()): one for one in found}.values())


def _not_yet(spec: Spec) -> Iterator[Diagnostic]:
    """AC604 for values that are in the schema and that nothing does yet."""
    if spec.backbone.tokenizer is not None:
        place, known = spec.backbone.place("tokenizer"), "the tokenizer of the backbone"
        yield codes.AC604.at(place, name="backbone.tokenizer", known=known)
    if spec.train is not None and spec.train.trunk == "cached":
        yield codes.AC604.at(spec.train.place("trunk"), name="train.trunk: cached", known="live")
    if spec.task is not None and spec.task.kind == "masked-lm":
        for item in spec.predict:
            name, known = "predict for masked-lm", "evaluate"
            yield codes.AC604.at(item.place("name"), name=name, known=known)


def _sections(spec: Spec) -> tuple[Section, ...]:
    return (*spec.evaluate, *spec.predict, *((spec.publish,) if spec.publish else ()))


def tree_of(section: Section, tree: syntax.Tree) -> syntax.Tree:
    """What an item runs: its own composition, or the main one with its pipe behind it."""
    if section.compose is not None:
        return syntax.parse_tree(section.compose)
    if section.pipe is not None:
        return piped(tree, syntax.parse_tree(section.pipe))
    return tree


def _references(spec: Spec) -> dict[tuple[DataRef, bool], None]:
    """Every split that a run reads, and whether it needs the labels; each once."""
    refs = [(spec.train.data, True), (spec.train.validation, True)] if spec.train else []
    refs += [(item.data, True) for item in spec.evaluate]
    refs += [(item.data, False) for item in spec.predict]
    return dict.fromkeys((ref, labelled) for ref, labelled in refs if ref is not None)


def _read(spec: Spec, ref: DataRef, *, labelled: bool = True) -> Examples:
    assert spec.task is not None
    inputs, outputs = roles_of(spec.task.kind)
    wanted, optional = ((*inputs, *outputs), ()) if labelled else (inputs, outputs)
    return open_data(spec, ref, wanted, optional)


def _pinned_data(spec: Spec) -> Iterator[tuple[str, Locked]]:
    for ref in dict.fromkeys(ref for ref, _ in _references(spec)):
        yield str(ref), Locked(files={_relative(p, spec.root): record(p) for p in spec.files(ref)})


def _relative(path: Path, root: Path) -> str:
    try:
        return path.resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        return path.name


def _digest(spec: Spec) -> str:
    """The hash of what decides which files are used; a learning rate is free to change."""
    plain = spec.plain()
    kept = {name: plain.get(name) for name in ("hub", "backbone", "adapters", "compose", "data")}
    rows = [(name, row) for name in ("evaluate", "predict") for row in plain.get(name, ())]
    items = [[row.get(name) for name in ("compose", "pipe", "data")] for _, row in rows]
    train = plain.get("train") or {}
    return hash_of(kept | {"items": items, "train": [train.get("data"), train.get("validation")]})
