"""Everything that a run can know before it starts: check, lock and plan, without torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.compiler.lower import lower, weights_used
from adaptcompose.hub.backbone import Backbone, find_backbone
from adaptcompose.hub.cards import Catalogue
from adaptcompose.hub.lock import Lock, Locked, compare
from adaptcompose.hub.resolve import Sources, resolve
from adaptcompose.hub.store import record
from adaptcompose.language import codes, syntax
from adaptcompose.language.check import Checked, Context, check_tree, piped, verify
from adaptcompose.language.diagnostics import Diagnostic, Failed, Source, Span, errors
from adaptcompose.language.graph import Adapter, Block, Head, adapters, walk
from adaptcompose.language.heads import KINDS, NEW, Chosen, head_of, new_head
from adaptcompose.language.operators import Fuse, Stack, fusions
from adaptcompose.resources import resource
from adaptcompose.work.data import Examples, open_data
from adaptcompose.work.references import DataRef
from adaptcompose.work.sections import EvaluateSection, PredictSection, Spec, TaskSection
from adaptcompose.work.tasks import Task, open_task, roles_of

Section = EvaluateSection | PredictSection


@dataclass(frozen=True)
class Item:
    """One row of `evaluate` or `predict` with the composition that it runs."""

    section: Section
    graph: Block
    head: Chosen


@dataclass(frozen=True)
class Prepared:
    """A spec of which everything is checked, resolved and pinned, and nothing has run."""

    spec: Spec
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

    @property
    def facts(self) -> Facts:
        return self.backbone.facts

    def examples(self, ref: DataRef, *, labelled: bool = True) -> Examples:
        """The examples of a split, labels optional where nothing is scored."""
        assert self.spec.task is not None
        inputs, outputs = roles_of(self.spec.task.kind)
        if labelled:
            return open_data(self.spec, ref, (*inputs, *outputs))
        return open_data(self.spec, ref, inputs, outputs)


def lock_path(spec_path: Path) -> Path:
    """`<spec stem>.lock` beside the spec."""
    return spec_path.with_suffix(".lock")


def prepare(spec: Spec, path: Path) -> Prepared:
    """Check, resolve and pin a spec; everything that is wrong comes as one Failed."""
    old = Lock.open(lock_path(path))
    digest = _digest(spec)
    if old is not None and old.spec != digest:
        raise Failed(codes.AC410.at(lock=lock_path(path).name, what="the spec"))
    pins = {**old.adapters, "backbone": old.backbone} if old else {}
    sources = Sources(spec.hub, spec.root, pins)
    section = spec.backbone
    backbone = find_backbone(
        section.model,
        sources,
        known_as=section.known_as,
        pin=old.backbone if old else None,
        span=section.place("model") or spec.place("backbone"),
    )
    return _Preparation(spec, path, sources, backbone, old).run(digest)


def _digest(spec: Spec) -> str:
    names = (
        "hub",
        "backbone",
        "adapters",
        "compose",
        "task",
        "data",
        "train",
        "evaluate",
        "predict",
    )
    return f"sha256:{spec.digest(*names)}"


class _Preparation:
    """The steps of `prepare`, over what they share."""

    def __init__(
        self, spec: Spec, path: Path, sources: Sources, backbone: Backbone, old: Lock | None
    ) -> None:
        self.spec, self.path, self.sources, self.backbone, self.old = (
            spec,
            path,
            sources,
            backbone,
            old,
        )
        self.facts = backbone.facts
        cards = Catalogue.open(resource("hub_cards"), spec.root / "hub_cards")
        globs = old.globs if old else {}
        self.context = Context(cards, self.facts, aliases=spec.adapters, globs=globs)
        self.globs: dict[str, tuple[str, ...]] = {}
        self.notes: list[Diagnostic] = []

    def run(self, digest: str) -> Prepared:
        tree = syntax.parse_tree(self.spec.compose)
        graph = self._graph(check_tree(tree, self.context))
        self.context = replace(self.context, parts=new_parts(graph))
        graphs = self._graphs(tree)
        task, head = self._task(graph)
        trained = self._trained(graph, head)
        items = [Item(s, g, head_for(g, head, task)) for s, g in graphs]
        self._check_items(graph, items, trained)
        lock = self._lock(digest, [graph, *(item.graph for item in items)])
        return Prepared(
            self.spec,
            self.backbone,
            self.sources,
            tree,
            graph,
            head,
            task,
            trained,
            tuple(items),
            lock,
            tuple(dict.fromkeys(self.notes)),
        )

    def _graph(self, checked: Checked) -> Block:
        """A checked composition with its references resolved and its structure verified."""
        resolved = resolve(checked.raise_errors(), self.facts, self.sources)
        if problems := errors(verify(resolved.graph, self.facts)):
            raise Failed(problems)
        self.globs |= checked.globs
        self.notes += [found for found in checked.diagnostics if found.severity != "error"]
        self.notes += resolved.notes
        return resolved.graph

    def _graphs(self, tree: syntax.Tree) -> list[tuple[Section, Block]]:
        """The composition of every item; the mistakes of all of them at once."""
        found: list[tuple[Section, Block]] = []
        problems: list[Diagnostic] = []
        sections: tuple[Section, ...] = (*self.spec.evaluate, *self.spec.predict)
        for section in sections:
            try:
                whole = tree_of(section, tree)
                found.append((section, self._graph(check_tree(whole, self.context))))
            except Failed as failed:
                problems += failed.diagnostics
        if problems:
            raise Failed(dict.fromkeys(problems))
        return found

    def _task(self, graph: Block) -> tuple[Task | None, Chosen]:
        """The task with its labels, and the head of the composition."""
        section = self.spec.task
        if section is None:
            return None, head_of(graph)
        brought = head_of(graph)
        wanted = section.head
        if section.kind == "masked-lm" and wanted in ("auto", "of-backbone"):
            return open_task(section), "backbone"
        if wanted == "of-backbone":
            raise Failed(
                codes.AC604.at(
                    section.place("head"),
                    name="task.head: of-backbone for this kind",
                    known="new, of-adapter",
                )
            )
        if wanted not in ("auto", "new", "of-adapter"):
            brought = self._named_head(graph, section)
        fits = brought is not None and brought.kind == KINDS[section.kind]
        train = self.spec.train
        if wanted == "new" or (wanted == "auto" and not fits and train is not None):
            examples = None
            if train is not None:
                inputs, outputs = roles_of(section.kind)
                examples = open_data(self.spec, train.data, (*inputs, *outputs))
            task = open_task(section, examples)
            return task, new_head(section.kind, task.labels)
        if brought is None or not fits:
            what = f"task.kind: {section.kind}"
            raise Failed(codes.AC508.at(section.place("kind"), what=what))
        task = open_task(section, brought=brought.labels)
        if task.labels != brought.labels and wanted == "auto" and train is not None:
            return task, new_head(section.kind, task.labels)
        _check_labels(section, brought, task)
        return task, brought

    def _named_head(self, graph: Block, section: TaskSection) -> Head:
        """`task.head` names a part or a slot of the composition."""
        named = {name: leaf for name, leaf in adapters(graph).items() if leaf.head is not None}
        for slot, names in slot_parts(graph).items():
            named.update((slot, named[name]) for name in names if name in named)
        if section.head not in named:
            known = ", ".join(["new", "of-adapter", "of-backbone", *named])
            place = section.place("head")
            raise Failed(
                codes.AC605.at(
                    place, name="task.head", expected=f"one of {known}", got=section.head
                )
            )
        head = named[section.head].head
        assert head is not None
        return head

    def _trained(self, graph: Block, head: Chosen) -> frozenset[str]:
        """The names of the parts that training changes, `head` among them."""
        train = self.spec.train
        new = {name for name, leaf in adapters(graph).items() if leaf.new}
        new |= {name for name, block in fusions(graph).items() if block.new}
        new |= {"head"} if isinstance(head, Head) and head.part == NEW else set()
        if train is None:
            if new and (self.spec.evaluate or self.spec.predict or self.spec.publish):
                names = ", ".join(f"`{name}`" for name in sorted(new))
                raise Failed(codes.AC501.at(self.spec.place("compose"), names=names))
            return frozenset()
        if train.update is None:
            if not new:
                known = ", ".join([*slot_parts(graph), "head"])
                raise Failed(codes.AC502.at(self.spec.place("train"), known=known))
            return frozenset(new)
        return self._updated(graph, new)

    def _updated(self, graph: Block, new: set[str]) -> frozenset[str]:
        train = self.spec.train
        assert train is not None and train.update is not None
        known: dict[str, set[str]] = {name: {name} for name in (*adapters(graph), *fusions(graph))}
        known |= {slot: set(names) for slot, names in slot_parts(graph).items()}
        known |= {"fuse": set(fusions(graph)), "head": {"head"}}
        chosen: set[str] = set()
        for index, name in enumerate(train.update):
            if name not in known:
                place = train.place(f"update[{index}]")
                expected = f"among {', '.join(known)}"
                raise Failed(
                    codes.AC605.at(place, name="train.update", expected=expected, got=name)
                )
            chosen |= known[name]
        if left := sorted(new - chosen):
            names = ", ".join(f"`{name}`" for name in left)
            raise Failed(
                codes.AC501.at(train.place("update"), names=names, help="add it to train.update")
            )
        return frozenset(chosen)

    def _check_items(self, graph: Block, items: Sequence[Item], trained: frozenset[str]) -> None:
        """AC501 where an item uses a new part at a site that training does not reach."""
        reach = weights_used(lower(graph, self.facts))
        known = set(adapters(graph)) | set(fusions(graph))
        for item in items:
            for name, sites in weights_used(lower(item.graph, self.facts)).items():
                missing = _untrained(name, sites, reach, item.graph)
                if missing and (name not in known or name in trained):
                    place = _place_of(item.section)
                    raise Failed(codes.AC501.at(place, names=f"`{name}` at {missing}"))

    def _lock(self, digest: str, graphs: Sequence[Block]) -> Lock:
        pinned: dict[str, Locked] = {}
        for graph in graphs:
            for block in walk(graph):
                if isinstance(block, Adapter | Fuse) and block.ref and block.pin:
                    pinned[str(block.ref)] = block.pin
        lock = Lock(
            digest, self.backbone.pin, self.spec.hub, self.globs, pinned, dict(self._data())
        )
        if self.old is not None and (found := compare(self.old, lock, lock_path(self.path).name)):
            raise Failed(found)
        return lock

    def _data(self) -> Iterator[tuple[str, Locked]]:
        spec = self.spec
        sections: tuple[Section, ...] = (*spec.evaluate, *spec.predict)
        refs = [spec.train.data, spec.train.validation] if spec.train else []
        refs += [section.data for section in sections]
        for ref in dict.fromkeys(ref for ref in refs if ref is not None):
            files = {}
            for path in spec.files(ref):
                files[_relative(path, spec.root)] = record(path)
            yield str(ref), Locked(files=files)


def _relative(path: Path, root: Path) -> str:
    try:
        return path.resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        return path.name


def tree_of(section: Section, tree: syntax.Tree) -> syntax.Tree:
    """What an item runs: its own composition, or the main one with its pipe behind it."""
    if section.compose is not None:
        return syntax.parse_tree(section.compose)
    if section.pipe is not None:
        return piped(tree, syntax.parse_tree(section.pipe))
    return tree


def _place_of(section: Section) -> Span | None:
    source: Source | None = section.pipe or section.compose
    return source.span() if source is not None else section.place("name")


def new_parts(graph: Block) -> dict[str, Block]:
    """The new parts of a composition under their names, for the other compositions of a run."""
    found: dict[str, Block] = {name: leaf for name, leaf in adapters(graph).items() if leaf.new}
    return found | {name: block for name, block in fusions(graph).items() if block.new}


def _untrained(
    name: str, sites: tuple[Site, ...], reach: dict[str, tuple[Site, ...]], graph: Block
) -> Site | None:
    """The first site at which an item uses weights of a new part that nothing has trained."""
    leaf: Adapter | Fuse | None = adapters(graph).get(name) or fusions(graph).get(name)
    if leaf is None or not leaf.new:
        return None
    return next((site for site in sites if site not in reach.get(name, ())), None)


def slot_parts(graph: Block) -> dict[str, list[str]]:
    """The names of the parts in each named slot."""
    found: dict[str, list[str]] = {}
    for block in walk(graph):
        for slot in block.members if isinstance(block, Stack) else ():
            if slot.name:
                found.setdefault(slot.name, []).extend(adapters(slot.block))
    return found


def head_for(graph: Block, head: Chosen, task: Task | None) -> Chosen:
    """The head of an item: the run's own where it is new or the backbone's, else the item's."""
    if not isinstance(head, Head) or head.part == NEW:
        return head
    brought = head_of(graph)
    fits = brought is not None and task is not None and brought.labels == task.labels
    return brought if fits else head


def _check_labels(section: TaskSection, brought: Head, task: Task) -> None:
    if task.labels != brought.labels:
        found = f"{len(brought.labels)} labels ({', '.join(brought.labels[:8])})"
        wanted = f"{len(task.labels)} ({', '.join(task.labels[:8])})"
        place = section.place("labels") or section.place("kind")
        raise Failed(codes.AC503.at(place, name=brought.part, found=found, wanted=wanted))
