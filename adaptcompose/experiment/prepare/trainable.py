"""The parts and the head that a run trains, decided from the graph and the task alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.compiler.lower import lower, weights_used
from adaptcompose.composition.graph import Block, Head, adapters_of, walk
from adaptcompose.composition.heads import (
    HEAD_TYPES_BY_TASK,
    NEW_HEAD_NAME,
    ResolvedHead,
    needs_inverse,
    new_head,
)
from adaptcompose.composition.operators import (
    explicit_trainability,
    fusions_of,
    inversion_problems,
    parts_of,
    trainable_parts,
)
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed, Source, Span, counted, suggest
from adaptcompose.experiment.data.examples import Examples
from adaptcompose.experiment.data.tasks import Task, make_task
from adaptcompose.experiment.spec.sections import (
    EvaluateSection,
    PredictSection,
    PublishSection,
    ServedSection,
    Spec,
    TaskSection,
)

RowSection = EvaluateSection | PredictSection | PublishSection | ServedSection


@dataclass(frozen=True)
class ExperimentRow:
    """A row of `evaluate` or `predict`, `publish`, or an entry of `serve`, with its composition."""

    section: RowSection
    graph: Block
    head: ResolvedHead

    @property
    def expression(self) -> Source | None:
        """The expression in the row, if it has one."""
        return self.section.compose or self.section.pipe

    @property
    def span(self) -> Span | None:
        """The position of the expression, or else of the name of the row."""
        if self.expression is not None:
            return self.expression.span()
        return self.section.span_of("repo" if isinstance(self.section, PublishSection) else "name")


def new_parts(graph: Block) -> dict[str, Block]:
    """The new parts of a composition by name. Rows refer to them."""
    return {name: part for name, part in parts_of(graph).items() if part.is_new}


def parts_by_slot(graph: Block) -> dict[str, list[str]]:
    """The names of the parts in each named slot."""
    names: dict[str, list[str]] = {}
    for block in walk(graph):
        for slot in block.named_slots:
            names.setdefault(str(slot.name), []).extend(adapters_of(slot.block))
    return names


def needs_training_labels(section: TaskSection, graph: Block) -> bool:
    """Whether the labels of the task come from the training data."""
    if section.kind == "masked-lm" or section.labels:
        return False
    brought = graph.default_head
    fits = brought is not None and brought.head_type == HEAD_TYPES_BY_TASK[section.kind]
    return section.head == "new" or (section.head == "auto" and not fits)


def choose_task(
    spec: Spec, graph: Block, facts: Facts, examples: Examples | None
) -> tuple[Task | None, ResolvedHead]:
    """The task with its labels, and its head.

    Raises Failed with AC508 if a head is missing, AC503 if it does not fit the task, and the
    codes of `make_task`.
    """
    section = spec.task
    if section is None:
        return None, graph.default_head
    if section.kind == "masked-lm" and (problems := list(inversion_problems(graph, facts))):
        raise Failed(problems)
    if section.head == "of-backbone" or (section.head == "auto" and section.kind == "masked-lm"):
        return _backbone_task(section, facts), "backbone"
    named = section.head not in ("auto", "new", "of-adapter")
    brought = _named_head(graph, section) if named else graph.default_head
    fits = brought is not None and brought.head_type == HEAD_TYPES_BY_TASK[section.kind]
    may_be_new = section.head == "auto" and spec.train is not None
    if section.head == "new" or (may_be_new and not fits):
        task = make_task(section, examples)
        return task, new_head(section.kind, task.labels)
    if brought is None:
        raise Failed(codes.AC508.at(section.span_of("kind"), what=f"`task.kind: {section.kind}`"))
    if not fits:
        raise Failed(
            _head_mismatch(
                section,
                brought,
                f"kind {brought.head_type}",
                f"kind {HEAD_TYPES_BY_TASK[section.kind]}",
            )
        )
    task = make_task(section, head_labels=brought.labels)
    if task.labels == brought.labels:
        return task, brought
    if may_be_new:
        return task, new_head(section.kind, task.labels)
    raise Failed(
        _head_mismatch(
            section, brought, _summarise_labels(brought.labels), _summarise_labels(task.labels)
        )
    )


def _backbone_task(section: TaskSection, facts: Facts) -> Task:
    if section.kind != "masked-lm":
        name = f"task.head: of-backbone for {section.kind}"
        problem = codes.AC604.at(section.span_of("head"), name=name, known="new, of-adapter")
        raise Failed(problem)
    saved = [str(name) for name in facts.config.get("architectures") or ()]
    if saved and not any(name.endswith("ForMaskedLM") for name in saved):
        help = f"set `task.head` to `new`, or use a backbone that was not saved as {saved[0]}"
        raise Failed(
            codes.AC508.at(section.span_of("kind"), what="`task.kind: masked-lm`", help=help)
        )
    return make_task(section)


def _named_head(graph: Block, section: TaskSection) -> Head:
    """The head of the part or slot that `task.head` names. Raises AC605 for another name."""
    named = {name: leaf.head for name, leaf in adapters_of(graph).items() if leaf.head is not None}
    for slot, names in parts_by_slot(graph).items():
        named.update((slot, named[name]) for name in names if name in named)
    if section.head not in named:
        known = ", ".join(["new", "of-adapter", "of-backbone", *named])
        span, wanted = section.span_of("head"), section.head
        problem = codes.AC605.at(
            span, name="task.head", expected=f"one of {known}", got=f"`{wanted}`"
        )
        raise Failed(problem)
    return named[section.head]


def _summarise_labels(labels: Sequence[str]) -> str:
    more = ", …" if len(labels) > 8 else ""
    return f"{counted(len(labels), 'label')} ({', '.join(labels[:8])}{more})"


def _head_mismatch(section: TaskSection, brought: Head, found: str, wanted: str) -> Diagnostic:
    span = section.span_of("labels") or section.span_of("kind")
    return codes.AC503.at(span, name=brought.part, found=found, wanted=wanted)


def choose_row_head(graph: Block, head: ResolvedHead, task: Task | None) -> ResolvedHead:
    """The head of a row.

    The head of the run if it is new or the backbone's; else the head of the row's own adapter, if
    it has the labels of the task.
    """
    if not isinstance(head, Head) or head.part == NEW_HEAD_NAME:
        return head
    brought = graph.default_head
    fits = brought is not None and task is not None and brought.labels == task.labels
    return brought if fits else head


def choose_trained_parts(spec: Spec, graph: Block, head: ResolvedHead) -> frozenset[str]:
    """The names of the parts that training changes; `head` is a new head.

    Raises Failed with AC501 if a new part stays untrained, AC502 if nothing would be trained.
    """
    train = spec.train
    new = set(new_parts(graph))
    new |= {NEW_HEAD_NAME} if isinstance(head, Head) and head.part == NEW_HEAD_NAME else set()
    if train is None:
        if new and (spec.evaluate or spec.predict or spec.publish or spec.serve):
            raise Failed(untrained_diagnostic(spec.span_of("compose"), new))
        return frozenset()
    chosen = (
        _parts_to_update(spec, graph, head)
        if train.update is not None
        else _default_parts(graph, head)
    )
    if not chosen:
        known = ", ".join(_updatable_parts(graph, head))
        raise Failed(
            codes.AC502.at(train.span_of("update") or spec.span_of("compose"), known=known)
        )
    if untrained := new - chosen:
        help = "add them to `train.update`" if len(untrained) > 1 else "add it to `train.update`"
        raise Failed(untrained_diagnostic(train.span_of("update"), untrained, help))
    return frozenset(chosen)


def _default_parts(graph: Block, head: ResolvedHead) -> set[str]:
    """The default of `train.update`: what the expression marks as trainable, and a new head."""
    return {
        *trainable_parts(graph),
        *({NEW_HEAD_NAME} if isinstance(head, Head) and head.part == NEW_HEAD_NAME else ()),
    }


def untrained_diagnostic(span: Span | None, names: set[str], help: str | None = None) -> Diagnostic:
    """AC501 for parts by name."""
    return codes.AC501.at(span, names=", ".join(f"`{name}`" for name in sorted(names)), help=help)


def _updatable_parts(graph: Block, head: ResolvedHead) -> dict[str, set[str]]:
    """The names that `train.update` accepts, each with the parts that it stands for."""
    known: dict[str, set[str]] = {name: {name} for name in parts_of(graph)}
    known |= {slot: set(names) for slot, names in parts_by_slot(graph).items() if names}
    known |= {"fuse": set(fusions_of(graph))} if fusions_of(graph) else {}
    # the head of the backbone is frozen like the backbone
    return known | ({NEW_HEAD_NAME: {NEW_HEAD_NAME}} if isinstance(head, Head) else {})


def _parts_to_update(spec: Spec, graph: Block, head: ResolvedHead) -> set[str]:
    train = spec.train
    assert train is not None and train.update is not None
    known, chosen, problems = _updatable_parts(graph, head), set(), []
    explicit = explicit_trainability(graph)
    for index, name in enumerate(train.update):
        span, expected = train.span_of(f"update[{index}]"), f"one of {', '.join(known)}"
        if any(explicit.get(part) is False for part in known.get(name, ())):
            problems.append(codes.AC507.at(span, name=name))
            continue
        if name in known:
            chosen |= known[name]
            continue
        values = {"name": f"train.update[{index}]", "expected": expected, "got": f"`{name}`"}
        problems.append(codes.AC605.at(span, **values, help=suggest(name, known)))
    if problems:
        raise Failed(problems)
    return chosen


def untrained_use_problems(
    graph: Block, rows: Sequence[ExperimentRow], trained: frozenset[str], facts: Facts
) -> Iterator[Diagnostic]:
    """Yield AC501 for rows that add a new part, or use one at a site that is not trained."""
    reach = weights_used(lower(graph, facts))
    known = parts_of(graph)
    for row in rows:
        if needs_inverse(row.head):
            yield from inversion_problems(row.graph, facts)
        new = new_parts(row.graph)
        used = weights_used(lower(row.graph, facts)) if new else {}
        for name, part in new.items():
            span = part.span
            if span is not None and span.source is row.expression:
                help = f"use a part of `compose` instead: {', '.join(known)}"
                yield codes.AC501.at(span, names=f"`{name}`", help=help)
            elif site := _first_unreached(used.get(name, ()), reach.get(name, ())):
                help = "drop it at this site, or train it there"
                yield codes.AC501.at(row.span, names=f"`{name}` at {site}", help=help)
            elif name not in trained:
                yield untrained_diagnostic(row.span, {name})


def _first_unreached(used: Sequence[Site], reach: Sequence[Site]) -> Site | None:
    return next((site for site in used if site not in reach), None)


def branch_problems(
    spec: Spec, compositions: Iterable[tuple[Block | None, RowSection | None]]
) -> Iterator[Diagnostic]:
    """Yield AC512 for compositions with several outputs where a task needs one.

    Each composition comes with its row; None is the composition of the spec itself.
    """
    for graph, section in compositions:
        free = isinstance(section, PublishSection) or (section is None and spec.task is None)
        if graph is None or free or not graph.branches:
            continue
        span = spec.compose.span() if section is None else section.span_of("name")
        what = "task" if section is None else type(section).__name__.removesuffix("Section").lower()
        word, known = "parallel" if graph.broadcasts_batch else "route", ", ".join(graph.branches)
        yield codes.AC512.at(span, operator=word, what=what, known=known)
