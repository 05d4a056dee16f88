"""spec.yaml as a value: read strictly, with every problem told at once.

>>> try:
...     parse_spec(Source("spec: 1\\nname: demo", "spec.yaml"), Path())
... except Failed as failed:
...     print(*[problem.message for problem in failed.diagnostics], sep="\\n")
`spec.yaml` needs the key `backbone`
`spec.yaml` needs the key `compose`
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from adaptcompose.diagnostics.codes import AC202, AC601, AC602, AC604, AC605, AC606, AC607
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed, Source, once, suggest
from adaptcompose.experiment.spec.each import expand, sweep
from adaptcompose.experiment.spec.overrides import override
from adaptcompose.experiment.spec.section_reader import Key, Reading, describe
from adaptcompose.experiment.spec.sections import ROLES, SPLITS, DataSection, EvaluateSection, Spec
from adaptcompose.experiment.spec.splits import resolved
from adaptcompose.resolution.dataset_splits import FORMATS
from adaptcompose.resolution.datasets import data_ref
from adaptcompose.storage.yaml_source import Value, open_source, read
from adaptcompose.tasks.metrics import KINDS, supported_kinds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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


def keys() -> Iterator[Key]:
    """Every key of spec.yaml: path, type in words, default, help."""
    return describe(Spec)


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
