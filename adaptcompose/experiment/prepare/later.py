"""What is told of a spec beside its expressions: where it stands, and what is not done yet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Diagnostic
from adaptcompose.experiment.spec.sections import Spec


def at_hub(spec: Spec, found: Diagnostic) -> Diagnostic:
    """What is wrong with the hub stands at `hub`, whatever was looked for in it."""
    missing = found.code == codes.AC412.id and found.message.endswith(f"`{spec.hub}`")
    return replace(found, span=spec.place("hub")) if missing else found


def served_later(spec: Spec) -> Iterator[Diagnostic]:
    """A note: `serve` is checked and locked like everything else."""
    if spec.serve is not None:
        help = "it is checked and locked; requests are not answered yet"
        place = spec.place("serve")
        found = codes.AC604.at(place and place.first_line(), name="serve", known="", help=help)
        yield replace(found, severity="note")
