"""What a command gets as its target, and the printing of diagnostics about it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adaptcompose.cli.exit_codes import exit_code_for
from adaptcompose.cli.terminal import style_for
from adaptcompose.diagnostics.codes import AC413, AC607
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed, OutputForm, Source, render

if TYPE_CHECKING:
    from adaptcompose.composition.checker import CheckContext, CheckResult
    from adaptcompose.experiment.prepare.prepared_run import PreparedRun

SPEC_SUFFIXES = (".yaml", ".yml")
_PATH_LIMIT = 1_000  # characters; a longer target cannot be the path of a folder
_INPUT_LIMIT = 1_000_000  # bytes; more than the longest expression that the parser accepts


def read_expression(target: str) -> tuple[Source, Path]:
    """The expression of a target, and the folder that `./` starts from in it.

    A target is an expression, a .compose file, the folder of a run, or `-` for standard input.
    """
    from adaptcompose.resolution.manifest import FILE, Manifest
    from adaptcompose.storage.yaml_source import decode_utf8

    if target == "-":
        return decode_utf8(sys.stdin.buffer.read(_INPUT_LIMIT), "<stdin>"), Path()
    if target.endswith(".compose"):
        path = Path(target)
        if not path.is_file():
            raise Failed(AC607.at(path=target, root=Path.cwd()))
        with path.open("rb") as file:
            return decode_utf8(file.read(_INPUT_LIMIT), target), path.parent
    if (best := Path(target[:_PATH_LIMIT]) / "best" / FILE).is_file():
        return Source(Manifest.load(best.parent, target).expression, str(best)), best.parent
    return Source(target), Path()


def check_expression(
    target: str, backbone: str | None, hub: str | None, known_as: str | None = None
) -> tuple[CheckResult, CheckContext, Path]:
    """Check an expression against the catalogue and, if given, the backbone's config.json."""
    from adaptcompose.resolution.expression_check import check_expression, context

    source, root = read_expression(target)
    base = context(backbone, root, hub or "hf", known_as)
    return check_expression(source, base), base, root


def prepare_target(target: str, overrides: Sequence[str] | None = None) -> tuple[PreparedRun, ...]:
    """Check, resolve and pin a spec, or all specs of a sweep."""
    from adaptcompose.experiment.prepare.preparer import prepare_runs
    from adaptcompose.experiment.prepare.spec_check import read_checked_specs

    path = Path(target)
    return prepare_runs(read_checked_specs(path, overrides or ()), path)


def check_target(
    target: str,
    backbone: str | None = None,
    hub: str | None = None,
    overrides: Sequence[str] | None = None,
    known_as: str | None = None,
) -> list[Diagnostic]:
    """All diagnostics about an expression or a spec, found without downloading anything."""
    try:
        if not target.endswith(SPEC_SUFFIXES):
            from adaptcompose.resolution.expression_check import check_files

            checked, base, root = check_expression(target, backbone, hub, known_as)
            return check_files(checked, base, root, hub or "hf")
        from adaptcompose.experiment.prepare.spec_check import check_specs, read_checked_specs

        path = Path(target)
        return check_specs(read_checked_specs(path, overrides or ()), path)
    except Failed as failed:
        return list(failed.diagnostics)


def print_diagnostics(
    diagnostics: Sequence[Diagnostic],
    target: str,
    form: OutputForm = "text",
    *,
    quiet: bool = False,
) -> int:
    """Print the result of a check to stdout, and return its exit code."""
    if form != "text":
        print(render(diagnostics, form))
    elif diagnostics:
        print(render(diagnostics, style=style_for(sys.stdout)))
    elif not quiet:
        print("fine")
        if target.endswith(SPEC_SUFFIXES):
            print_next_command("plan", target)
    return exit_code_for(diagnostics)


def print_failure(failure: Failed) -> int:
    """Print why a command failed to stderr, and return its exit code."""
    print(render(failure.diagnostics, style=style_for(sys.stderr)), file=sys.stderr)
    return exit_code_for(failure.diagnostics)


def print_notes(notes: Iterable[Diagnostic]) -> None:
    """Print warnings and notes to stderr; those with the same text only once."""
    style = style_for(sys.stderr)
    for text in dict.fromkeys(note.render(style) for note in notes):
        print(f"{text}\n", file=sys.stderr)


def print_next_command(*words: str, quiet: bool = False) -> None:
    """Print the command that usually comes next, if stderr is a terminal."""
    if not quiet and sys.stderr is not None and sys.stderr.isatty():
        hint = f"next: adaptcompose {shlex.join(words)}"
        print(style_for(sys.stderr).paint(hint, "hint"), file=sys.stderr)


def os_error_diagnostic(error: OSError) -> Diagnostic:
    """AC413 for a file of the user that the operating system cannot open."""
    why = error.strerror or str(error)
    help = "check that it exists, and that you may read and write it"
    return AC413.at(file=error.filename or "a file", why=why, help=help)
