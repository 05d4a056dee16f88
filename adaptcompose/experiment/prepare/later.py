"""What is told of a spec beside its expressions: where it stands, and what is not done yet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Diagnostic
from adaptcompose.experiment.spec.sections import Spec


def move_to_hub_key(spec: Spec, found: Diagnostic) -> Diagnostic:
    """What is wrong with the hub stands at `hub`, whatever was looked for in it."""
    missing = found.code == codes.AC412.id and f"`{spec.hub}`" in found.message
    return replace(found, span=spec.span_of("hub")) if missing else found


def serve_notes(spec: Spec) -> Iterator[Diagnostic]:
    """A note: `serve` is checked and locked like everything else."""
    if spec.serve is not None:
        help = "remove it, or keep it for a later version: it is checked and locked"
        place = spec.span_of("serve")
        found = codes.AC604.at(place and place.first_line(), name="serve", known="", help=help)
        yield replace(found, severity="note")
