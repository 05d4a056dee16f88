"""`adaptcompose fmt`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adaptcompose.cli.app import QuietOption, app
from adaptcompose.cli.completion import complete_target
from adaptcompose.cli.exit_codes import EXIT_PROBLEMS
from adaptcompose.cli.inputs import os_error_diagnostic, read_expression
from adaptcompose.diagnostics.codes import AC607
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed
from adaptcompose.storage.atomic import write_atomically
from adaptcompose.storage.yaml_source import read_source

if TYPE_CHECKING:
    from adaptcompose.diagnostics.diagnostic import Source

TargetsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="TARGET...",
        help="Expressions, .compose files, specs, or - for standard input.",
        autocompletion=complete_target,
    ),
]


@app.command()
def fmt(
    targets: TargetsArgument,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit with 1 if something would change.")
    ] = False,
    as_yaml: Annotated[
        bool, typer.Option("--yaml", help="Print expressions on one line, quoted for spec.yaml.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Format expressions: rewrite files in place, and print everything else."""
    stale, problems = False, list[Diagnostic]()
    for target in targets:
        try:
            source, path = _read_target(target)
            text = _format_source(source, path, as_yaml=as_yaml)
        except Failed as failed:
            problems += failed.diagnostics
            continue
        changed = text.strip() != source.text.strip() if path is None else text != source.text
        stale |= changed
        if check and changed and not quiet:
            print(f"{path or target} would change")
        elif path is None and not check:
            print(text)
        elif path is not None and changed and not check:
            write_atomically(path, text)
            if not quiet:
                print(f"{path} rewritten", file=sys.stderr)
    if problems:
        raise Failed(problems)
    if check and stale:
        raise typer.Exit(EXIT_PROBLEMS)


def _read_target(target: str) -> tuple[Source, Path | None]:
    if not target.endswith((".yaml", ".yml", ".compose")):
        return read_expression(target)[0], None
    path = Path(target)
    if not path.is_file():
        raise Failed(AC607.at(path=target, root=Path.cwd()))
    try:
        return read_source(path), path
    except OSError as error:
        raise Failed(os_error_diagnostic(error)) from None


def _format_source(source: Source, path: Path | None, *, as_yaml: bool) -> str:
    from adaptcompose.experiment.spec.formatting import format_spec
    from adaptcompose.syntax.formatting import as_yaml_scalar, format_expression
    from adaptcompose.syntax.parser import parse_tree

    if path is not None and path.suffix != ".compose":
        return format_spec(source)
    text = as_yaml_scalar(str(parse_tree(source))) if as_yaml else format_expression(source)
    line_end = "\r\n" if "\r\n" in source.text else "\n"
    return f"{text}\n".replace("\n", line_end) if path is not None else text
