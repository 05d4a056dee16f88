"""`adaptcompose check`: everything that is wrong with a spec, its keys and expressions together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed, deduplicate
from adaptcompose.experiment.prepare.prepared_run import PreparedRun
from adaptcompose.experiment.prepare.preparer import Preparer, with_shared_lock
from adaptcompose.experiment.prepare.spec_lock import lock_path, spec_digest
from adaptcompose.experiment.spec.each import mentions_placeholder
from adaptcompose.experiment.spec.sections import Spec
from adaptcompose.experiment.spec.spec import read_drafts
from adaptcompose.hub.lock import Lock


def read_checked_specs(path: Path, overrides: Sequence[str] = ()) -> tuple[Spec, ...]:
    """The specs of a file, or Failed with what is wrong with their keys and their expressions."""
    specs, problems = read_drafts(path, overrides)
    if not problems:
        return specs
    problems += [found for spec in specs for found in Preparer(spec, path, None).check_text()]
    told = [found for found in deduplicate(problems) if not mentions_placeholder(found)]
    raise Failed(sorted(told, key=Diagnostic.position))


def check_spec(spec: Spec, path: Path) -> list[Diagnostic]:
    """Everything that is wrong with a spec, and what there is to say about it, sorted by place."""
    return check_specs((spec,), path)


def check_specs(specs: Sequence[Spec], path: Path) -> list[Diagnostic]:
    """Everything there is to say about the specs of a file.

    A check never waits for the network: where an adapter or the backbone is on a hub that is not
    a folder, names and structure count, and what only their files can tell is left to `plan`.
    """
    found: list[Diagnostic] = []
    whole: list[PreparedRun] = []
    try:
        old, code = Lock.load(lock_path(path)), spec_digest(specs)
        for spec in specs:
            preparation = Preparer(spec, path, old if old and old.spec == code else None)
            try:
                checked = preparation.check_expressions(ask=False)
                if preparation.has_local_files(checked):
                    whole.append(preparation.prepare(checked))
            except Failed as failed:
                found += failed.diagnostics
            found += preparation.notes
        if len(whole) == len(specs):
            for one in with_shared_lock(whole, path, code, old):
                found += one.read_inputs()
    except Failed as failed:
        found += failed.diagnostics
    return sorted(deduplicate(found), key=Diagnostic.position)
