"""What a spec names beside its expressions, where it lies: data sets, and another tokenizer."""

from __future__ import annotations

from dataclasses import replace

from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed
from adaptcompose.experiment.data.examples import Examples, open_data
from adaptcompose.experiment.data.tasks import roles_of
from adaptcompose.experiment.prepare.spec_lock import data_pin
from adaptcompose.experiment.spec.sections import BackboneSection, Spec
from adaptcompose.experiment.spec.splits import resolved
from adaptcompose.experiment.spec.value_types import DataRef
from adaptcompose.hub.lock import Lock
from adaptcompose.resolution.backbone import Backbone
from adaptcompose.resolution.datasets import data_ref, find_data
from adaptcompose.resolution.sources import Sources
from adaptcompose.resolution.tokenizer import find_tokenizer
from adaptcompose.syntax.references import repository_ref


def located(spec: Spec, sources: Sources, pins: Lock | None) -> tuple[Spec, list[Diagnostic]]:
    """The spec with its data sets found and the splits of references filled in; what is wrong.

    A data set that may not be asked for, because it is on another machine, stays open.
    """
    found, problems = dict(spec.data), list[Diagnostic]()
    for name, section in spec.data.items():
        if section.repo is None:
            continue
        try:
            if sources.reads(data_ref(section.repo, section.place("repo"))):
                pin, place = data_pin(name, pins), section.place("repo")
                held = find_data(section.repo, sources, pin=pin, span=place)
                found[name] = replace(section, held=held)
        except Failed as failed:
            problems += failed.diagnostics
    if not any(section.held for section in found.values()):
        return spec, problems
    whole, more = resolved(replace(spec, data=found))
    return whole, problems + more


def with_tokenizer(
    backbone: Backbone, section: BackboneSection, sources: Sources, pins: Lock | None
) -> Backbone:
    """The backbone with the tokenizer that its section names, unless that is not to be asked for.

    A pinned one keeps its revision.
    """
    text, place = section.tokenizer, section.place("tokenizer")
    if text is None or not sources.reads(repository_ref(text, place)):
        return backbone
    pin = pins.tokenizer if pins else None
    return replace(backbone, tokenizer=find_tokenizer(text, sources, pin=pin, span=place))


def read(spec: Spec, ref: DataRef, *, labelled: bool = True) -> Examples:
    """The examples of a split; labels are optional where nothing is scored."""
    assert spec.task is not None
    inputs, outputs = roles_of(spec.task.kind)
    wanted, optional = ((*inputs, *outputs), ()) if labelled else (inputs, outputs)
    return open_data(spec, ref, wanted, optional)
