"""`adaptcompose fmt`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adaptcompose.cli.app import Quiet, app
from adaptcompose.cli.completion import complete_target
from adaptcompose.cli.inputs import PROBLEMS, expression, unreadable
from adaptcompose.diagnostics.codes import AC607
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed
from adaptcompose.storage.atomic import write_atomically
from adaptcompose.storage.yaml_source import open_source

if TYPE_CHECKING:
    from adaptcompose.diagnostics.diagnostic import Source

Targets = Annotated[
    list[str],
    typer.Argument(
        metavar="TARGET...",
        help="expressions, .compose files, specs, or -",
        autocompletion=complete_target,
    ),
]


@app.command()
def fmt(
    targets: Targets,
    check: Annotated[bool, typer.Option("--check", help="1 if a text would change")] = False,
    as_yaml: Annotated[
        bool, typer.Option("--yaml", help="expressions as spec.yaml takes them, on one line")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Write expressions in their canonical form; files are rewritten, the rest is printed."""
    stale, problems = False, list[Diagnostic]()
    for target in targets:
        try:
            source, path = _opened(target)
            text = _formatted(source, path, as_yaml=as_yaml)
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
        raise typer.Exit(PROBLEMS)


def _opened(target: str) -> tuple[Source, Path | None]:
    if not target.endswith((".yaml", ".yml", ".compose")):
        return expression(target)[0], None
    path = Path(target)
    if not path.is_file():
        raise Failed(AC607.at(path=target, root=Path.cwd()))
    try:
        return open_source(path), path
    except OSError as error:
        raise Failed(unreadable(error)) from None


def _formatted(source: Source, path: Path | None, *, as_yaml: bool) -> str:
    from adaptcompose.experiment.spec.format_spec import tidy
    from adaptcompose.syntax.formatting import as_scalar, formatted
    from adaptcompose.syntax.parser import parse_tree

    if path is not None and path.suffix != ".compose":
        return tidy(source)
    text = as_scalar(str(parse_tree(source))) if as_yaml else formatted(source)
    line_end = "\r\n" if "\r\n" in source.text else "\n"
    return f"{text}\n".replace("\n", line_end) if path is not None else text
