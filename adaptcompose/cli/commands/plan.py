"""`adaptcompose plan`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adaptcompose.cli.app import (
    BackboneOption,
    FormatOption,
    HubOption,
    KnownAsOption,
    OverridesOption,
    TargetArgument,
    app,
    is_spec_target,
)
from adaptcompose.cli.inputs import (
    EXIT_CHANGES,
    check_expression,
    prepare_target,
    print_next_command,
    print_notes,
)
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed, select_errors

if TYPE_CHECKING:
    from adaptcompose.compiler.plan import Plan
    from adaptcompose.compiler.plan_diff import PlanChange
    from adaptcompose.ir.program import Program


@app.command()
def plan(
    target: TargetArgument,
    backbone: BackboneOption = None,
    known_as: KnownAsOption = None,
    hub: HubOption = None,
    form: FormatOption = "text",
    program: Annotated[bool, typer.Option(help="Print the program after each pass.")] = False,
    overrides: OverridesOption = None,
    detailed: Annotated[
        bool,
        typer.Option(
            "--detailed-exitcode", help="Exit with 5 if the plan differs from that of the last run."
        ),
    ] = False,
) -> None:
    """Show what a run would load, create and train, without reading any weights."""
    if is_spec_target(target, backbone, hub, overrides, known_as):
        _plan_spec(target, overrides, form, program=program, detailed=detailed)
        print_next_command("run", target)
    elif backbone is None:
        raise typer.BadParameter("add it to plan an expression", param_hint="--backbone")
    elif detailed:
        raise typer.BadParameter("use it with a spec only", param_hint="--detailed-exitcode")
    else:
        made, notes = _plan(target, backbone, hub, known_as)
        if form == "json":
            print(json.dumps(made.as_dict(), indent=2, ensure_ascii=False))
        else:
            print_notes(notes)
            _print(made, program=program)


def _plan_spec(
    target: str, overrides: list[str] | None, form: str, *, program: bool, detailed: bool
) -> None:
    """One plan, or one for each combination of a sweep."""
    from adaptcompose.compiler.plan_diff import diff_plans
    from adaptcompose.experiment.run.run_dirs import previous_plan, run_dirs

    specs = prepare_target(target, overrides)
    plans = dict(zip(run_dirs(specs), (one.make_plan() for one in specs), strict=True))
    plain = {folder: found.as_dict() for folder, found in plans.items()}
    since = {folder: diff_plans(previous_plan(folder), plain[folder]) for folder in plans}
    if form == "json":
        for folder, record in plain.items():
            record["changes"] = [vars(one) for one in since[folder]]
        whole = {folder.name: found for folder, found in plain.items()}
        document = {"combinations": whole} if specs[0].spec.each else next(iter(plain.values()))
        print(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        print_notes(note for one in specs for note in one.notes)
        alike: dict[tuple[str, str], list[Path]] = {}
        for folder, found in plans.items():
            alike.setdefault((str(found), _format_changes(folder, since[folder])), []).append(
                folder
            )
        for number, ((_, news), folders) in enumerate(alike.items()):
            if specs[0].spec.each:
                print("\n" * bool(number) + "\n".join(folder.name for folder in folders) + "\n")
            _print(plans[folders[0]], program=program)
            print(news, end="")
    if detailed and any(since.values()):
        raise typer.Exit(EXIT_CHANGES)


def _format_changes(folder: Path, found: Sequence[PlanChange]) -> str:
    """The section of a plan on what changed since the last run; empty if there was none."""
    from adaptcompose.experiment.run.run_dirs import previous_plan

    if previous_plan(folder) is None:
        return ""
    lines = [f"  {one}" for one in found] or ["  no changes"]
    return "\n".join(["", "since the last run", *lines, ""])


def _print(found: Plan, *, program: bool) -> None:
    print(found)
    if program:
        _print_program(found.program)


def _plan(
    target: str, backbone: str, hub: str | None, known_as: str | None
) -> tuple[Plan, list[Diagnostic]]:
    from adaptcompose.compiler.planning import make_plan
    from adaptcompose.composition.operators import parts_of
    from adaptcompose.composition.structure import structural_problems
    from adaptcompose.resolution.resolve import resolve
    from adaptcompose.resolution.sources import Sources

    checked, base, root = check_expression(target, backbone, hub, known_as)
    graph, facts = checked.raise_errors(), base.backbone
    assert facts is not None
    sources = Sources(hub or "hf", root)
    resolved = resolve(graph, facts, sources)
    if problems := select_errors(structural_problems(resolved.graph, facts)):
        raise Failed(problems)
    head, notes = resolved.graph.default_head, [*checked.diagnostics, *resolved.diagnostics]
    parts = parts_of(resolved.graph).values()
    near = {part.name for part in parts if sources.is_on_disk(part.ref, part.pin)}
    found = make_plan(resolved.graph, facts, head=head, expression=str(checked.tree), cached=near)
    return found, notes


def _print_program(program: Program) -> None:
    from adaptcompose.compiler.passes import run_passes

    before = None
    for name, after, log in run_passes(program):
        print(f"\n{name}: {after.multiplications():,} multiplications per token")
        print("  unchanged" if after == before else after)
        for reason in log.reasons():
            print(f"  not applied: {reason}")
        before = after
