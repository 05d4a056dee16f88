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
from adaptcompose.cli.exit_codes import EXIT_CHANGES
from adaptcompose.cli.inputs import (
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

    runs = prepare_target(target, overrides)
    plans = dict(zip(run_dirs(runs), (run.make_plan() for run in runs), strict=True))
    plain = {folder: plan.as_dict() for folder, plan in plans.items()}
    since = {folder: diff_plans(previous_plan(folder), plain[folder]) for folder in plans}
    if form == "json":
        for folder, record in plain.items():
            record["changes"] = [vars(change) for change in since[folder]]
        by_name = {folder.name: record for folder, record in plain.items()}
        document = {"combinations": by_name} if runs[0].spec.each else next(iter(plain.values()))
        print(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        print_notes(note for run in runs for note in run.notes)
        folders_by_text: dict[tuple[str, str], list[Path]] = {}
        for folder, plan in plans.items():
            text = str(plan), _format_changes(folder, since[folder])
            folders_by_text.setdefault(text, []).append(folder)
        for number, ((_, changes), folders) in enumerate(folders_by_text.items()):
            if runs[0].spec.each:
                print("\n" * bool(number) + "\n".join(folder.name for folder in folders) + "\n")
            _print(plans[folders[0]], program=program)
            print(changes, end="")
    if detailed and any(since.values()):
        raise typer.Exit(EXIT_CHANGES)


def _format_changes(folder: Path, changes: Sequence[PlanChange]) -> str:
    """The section of a plan on what changed since the last run; empty if there was none."""
    from adaptcompose.experiment.run.run_dirs import previous_plan

    if previous_plan(folder) is None:
        return ""
    lines = [f"  {change}" for change in changes] or ["  no changes"]
    return "\n".join(["", "since the last run", *lines, ""])


def _print(plan: Plan, *, program: bool) -> None:
    print(plan)
    if program:
        _print_program(plan.program)


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
    cached = {part.name for part in parts if sources.is_on_disk(part.ref, part.pin)}
    expression = str(checked.tree)
    made = make_plan(resolved.graph, facts, head=head, expression=expression, cached=cached)
    return made, notes


def _print_program(program: Program) -> None:
    from adaptcompose.compiler.passes import run_passes

    before = None
    for name, after, log in run_passes(program):
        print(f"\n{name}: {after.multiplications():,} multiplications per token")
        print("  unchanged" if after == before else after)
        for reason in log.reasons():
            print(f"  not applied: {reason}")
        before = after
