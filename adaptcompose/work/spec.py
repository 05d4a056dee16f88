"""spec.yaml as a value: read strictly, with every problem told at once.

>>> try:
...     parse_spec(Source("spec: 1\\nname: demo", "spec.yaml"), Path())
... except Failed as failed:
...     print(*[problem.message for problem in failed.diagnostics], sep="\\n")
`spec.yaml` needs the key `backbone`
`spec.yaml` needs the key `compose`
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptcompose.documents import Value, open_source, read
from adaptcompose.hub.datasets import data_ref
from adaptcompose.hub.layouts import FORMATS
from adaptcompose.language.codes import (
    AC202,
    AC601,
    AC602,
    AC604,
    AC605,
    AC606,
    AC607,
    AC610,
)
from adaptcompose.language.diagnostics import Diagnostic, Failed, Source, Span, once, suggest
from adaptcompose.work.fields import Key, Reading, describe
from adaptcompose.work.metrics import KINDS, supported_kinds
from adaptcompose.work.overrides import override
from adaptcompose.work.references import DataRef, LayerRange
from adaptcompose.work.sections import (
    ROLES,
    SPLITS,
    BackboneSection,
    DataSection,
    EvaluateSection,
    PredictSection,
    PublishSection,
    Spec,
    TaskSection,
    TrainSection,
)
from adaptcompose.work.template import expand, sweep

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = [
    "BackboneSection",
    "DataRef",
    "DataSection",
    "EvaluateSection",
    "LayerRange",
    "PredictSection",
    "PublishSection",
    "Spec",
    "TaskSection",
    "TrainSection",
    "keys",
    "parse_spec",
    "parse_specs",
    "read_spec",
    "read_specs",
]
RESERVED = {"none", "true", "false", "let"}
_PACKED = (".zip", ".bz2", ".xz", ".zst", ".7z", ".tar", ".tar.gz", ".tgz")


def read_spec(path: Path) -> Spec:
    """The spec in a file, of a sweep its first. Everything wrong with it is in one Failed."""
    return read_specs(path)[0]


def read_specs(path: Path, overrides: Sequence[str] = ()) -> tuple[Spec, ...]:
    """The specs in a file, one for each combination of a sweep, with values set instead."""
    return _fine(*drafts(path, overrides))


def drafts(path: Path, overrides: Sequence[str] = ()) -> tuple[tuple[Spec, ...], list[Diagnostic]]:
    """The specs in a file as far as they can be read, and what is wrong with them."""
    if not path.is_file():
        raise Failed(AC607.at(path=str(path), root=str(Path.cwd())))
    return _parse_all(open_source(path), path.parent, overrides)


def parse_spec(source: Source, root: Path) -> Spec:
    """The spec in a text; relative paths start at `root`."""
    return parse_specs(source, root)[0]


def parse_specs(source: Source, root: Path, overrides: Sequence[str] = ()) -> tuple[Spec, ...]:
    """The specs in a text, one for each combination of a sweep."""
    return _fine(*_parse_all(source, root, overrides))


def _fine(specs: tuple[Spec, ...], problems: Sequence[Diagnostic]) -> tuple[Spec, ...]:
    if problems:
        raise Failed(problems)
    return specs


def _parse_all(
    source: Source, root: Path, overrides: Sequence[str]
) -> tuple[tuple[Spec, ...], list[Diagnostic]]:
    reading = Reading()
    documents = sweep(override(read(source), overrides), reading)
    found = list(reading.problems)
    specs = []
    for document in documents:
        spec, problems = _parse(document, root)
        specs.append(replace(spec, overrides=tuple(overrides)))
        found += problems
    return tuple(specs), once(found)


def _parse(document: Value, root: Path) -> tuple[Spec, list[Diagnostic]]:
    reading = Reading()
    spec = replace(reading.section(Spec, expand(document, reading), ""), root=root)
    spec, problems = resolved(spec)
    return spec, [*reading.problems, *problems, *_check(spec)]


def resolved(spec: Spec) -> tuple[Spec, list[Diagnostic]]:
    """The spec with the splits that its references leave open, and what is wrong with them."""
    resolving = _Resolving(spec)
    return resolving.resolved(), resolving.problems


def keys() -> Iterator[Key]:
    """Every key of spec.yaml: path, type in words, default, help."""
    return describe(Spec)


@dataclass
class _Resolving:
    """Fills in the splits that references to data leave open."""

    spec: Spec

    def __post_init__(self) -> None:
        self.problems: list[Diagnostic] = []

    def resolved(self) -> Spec:
        spec = self.spec
        evaluate = tuple(
            replace(item, data=self._fill(item.data, item.place("data"), "test", "validation"))
            for item in spec.evaluate
        )
        predict = tuple(
            replace(item, data=self._fill(item.data, item.place("data"), "test", "validation"))
            for item in spec.predict
        )
        train = self._train(spec.train) if spec.train else None
        self._declared()
        return replace(spec, train=train, evaluate=evaluate, predict=predict)

    def _train(self, train: TrainSection) -> TrainSection:
        data = self._fill(train.data, train.place("data"), "train")
        validation = train.validation
        if validation:
            validation = self._fill(validation, train.place("validation"), "validation")
        elif data and data.name in self.spec.data and data.split != "validation":
            section = self.spec.data[data.name]
            if section.waiting:
                return replace(train, data=data)
            if "validation" in section.parts(data.config):
                validation = replace(data, split="validation")
        keep = train.keep or ("best" if validation else "last")
        needing = {"keep": train.keep == "best", "every": train.every, "patience": train.patience}
        for name in [name for name, given in needing.items() if given and not validation]:
            help = f"`{name}` needs validation data"
            place = train.place(name)
            self.problems.append(AC606.at(place, section="train", name="validation", help=help))
        return replace(train, data=data, validation=validation, keep=keep)

    def _fill(self, ref: Any, place: Span | None, *splits: str) -> Any:
        """The reference with its split, or as it is after a problem."""
        if ref is None:
            return None
        data = self.spec.data
        if ref.name not in data:
            self._unknown(ref.name, data, place)
            return ref
        if data[ref.name].repo is not None:
            return self._of_data_set(ref, place, splits)
        files = data[ref.name].files or {}
        split = ref.split or next((one for one in splits if one in files), splits[0])
        if split not in files:
            if files:
                self._unknown(f"{ref.name}/{split}", [f"{ref.name}/{one}" for one in files], place)
            return ref
        config = ref.config or data[ref.name].config
        templated = any("{config}" in path for path in files[split])
        why = None
        if templated and not config:
            why = f"its files have {{config}}: write {ref.name}[config], or set config"
        if ref.config and not templated:
            why = f"the files of `{ref.name}` have no {{config}}"
        if why:
            self.problems.append(AC610.at(place, name=str(ref), help=why))
            return ref
        filled = replace(ref, split=split, config=config if templated else None)
        self._check_files(filled)
        return filled

    def _of_data_set(self, ref: DataRef, place: Span | None, splits: tuple[str, ...]) -> DataRef:
        """The reference to a split of a data set; as it is until the hub was asked."""
        section = self.spec.data[ref.name]
        if section.held is None:
            return ref
        layout, wanted = section.held.layout, ref.config or section.config
        if layout.config(wanted) is None:
            name = f"{ref.name}[{wanted}]" if wanted else ref.name
            self._unknown(name, [f"{ref.name}[{one}]" for one in layout.configs], place)
            return ref
        parts = section.parts(wanted)
        split = ref.split or next((one for one in splits if one in parts), splits[0])
        if split not in parts and split not in section.splits:
            self._unknown(f"{ref.name}/{split}", [f"{ref.name}/{one}" for one in parts], place)
        elif split not in parts:
            known = list(section.held.splits(wanted))
            self._unknown(section.splits[split], known, section.place(f"splits.{split}"))
        return replace(ref, split=split, config=wanted)

    def _declared(self) -> None:
        """Files that no reference needs yet must exist as well, and so must splits."""
        for name, section in self.spec.data.items():
            if section.held is not None:
                every = section.held.layout.configs.values()
                known = list(dict.fromkeys(split for splits in every for split in splits))
                for split, theirs in section.splits.items():
                    if theirs not in known:
                        self._unknown(theirs, known, section.place(f"splits.{split}"))
            for split, paths in (section.files or {}).items():
                if section.config or not any("{config}" in path for path in paths):
                    self._check_files(DataRef(name, section.config, split))

    def _check_files(self, ref: DataRef) -> None:
        assert ref.split is not None
        section = self.spec.data[ref.name]
        for written, path in zip(section.files[ref.split], self.spec.files(ref), strict=True):
            if not path.is_file():
                place = section.place(f"files.{ref.split}")
                shown = written.replace("{config}", ref.config or "")
                self.problems.append(AC607.at(place, path=shown, root=str(self.spec.root)))

    def _unknown(self, name: str, known: Iterable[str], place: Span | None) -> None:
        known = list(known)
        near = suggest(name, known)
        listed = ", ".join(known) or "none; add data:"
        self.problems.append(AC610.at(place, name=name, known=listed, help=near))


def _check(spec: Spec) -> Iterator[Diagnostic]:
    yield from _check_task(spec)
    yield from _check_metrics(spec)
    yield from _check_names(spec)
    yield from _check_report(spec)
    for name, section in spec.data.items():
        yield from _check_data(name, section)
    train = spec.train
    if train and len(set(train.seeds)) < len(train.seeds):
        place = train.place("seeds")
        yield AC605.at(place, name="train.seeds", expected="distinct", got="equal ones")
    if train and train.update == ():
        yield AC605.at(train.place("update"), name="train.update", expected="names", got="none")


def _check_task(spec: Spec) -> Iterator[Diagnostic]:
    task = spec.task
    if task is None:
        for name in ("train", "evaluate", "predict"):
            if getattr(spec, name):
                place = spec.place(name)
                help = f"`{name}` needs it: add task: with kind:"
                yield AC606.at(place and place.first_line(), section="spec", name="task", help=help)
        return
    if task.kind in KINDS and not KINDS[task.kind].supported:
        known = ", ".join(supported_kinds())
        yield AC604.at(task.place("kind"), name=f"task.kind: {task.kind}", known=known)
    labels = spec.labels()
    seen: set[str] = set()
    for index, label in enumerate(labels or ()):
        if label in seen:
            yield AC602.at(task.place(f"labels[{index}]"), name=label)
        seen.add(label)
    if labels and task.kind == "masked-lm":
        yield AC605.at(task.place("labels"), name="task.labels", expected="left out", got="labels")
    if labels and len(labels) < 2 and task.kind == "text-classification":
        expected = "a list of at least 2 labels"
        yield AC605.at(task.place("labels"), name="task.labels", expected=expected, got="1")


def _check_metrics(spec: Spec) -> Iterator[Diagnostic]:
    task = spec.task
    if task is None or task.kind not in KINDS or not KINDS[task.kind].supported:
        return
    known = KINDS[task.kind].metrics
    named = [(task.metric, "task.metric", task.place("metric"))] if task.metric else []
    for item in spec.evaluate:
        for index, name in enumerate(item.metrics or ()):
            named.append((name, "evaluate.metrics", item.place(f"metrics[{index}]")))
    for name, key, place in named:
        if name not in known:
            expected = f"a metric of {task.kind}: {', '.join(known)}"
            yield AC605.at(place, name=key, expected=expected, got=name, help=suggest(name, known))


def _check_names(spec: Spec) -> Iterator[Diagnostic]:
    for name in spec.adapters:
        if name in RESERVED or not name.replace("-", "_").isidentifier():
            yield AC605.at(
                spec.key_place("adapters", name),
                name=f"adapters.{name}",
                expected="named by a word of letters, digits, `_` and `-` that is not reserved",
                got=name,
            )
    for what, items in (("evaluate", spec.evaluate), ("predict", spec.predict)):
        seen: dict[str, list[dict[str, str]]] = {}
        for item in items:
            variables = item.variables if isinstance(item, EvaluateSection) else {}
            others = seen.setdefault(item.name, [])
            # Items that differ in a variable of `each` are replicates, pooled in the report.
            if item.name and any(one == variables or not one for one in others):
                help = f"give this item of {what} another name"
                yield AC202.at(item.place("name"), name=item.name, help=help)
            others.append(variables)


def _check_report(spec: Spec) -> Iterator[Diagnostic]:
    baseline = spec.report.baseline if spec.report else None
    known = list(dict.fromkeys(item.name for item in spec.evaluate if item.name))
    if spec.report and baseline is not None and baseline not in known:
        expected = f"a row of evaluate: {', '.join(known) or 'there are none'}"
        place, near = spec.report.place("baseline"), suggest(baseline, known)
        values = {"name": "report.baseline", "expected": expected, "got": baseline}
        yield AC605.at(place, **values, help=near)


def _check_columns(name: str, section: DataSection) -> Iterator[Diagnostic]:
    for role, columns in section.columns.items():
        place, key = section.place(f"columns.{role}"), f"data.{name}.columns"
        if role not in ROLES:
            values = {"section": key, "name": role, "known": ", ".join(ROLES)}
            at = section.key_place("columns", role)
            yield AC601.at(at, **values, help=suggest(role, ROLES))
        elif len(columns) > ROLES[role]:
            expected = "one column" if ROLES[role] == 1 else "one column or two"
            yield AC605.at(place, name=f"{key}.{role}", expected=expected, got=len(columns))


def _check_data(name: str, section: DataSection) -> Iterator[Diagnostic]:
    yield from _check_columns(name, section)
    yield from _check_repo(name, section)
    for split, paths in (section.files or {}).items():
        place = section.place(f"files.{split}")
        if packed := next((path for path in paths if path.lower().endswith(_PACKED)), None):
            expected = "files that are not packed, or by gzip"
            yield AC605.at(place, name=f"data.{name}.files", expected=expected, got=packed)
        elif unclear := next((path for path in paths if section.format_of(path) is None), None):
            help = f"`{unclear}` does not say: add format: {', '.join(FORMATS)}"
            yield AC606.at(place, section=f"data.{name}", name="format", help=help)
    for key, splits in (("files", section.files), ("splits", section.splits)):
        for split in [one for one in splits or {} if one not in SPLITS]:
            values = {"section": f"data.{name}.{key}", "name": split, "known": ", ".join(SPLITS)}
            yield AC601.at(section.key_place(key, split), **values, help=suggest(split, SPLITS))


def _check_repo(name: str, section: DataSection) -> Iterator[Diagnostic]:
    if section.repo is None:
        if section.splits:
            help = "it names the splits of a data set of the hub"
            place = section.place("splits")
            yield AC606.at(place, section=f"data.{name}", name="repo", help=help)
        return
    try:
        data_ref(section.repo, section.place("repo"))
    except Failed as failed:
        yield from failed.diagnostics
