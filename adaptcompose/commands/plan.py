"""`adaptcompose plan`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from adaptcompose.commands.app import (
    Base,
    Form,
    Hub,
    Target,
    app,
    checked_expression,
    is_spec,
    prepared_spec,
    say,
)
from adaptcompose.language.diagnostics import Diagnostic, Failed, errors

if TYPE_CHECKING:
    from adaptcompose.compiler.plan import Plan
    from adaptcompose.compiler.program import Program


@app.command()
def plan(
    target: Target,
    backbone: Base = None,
    hub: Hub = None,
    form: Form = "text",
    program: Annotated[bool, typer.Option(help="print the program after each pass")] = False,
) -> None:
    """Show what would be loaded, created and trained; no weights are read."""
    if is_spec(target, backbone, hub):
        prepared = prepared_spec(target)
        found, notes = prepared.plan(), list(prepared.notes)
    elif backbone is None:
        raise typer.BadParameter("a plan needs a backbone", param_hint="--backbone")
    else:
        found, notes = _plan(target, backbone, hub)
    if form == "json":
        print(json.dumps(found.as_dict(), indent=2, ensure_ascii=False))
        return
    say(notes)
    print(found)
    if program:
        _print_program(found.program)


def _plan(target: str, backbone: str, hub: str | None) -> tuple[Plan, list[Diagnostic]]:
    from adaptcompose.compiler.plan import make_plan
    from adaptcompose.hub.resolve import Sources, resolve
    from adaptcompose.language.check import verify
    from adaptcompose.language.heads import head_of

    checked, base, root = checked_expression(target, backbone, hub)
    graph, facts = checked.raise_errors(), base.backbone
    assert facts is not None
    resolved = resolve(graph, facts, Sources(hub or "hf", root))
    if problems := errors(verify(resolved.graph, facts)):
        raise Failed(problems)
    head, notes = head_of(resolved.graph), [*checked.diagnostics, *resolved.notes]
    return make_plan(resolved.graph, facts, head=head, expression=str(checked.tree)), notes


def _print_program(program: Program) -> None:
    from adaptcompose.compiler.passes import stages

    before = None
    for name, after, log in stages(program):
        print(f"\n{name}: {after.multiplications():,} multiplications a token")
        print("  unchanged" if after == before else after)
        for reason in log.reasons():
            print(f"  left alone: {reason}")
        before = after
