"""Check specs: the keys, then the expressions, then whatever the files on this machine tell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed, deduplicate
from adaptcompose.experiment.prepare.preparer import Preparer, try_prepare_runs
from adaptcompose.experiment.spec.each import mentions_placeholder
from adaptcompose.experiment.spec.sections import Spec
from adaptcompose.experiment.spec.spec import read_drafts


def read_checked_specs(path: Path, overrides: Sequence[str] = ()) -> tuple[Spec, ...]:
    """The specs in a file. If a key is wrong, the Failed also has the problems of expressions."""
    specs, problems = read_drafts(path, overrides)
    if not problems:
        return specs
    problems += [one for spec in specs for one in Preparer(spec, path, None).check_text()]
    shown = [one for one in deduplicate(problems) if not mentions_placeholder(one)]
    raise Failed(sorted(shown, key=Diagnostic.position))


def check_specs(specs: Sequence[Spec], path: Path) -> list[Diagnostic]:
    """All problems and notes of the specs in a file, sorted by position.

    A check never waits for the network. If an adapter or the backbone is on a remote hub, only
    names and structure are checked; `plan` checks what needs their files.
    """
    try:
        runs, problems, notes = try_prepare_runs(specs, path, may_query=False)
    except Failed as failed:
        return sorted(deduplicate(failed.diagnostics), key=Diagnostic.position)
    diagnostics = [*problems, *notes]
    if len(runs) == len(specs) and not problems:
        try:
            for run in runs:
                diagnostics += run.read_inputs()
        except Failed as failed:
            diagnostics += failed.diagnostics
    return sorted(deduplicate(diagnostics), key=Diagnostic.position)
