"""`adaptcompose plan`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adaptcompose.cli.app import Base, Form, Hub, KnownAs, Set, Target, app, is_spec
from adaptcompose.cli.inputs import CHANGES, checked_expression, hint, prepared_specs, say
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed, errors

if TYPE_CHECKING:
    from adaptcompose.compiler.plan import Plan
    from adaptcompose.compiler.plan_diff import Change
    from adaptcompose.ir.program import Program


@app.command()
def plan(
    target: Target,
    backbone: Base = None,
    known_as: KnownAs = None,
    hub: Hub = None,
    form: Form = "text",
    program: Annotated[bool, typer.Option(help="print the program after each pass")] = False,
    overrides: Set = None,
    detailed: Annotated[
        bool, typer.Option("--detailed-exitcode", help="5 if it differs from the last run's")
    ] = False,
) -> None:
    """Show what would be loaded, created and trained; no weights are read."""
    if is_spec(target, backbone, hub, overrides, known_as):
        _plan_spec(target, overrides, form, program=program, detailed=detailed)
        hint("run", target)
    elif backbone is None:
        raise typer.BadParameter("a plan needs a backbone", param_hint="--backbone")
    elif detailed:
        raise typer.BadParameter("only a spec has a last run", param_hint="--detailed-exitcode")
    else:
        found, notes = _plan(target, backbone, hub, known_as)
        if form == "json":
            print(json.dumps(found.as_dict(), indent=2, ensure_ascii=False))
        else:
            say(notes)
            _print(found, program=program)


def _plan_spec(
    target: str, overrides: list[str] | None, form: str, *, program: bool, detailed: bool
) -> None:
    """One plan, or one for each combination of a sweep."""
    from adaptcompose.compiler.plan_diff import changes
    from adaptcompose.experiment.run.previous_run import last_plan, run_folders

    specs = prepared_specs(target, overrides)
    plans = dict(zip(run_folders(specs), (one.plan() for one in specs), strict=True))
    plain = {folder: found.as_dict() for folder, found in plans.items()}
    since = {folder: changes(last_plan(folder), plain[folder]) for folder in plans}
    if form == "json":
        for folder, record in plain.items():
            record["changes"] = [vars(one) for one in since[folder]]
        whole = {folder.name: found for folder, found in plain.items()}
        document = {"combinations": whole} if specs[0].spec.each else next(iter(plain.values()))
        print(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        say(note for one in specs for note in one.notes)
        alike: dict[tuple[str, str], list[Path]] = {}
        for folder, found in plans.items():
            alike.setdefault((str(found), _since(folder, since[folder])), []).append(folder)
        for number, ((_, news), folders) in enumerate(alike.items()):
            if specs[0].spec.each:
                print("\n" * bool(number) + "\n".join(folder.name for folder in folders) + "\n")
            _print(plans[folders[0]], program=program)
            print(news, end="")
    if detailed and any(since.values()):
        raise typer.Exit(CHANGES)


def _since(folder: Path, found: Sequence[Change]) -> str:
    """What changed since the last run, if there was one."""
    from adaptcompose.experiment.run.previous_run import last_plan

    if last_plan(folder) is None:
        return ""
    lines = [f"  {one}" for one in found] or ["  nothing changed"]
    return "\n".join(["", "since the last run", *lines, ""])


def _print(found: Plan, *, program: bool) -> None:
    print(found)
    if program:
        _print_program(found.program)


def _plan(
    target: str, backbone: str, hub: str | None, known_as: str | None
) -> tuple[Plan, list[Diagnostic]]:
    from adaptcompose.compiler.planning import make_plan
    from adaptcompose.composition.heads import head_of
    from adaptcompose.composition.operators import parts_of
    from adaptcompose.composition.structure import verify
    from adaptcompose.resolution.resolve import resolve
    from adaptcompose.resolution.sources import Sources

    checked, base, root = checked_expression(target, backbone, hub, known_as)
    graph, facts = checked.raise_errors(), base.backbone
    assert facts is not None
    sources = Sources(hub or "hf", root)
    resolved = resolve(graph, facts, sources)
    if problems := errors(verify(resolved.graph, facts)):
        raise Failed(problems)
    head, notes = head_of(resolved.graph), [*checked.diagnostics, *resolved.notes]
    parts = parts_of(resolved.graph).values()
    near = {part.name for part in parts if sources.near(part.ref, part.pin)}
    found = make_plan(resolved.graph, facts, head=head, expression=str(checked.tree), cached=near)
    return found, notes


def _print_program(program: Program) -> None:
    from adaptcompose.compiler.passes import stages

    before = None
    for name, after, log in stages(program):
        print(f"\n{name}: {after.multiplications():,} multiplications a token")
        print("  unchanged" if after == before else after)
        for reason in log.reasons():
            print(f"  left alone: {reason}")
        before = after
