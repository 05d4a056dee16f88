"""Find the data sets and the tokenizer that a spec names, and read examples."""

from __future__ import annotations

from dataclasses import replace

from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed
from adaptcompose.experiment.data.examples import Examples, read_example_files
from adaptcompose.experiment.data.tasks import roles_of
from adaptcompose.experiment.prepare.spec_lock import find_data_pin
from adaptcompose.experiment.spec.sections import BackboneSection, Spec
from adaptcompose.experiment.spec.splits import resolve_splits
from adaptcompose.experiment.spec.value_types import DataRef
from adaptcompose.hub.lock import Lock
from adaptcompose.resolution.backbone import Backbone
from adaptcompose.resolution.datasets import find_dataset, parse_dataset_ref
from adaptcompose.resolution.sources import Sources
from adaptcompose.resolution.tokenizer import find_tokenizer
from adaptcompose.syntax.references import parse_repository_ref


def locate_data_sets(
    spec: Spec, sources: Sources, pins: Lock | None
) -> tuple[Spec, list[Diagnostic]]:
    """Find the data sets of a spec and the splits that references leave out.

    Returns the completed spec and the problems. A data set stays unresolved if `sources` may not
    query its hub.
    """
    sections, problems = dict(spec.data), list[Diagnostic]()
    for name, section in spec.data.items():
        if section.repo is None:
            continue
        try:
            span = section.span_of("repo")
            if sources.may_read(parse_dataset_ref(section.repo, span)):
                pin = find_data_pin(name, pins)
                dataset = find_dataset(section.repo, sources, pin=pin, span=span)
                sections[name] = replace(section, dataset=dataset)
        except Failed as failed:
            problems += failed.diagnostics
    if not any(section.dataset for section in sections.values()):
        return spec, problems
    resolved, split_problems = resolve_splits(replace(spec, data=sections))
    return resolved, problems + split_problems


def with_tokenizer(
    backbone: Backbone, section: BackboneSection, sources: Sources, pins: Lock | None
) -> Backbone:
    """The backbone with the tokenizer that `backbone.tokenizer` names, at its pinned revision.

    Unchanged if there is no such key, or if `sources` may not query the hub of the tokenizer.
    """
    text, span = section.tokenizer, section.span_of("tokenizer")
    if text is None or not sources.may_read(parse_repository_ref(text, span)):
        return backbone
    pin = pins.tokenizer if pins else None
    return replace(backbone, tokenizer=find_tokenizer(text, sources, pin=pin, span=span))


def read_split(spec: Spec, ref: DataRef, *, labelled: bool = True) -> Examples:
    """Read the examples of a split. Unless `labelled`, labels may be missing."""
    assert spec.task is not None
    inputs, outputs = roles_of(spec.task.kind)
    required, optional = ((*inputs, *outputs), ()) if labelled else (inputs, outputs)
    section = spec.data[ref.name]
    classes = section.dataset.classes(ref.config) if section.dataset else {}
    return read_example_files(
        spec.split_files(ref), section, required, optional, name=ref.name, classes=classes
    )
