"""What a run trains, and the head through which: decided from the graph and the task alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.compiler.lower import lower, weights_used
from adaptcompose.composition.graph import Adapter, Block, Head, adapters, walk
from adaptcompose.composition.heads import KINDS, NEW, Chosen, head_of, needs_inverse, new_head
from adaptcompose.composition.operators import (
    Fuse,
    Stack,
    fusions,
    irreversible,
    learning,
    marks,
    parts_of,
)
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed, Source, Span, suggest
from adaptcompose.experiment.data.examples import Examples
from adaptcompose.experiment.data.tasks import Task, open_task
from adaptcompose.experiment.spec.sections import (
    EvaluateSection,
    PredictSection,
    PublishSection,
    ServedSection,
    Spec,
    TaskSection,
)

Section = EvaluateSection | PredictSection | PublishSection | ServedSection
Part = Adapter | Fuse


@dataclass(frozen=True)
class Item:
    """A row of `evaluate` or `predict`, or `publish`, with the composition that it runs."""

    section: Section
    graph: Block
    head: Chosen

    @property
    def written(self) -> Source | None:
        """The expression of the row itself."""
        return self.section.compose or self.section.pipe

    @property
    def place(self) -> Span | None:
        """Where the user wrote it."""
        if self.written is not None:
            return self.written.span()
        return self.section.place("repo" if isinstance(self.section, PublishSection) else "name")


def new_parts(graph: Block) -> dict[str, Block]:
    """The new parts of a composition under their names, for the other compositions of a run."""
    return {name: part for name, part in parts_of(graph).items() if part.new}


def slot_parts(graph: Block) -> dict[str, list[str]]:
    """The names of the parts in each named slot."""
    found: dict[str, list[str]] = {}
    for block in walk(graph):
        for slot in block.members if isinstance(block, Stack) else ():
            if slot.name:
                found.setdefault(slot.name, []).extend(adapters(slot.block))
    return found


def needs_examples(section: TaskSection, graph: Block) -> bool:
    """Whether only the training data can tell what the labels are."""
    if section.kind == "masked-lm" or section.labels:
        return False
    brought = head_of(graph)
    fits = brought is not None and brought.kind == KINDS[section.kind]
    return section.head == "new" or (section.head == "auto" and not fits)


def choose_task(
    spec: Spec, graph: Block, facts: Facts, examples: Examples | None
) -> tuple[Task | None, Chosen]:
    """The task with its labels, and the head that does it."""
    section = spec.task
    if section is None:
        return None, head_of(graph)
    if section.kind == "masked-lm" and (found := list(irreversible(graph, facts))):
        raise Failed(found)
    if section.head == "of-backbone" or (section.head == "auto" and section.kind == "masked-lm"):
        return _of_backbone(section, facts), "backbone"
    named = section.head not in ("auto", "new", "of-adapter")
    brought = _named_head(graph, section) if named else head_of(graph)
    fits = brought is not None and brought.kind == KINDS[section.kind]
    may_be_new = section.head == "auto" and spec.train is not None
    if section.head == "new" or (may_be_new and not fits):
        task = open_task(section, examples)
        return task, new_head(section.kind, task.labels)
    if brought is None:
        raise Failed(codes.AC508.at(section.place("kind"), what=f"task.kind: {section.kind}"))
    if not fits:
        raise Failed(
            _other_head(section, brought, f"kind {brought.kind}", f"kind {KINDS[section.kind]}")
        )
    task = open_task(section, brought=brought.labels)
    if task.labels == brought.labels:
        return task, brought
    if may_be_new:
        return task, new_head(section.kind, task.labels)
    raise Failed(_other_head(section, brought, _told(brought.labels), _told(task.labels)))


def _of_backbone(section: TaskSection, facts: Facts) -> Task:
    if section.kind != "masked-lm":
        name = "task.head: of-backbone for this kind"
        found = codes.AC604.at(section.place("head"), name=name, known="new, of-adapter")
        raise Failed(found)
    saved = [str(name) for name in facts.config.get("architectures") or ()]
    if saved and not any(name.endswith("ForMaskedLM") for name in saved):
        help = f"this backbone was saved as {saved[0]}; take one with its head, or task.head: new"
        raise Failed(codes.AC508.at(section.place("kind"), what="task.kind: masked-lm", help=help))
    return open_task(section)


def _named_head(graph: Block, section: TaskSection) -> Head:
    """`task.head` names a part or a slot of the composition."""
    named = {name: leaf.head for name, leaf in adapters(graph).items() if leaf.head is not None}
    for slot, names in slot_parts(graph).items():
        named.update((slot, named[name]) for name in names if name in named)
    if section.head not in named:
        known = ", ".join(["new", "of-adapter", "of-backbone", *named])
        place, wanted = section.place("head"), section.head
        found = codes.AC605.at(place, name="task.head", expected=f"one of {known}", got=wanted)
        raise Failed(found)
    return named[section.head]


def _told(labels: Sequence[str]) -> str:
    more = ", …" if len(labels) > 8 else ""
    return f"{len(labels)} labels ({', '.join(labels[:8])}{more})"


def _other_head(section: TaskSection, brought: Head, found: str, wanted: str) -> Diagnostic:
    place = section.place("labels") or section.place("kind")
    return codes.AC503.at(place, name=brought.part, found=found, wanted=wanted)


def head_for(graph: Block, head: Chosen, task: Task | None) -> Chosen:
    """The head of an item: the run's own where it is new or the backbone's, else the item's."""
    if not isinstance(head, Head) or head.part == NEW:
        return head
    brought = head_of(graph)
    fits = brought is not None and task is not None and brought.labels == task.labels
    return brought if fits else head


def choose_trained(spec: Spec, graph: Block, head: Chosen) -> frozenset[str]:
    """The names of the parts that training changes, `head` among them."""
    train = spec.train
    new = set(new_parts(graph))
    new |= {NEW} if isinstance(head, Head) and head.part == NEW else set()
    if train is None:
        if new and (spec.evaluate or spec.predict or spec.publish or spec.serve):
            raise Failed(untrained(spec.place("compose"), new))
        return frozenset()
    chosen = _updated(spec, graph, head) if train.update is not None else _default(graph, head)
    if not chosen:
        known = ", ".join(_updatable(graph, head))
        raise Failed(codes.AC502.at(train.place("update") or spec.place("compose"), known=known))
    if left := new - chosen:
        help = "add it to train.update"
        raise Failed(untrained(train.place("update"), left, help))
    return frozenset(chosen)


def _default(graph: Block, head: Chosen) -> set[str]:
    """What is trained without `train.update`: what the expression says, and a new head."""
    return {*learning(graph), *({NEW} if isinstance(head, Head) and head.part == NEW else ())}


def untrained(place: Span | None, names: set[str], help: str | None = None) -> Diagnostic:
    """AC501 for parts by name."""
    return codes.AC501.at(place, names=", ".join(f"`{name}`" for name in sorted(names)), help=help)


def _updatable(graph: Block, head: Chosen) -> dict[str, set[str]]:
    """What `train.update` may name, and the parts that it means."""
    known: dict[str, set[str]] = {name: {name} for name in parts_of(graph)}
    known |= {slot: set(names) for slot, names in slot_parts(graph).items() if names}
    known |= {"fuse": set(fusions(graph))} if fusions(graph) else {}
    # the backbone is frozen, and its own head with it
    return known | ({NEW: {NEW}} if isinstance(head, Head) else {})


def _updated(spec: Spec, graph: Block, head: Chosen) -> set[str]:
    train = spec.train
    assert train is not None and train.update is not None
    known, chosen, problems = _updatable(graph, head), set(), []
    said = marks(graph)
    for index, name in enumerate(train.update):
        place, expected = train.place(f"update[{index}]"), f"among {', '.join(known)}"
        if any(said.get(part) is False for part in known.get(name, ())):
            problems.append(codes.AC507.at(place, name=name))
            continue
        if name in known:
            chosen |= known[name]
            continue
        values = {"name": "train.update", "expected": expected, "got": name}
        problems.append(codes.AC605.at(place, **values, help=suggest(name, known)))
    if problems:
        raise Failed(problems)
    return chosen


def unready(
    graph: Block, items: Sequence[Item], trained: frozenset[str], facts: Facts
) -> Iterator[Diagnostic]:
    """AC501 where an item makes a new part, or uses one at a site that training does not reach."""
    reach = weights_used(lower(graph, facts))
    known = parts_of(graph)
    for item in items:
        if needs_inverse(item.head):
            yield from irreversible(item.graph, facts)
        new = new_parts(item.graph)
        used = weights_used(lower(item.graph, facts)) if new else {}
        for name, part in new.items():
            place = part.span
            if place is not None and place.source is item.written:
                help = f"name a part of `compose` instead: {', '.join(known)}"
                yield codes.AC501.at(place, names=f"`{name}`", help=help)
            elif site := _missing(used.get(name, ()), reach.get(name, ())):
                help = "training does not reach it there: drop it here, or train it there"
                yield codes.AC501.at(item.place, names=f"`{name}` at {site}", help=help)
            elif name not in trained:
                yield untrained(item.place, {name})


def _missing(used: Sequence[Site], reach: Sequence[Site]) -> Site | None:
    return next((site for site in used if site not in reach), None)


def branched(
    spec: Spec, compositions: Iterable[tuple[Block | None, Section | None]]
) -> Iterator[Diagnostic]:
    """AC512 where a task, which has one output, meets several; None is the spec's own section."""
    for graph, section in compositions:
        free = isinstance(section, PublishSection) or (section is None and spec.task is None)
        if graph is None or free or not graph.branches:
            continue
        place = spec.compose.span() if section is None else section.place("name")
        what = "task" if section is None else type(section).__name__.removesuffix("Section").lower()
        word, known = "parallel" if graph.fans else "route", ", ".join(graph.branches)
        yield codes.AC512.at(place, operator=word, what=what, known=known)
