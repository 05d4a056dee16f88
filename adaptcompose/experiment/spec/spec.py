"""Read spec.yaml into `Spec` values, strictly, and report all problems together.

>>> try:
...     parse_specs(Source("spec: 1\\nname: demo", "spec.yaml"), Path())
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
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed, Source, deduplicate, suggest
from adaptcompose.experiment.spec.each import expand_rows, expand_sweep
from adaptcompose.experiment.spec.overrides import apply_overrides
from adaptcompose.experiment.spec.section_reader import KeyDoc, SectionReader, describe_keys
from adaptcompose.experiment.spec.sections import (
    MAX_COLUMNS_BY_ROLE,
    SPLITS,
    DataSection,
    EvaluateSection,
    Spec,
)
from adaptcompose.experiment.spec.splits import resolve_splits
from adaptcompose.resolution.dataset_splits import FORMATS
from adaptcompose.resolution.datasets import parse_dataset_ref
from adaptcompose.storage.yaml_source import YamlNode, parse_yaml, read_source
from adaptcompose.tasks.metrics import TASK_KINDS, supported_kinds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

RESERVED = {"none", "true", "false", "let"}
_ARCHIVE_SUFFIXES = (".zip", ".bz2", ".xz", ".zst", ".7z", ".tar", ".tar.gz", ".tgz")


def read_specs(path: Path, overrides: Sequence[str] = ()) -> tuple[Spec, ...]:
    """The specs in a file: one, or one per combination of a sweep.

    `overrides` are assignments such as `train.lr=5e-5`, which replace values of the file.
    Raises one Failed with all problems.
    """
    return parse_specs(_read_spec_source(path), path.parent, overrides)


def parse_specs(source: Source, root: Path, overrides: Sequence[str] = ()) -> tuple[Spec, ...]:
    """The specs in a text, as `read_specs` reads them from a file. Paths are relative to `root`."""
    specs, problems = _parse_drafts(source, root, overrides)
    if problems:
        raise Failed(problems)
    return specs


def read_drafts(
    path: Path, overrides: Sequence[str] = ()
) -> tuple[tuple[Spec, ...], list[Diagnostic]]:
    """The specs in a file and their problems, for a check that goes on after a problem.

    A value with a problem is replaced by its default, or by None if the key has no default.
    """
    return _parse_drafts(_read_spec_source(path), path.parent, overrides)


def _read_spec_source(path: Path) -> Source:
    if not path.is_file():
        raise Failed(AC607.at(path=str(path), root=str(Path.cwd())))
    return read_source(path)


def _parse_drafts(
    source: Source, root: Path, overrides: Sequence[str]
) -> tuple[tuple[Spec, ...], list[Diagnostic]]:
    reader = SectionReader()
    documents = expand_sweep(apply_overrides(parse_yaml(source), overrides), reader)
    problems = list(reader.problems)
    specs = []
    for document in documents:
        spec, more = _parse_document(document, root)
        specs.append(replace(spec, overrides=tuple(overrides)))
        problems += more
    return tuple(specs), deduplicate(problems)


def _parse_document(document: YamlNode, root: Path) -> tuple[Spec, list[Diagnostic]]:
    reader = SectionReader()
    spec = replace(reader.read_section(Spec, expand_rows(document, reader), ""), root=root)
    spec, split_problems = resolve_splits(spec)
    return spec, [*reader.problems, *split_problems, *_check(spec)]


def spec_keys() -> Iterator[KeyDoc]:
    """Every key of spec.yaml: path, type in words, default, help."""
    return describe_keys(Spec)


def _check(spec: Spec) -> Iterator[Diagnostic]:
    yield from _check_task(spec)
    yield from _check_metrics(spec)
    yield from _check_names(spec)
    yield from _check_report(spec)
    for name, section in spec.data.items():
        yield from _check_data(name, section)
    train = spec.train
    if train and len(set(train.seeds)) < len(train.seeds):
        span = train.span_of("seeds")
        expected, got = "a list of different numbers", "a list with repeated numbers"
        yield AC605.at(span, name="train.seeds", expected=expected, got=got)
    if train and train.update == ():
        expected, span = "a list of at least one name", train.span_of("update")
        yield AC605.at(span, name="train.update", expected=expected, got="an empty list")


def _check_task(spec: Spec) -> Iterator[Diagnostic]:
    task = spec.task
    if task is None:
        for name in ("train", "evaluate", "predict"):
            if getattr(spec, name):
                span = spec.span_of(name)
                help = f"add `task: {{kind: …}}`, which `{name}` needs"
                yield AC606.at(span and span.first_line(), section="spec", name="task", help=help)
        return
    if task.kind in TASK_KINDS and not TASK_KINDS[task.kind].is_supported:
        known = ", ".join(supported_kinds())
        yield AC604.at(task.span_of("kind"), name=f"task.kind: {task.kind}", known=known)
    labels = spec.declared_labels()
    seen: set[str] = set()
    for index, label in enumerate(labels or ()):
        if label in seen:
            yield AC602.at(task.span_of(f"labels[{index}]"), name=label)
        seen.add(label)
    if labels and task.kind == "masked-lm":
        expected = "left out for masked-lm"
        yield AC605.at(task.span_of("labels"), name="task.labels", expected=expected, got="given")
    if labels and len(labels) < 2 and task.kind == "text-classification":
        expected = "a list of at least two labels"
        yield AC605.at(
            task.span_of("labels"), name="task.labels", expected=expected, got="a list of one"
        )


def _check_metrics(spec: Spec) -> Iterator[Diagnostic]:
    task = spec.task
    if task is None or task.kind not in TASK_KINDS or not TASK_KINDS[task.kind].is_supported:
        return
    known = TASK_KINDS[task.kind].metrics
    named = [(task.metric, "task.metric", task.span_of("metric"))] if task.metric else []
    for item in spec.evaluate:
        for index, name in enumerate(item.metrics or ()):
            named.append((name, "evaluate.metrics", item.span_of(f"metrics[{index}]")))
    for name, key, span in named:
        if name not in known:
            expected, near = f"one of {', '.join(known)}", suggest(name, known)
            yield AC605.at(span, name=key, expected=expected, got=f"`{name}`", help=near)


def _check_names(spec: Spec) -> Iterator[Diagnostic]:
    for name in spec.adapters:
        if name in RESERVED or not name.replace("-", "_").isidentifier():
            yield AC605.at(
                spec.key_span_of("adapters", name),
                name=f"adapters.{name}",
                expected="named by letters, digits, `_` and `-`, and not by a reserved word",
                got=f"named `{name}`",
            )
    for what, items in (("evaluate", spec.evaluate), ("predict", spec.predict)):
        seen: dict[str, list[dict[str, str]]] = {}
        for item in items:
            variables = item.variables if isinstance(item, EvaluateSection) else {}
            others = seen.setdefault(item.name, [])
            # Items that differ in a variable of `each` are replicates, pooled in the report.
            if item.name and any(one == variables or not one for one in others):
                help = f"give this item of {what} another name"
                yield AC202.at(item.span_of("name"), name=item.name, help=help)
            others.append(variables)


def _check_report(spec: Spec) -> Iterator[Diagnostic]:
    baseline = spec.report.baseline if spec.report else None
    known = list(dict.fromkeys(item.name for item in spec.evaluate if item.name))
    if spec.report and baseline is not None and baseline not in known:
        expected = f"the name of a row of evaluate ({', '.join(known) or 'there are none'})"
        span, near = spec.report.span_of("baseline"), suggest(baseline, known)
        values = {"name": "report.baseline", "expected": expected, "got": f"`{baseline}`"}
        yield AC605.at(span, **values, help=near)


def _check_columns(name: str, section: DataSection) -> Iterator[Diagnostic]:
    for role, columns in section.columns.items():
        span, key = section.span_of(f"columns.{role}"), f"data.{name}.columns"
        if role not in MAX_COLUMNS_BY_ROLE:
            values = {"section": key, "name": role, "known": ", ".join(MAX_COLUMNS_BY_ROLE)}
            at = section.key_span_of("columns", role)
            yield AC601.at(at, **values, help=suggest(role, MAX_COLUMNS_BY_ROLE))
        elif len(columns) > MAX_COLUMNS_BY_ROLE[role]:
            expected = "one column" if MAX_COLUMNS_BY_ROLE[role] == 1 else "one column or two"
            yield AC605.at(
                span, name=f"{key}.{role}", expected=expected, got=f"a list of {len(columns)}"
            )


def _check_data(name: str, section: DataSection) -> Iterator[Diagnostic]:
    yield from _check_columns(name, section)
    yield from _check_repo(name, section)
    for split, paths in (section.files or {}).items():
        span = section.span_of(f"files.{split}")
        if packed := next(
            (path for path in paths if path.lower().endswith(_ARCHIVE_SUFFIXES)), None
        ):
            expected = "plain files, or files compressed by gzip"
            yield AC605.at(span, name=f"data.{name}.files", expected=expected, got=f"`{packed}`")
        elif unclear := next((path for path in paths if section.format_of(path) is None), None):
            help = f"add `format:` for `{unclear}`: one of {', '.join(FORMATS)}"
            yield AC606.at(span, section=f"data.{name}", name="format", help=help)
    for key, splits in (("files", section.files), ("splits", section.splits)):
        for split in [one for one in splits or {} if one not in SPLITS]:
            values = {"section": f"data.{name}.{key}", "name": split, "known": ", ".join(SPLITS)}
            yield AC601.at(section.key_span_of(key, split), **values, help=suggest(split, SPLITS))


def _check_repo(name: str, section: DataSection) -> Iterator[Diagnostic]:
    if section.repo is None:
        if section.splits:
            help = "add `repo:` with the data set that has these splits"
            span = section.span_of("splits")
            yield AC606.at(span, section=f"data.{name}", name="repo", help=help)
        return
    try:
        parse_dataset_ref(section.repo, section.span_of("repo"))
    except Failed as failed:
        yield from failed.diagnostics
