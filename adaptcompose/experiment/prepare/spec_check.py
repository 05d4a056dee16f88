"""`adaptcompose check`: everything that is wrong with a spec, its keys and expressions together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed, once
from adaptcompose.experiment.prepare.prepared_run import Prepared
from adaptcompose.experiment.prepare.preparer import Preparation, with_one_lock
from adaptcompose.experiment.prepare.spec_lock import digest, lock_path
from adaptcompose.experiment.spec.each import of_variable
from adaptcompose.experiment.spec.sections import Spec
from adaptcompose.experiment.spec.spec import drafts
from adaptcompose.hub.lock import Lock


def read_whole(path: Path, overrides: Sequence[str] = ()) -> tuple[Spec, ...]:
    """The specs of a file, or Failed with what is wrong with their keys and their expressions."""
    specs, problems = drafts(path, overrides)
    if not problems:
        return specs
    problems += [found for spec in specs for found in Preparation(spec, path, None).by_text()]
    told = [found for found in once(problems) if not of_variable(found)]
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
    whole: list[Prepared] = []
    try:
        old, code = Lock.open(lock_path(path)), digest(specs)
        for spec in specs:
            preparation = Preparation(spec, path, old if old and old.spec == code else None)
            try:
                checked = preparation.expressions(ask=False)
                if preparation.at_hand(checked):
                    whole.append(preparation.whole(checked))
            except Failed as failed:
                found += failed.diagnostics
            found += preparation.notes
        if len(whole) == len(specs):
            for one in with_one_lock(whole, path, code, old):
                found += one.read()
    except Failed as failed:
        found += failed.diagnostics
    return sorted(once(found), key=Diagnostic.position)
