"""A spec out of a published composition: what its manifest says, to start from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from adaptcompose.diagnostics.codes import AC420, AC426
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.experiment.spec.starter import StarterAnswers
from adaptcompose.resolution.manifest import FILE, Manifest
from adaptcompose.resolution.sources import Sources
from adaptcompose.syntax.references import parse_ref


def answers_from_published(reference: str, given: StarterAnswers) -> StarterAnswers:
    """The answers that a published composition has for a new spec; those given count before."""
    ref, sources = parse_ref(reference, ()), Sources(given.hub or "hf", Path())
    if ref.kind not in ("hub", "local"):
        raise Failed(AC420.at(name=reference))
    pin = sources.pin(ref)
    if FILE not in pin.files:
        raise Failed(AC426.at(name=reference))
    manifest = Manifest.load(sources.fetch(ref, pin, [FILE]), reference)
    said, head = manifest.backbone, manifest.heads().get("", "")
    kind = str(manifest.task.get("kind", "")) if head != "none" else ""
    return replace(
        given,
        backbone=given.backbone or said.get("model", "") or said.get("as", ""),
        known_as=said.get("as") if given.backbone or "model" in said else None,
        compose=given.compose or str(ref),
        kind=given.kind or kind or None,
        head="of-backbone" if head == "backbone" else None,
        description=manifest.description,
        replaced_backbone=manifest.expression,
    )
