"""What commands are given: an expression, a file with one, or a spec; and what is said of it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adaptcompose.cli.terminal import colour_diagnostics, dim
from adaptcompose.diagnostics.codes import AC413, AC607
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed, Source, render, select_errors

if TYPE_CHECKING:
    from adaptcompose.composition.checker import CheckContext, CheckResult
    from adaptcompose.experiment.prepare.prepared_run import PreparedRun

EXIT_PROBLEMS, EXIT_INTERNAL, EXIT_HUB, EXIT_RUN, EXIT_CHANGES, EXIT_INTERRUPTED = (
    1,
    2,
    3,
    4,
    5,
    130,
)
_HUB_CODES = {"AC404", "AC405", "AC419", "AC430", "AC431", "AC433"}
SPEC_SUFFIXES = (".yaml", ".yml")
_PATH_LIMIT = 1_000  # no folder has a longer name
_INPUT_LIMIT = 1_000_000  # bytes; far more than an expression may have, and no more is read


def read_expression(target: str) -> tuple[Source, Path]:
    """The expression itself, or a run's, and the folder at which `./` starts in it."""
    from adaptcompose.storage.yaml_source import decode_utf8

    if target == "-":
        return decode_utf8(sys.stdin.buffer.read(_INPUT_LIMIT), "<stdin>"), Path()
    if target.endswith(".compose"):
        path = Path(target)
        if not path.is_file():
            raise Failed(AC607.at(path=target, root=Path.cwd()))
        with path.open("rb") as file:
            return decode_utf8(file.read(_INPUT_LIMIT), target), path.parent
    if (best := Path(target[:_PATH_LIMIT]) / "best" / "composition.yaml").is_file():
        from adaptcompose.resolution.manifest import Manifest

        return Source(Manifest.load(best.parent, target).expression, str(best)), best.parent
    return Source(target), Path()


def check_expression(
    target: str, backbone: str | None, hub: str | None, known_as: str | None = None
) -> tuple[CheckResult, CheckContext, Path]:
    """An expression as far as text, catalogue and config.json tell."""
    from adaptcompose.resolution.expression_check import check_expression, context

    source, root = read_expression(target)
    base = context(backbone, root, hub or "hf", known_as)
    return check_expression(source, base), base, root


def prepare_target(target: str, overrides: Sequence[str] | None = None) -> tuple[PreparedRun, ...]:
    """A spec, or all specs of a sweep, checked, resolved and pinned."""
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
    """Everything there is to say about an expression or a spec; nothing is downloaded."""
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
    found: Sequence[Diagnostic], target: str, form: str = "text", *, quiet: bool = False
) -> int:
    """Print what was found; the exit code."""
    if form != "text":
        print(render(found, form))
    elif found:
        print(colour_diagnostics(render(found), sys.stdout))
    elif not quiet:
        print("fine")
        if target.endswith(SPEC_SUFFIXES):
            print_next_command("plan", target)
    return exit_code_for(found)


def print_notes(notes: Iterable[Diagnostic]) -> None:
    """Warnings and notes, each once."""
    for note in dict.fromkeys(map(str, notes)):
        print(f"{colour_diagnostics(note, sys.stderr)}\n", file=sys.stderr)


def print_next_command(*words: str, quiet: bool = False) -> None:
    """The command that comes next, where a person is looking."""
    if not quiet and sys.stderr is not None and sys.stderr.isatty():
        print(dim(f"next: adaptcompose {shlex.join(words)}", sys.stderr), file=sys.stderr)


def os_error_diagnostic(error: OSError) -> Diagnostic:
    """What an operating system says of a file of the user's."""
    why = error.strerror or str(error)
    help = "check that it exists, and that you may read and write it"
    return AC413.at(file=error.filename or "a file", why=why, help=help)


def exit_code_for(found: Iterable[Diagnostic]) -> int:
    """0 without errors, 3 if the hub is one of them, else 1."""
    wrong = select_errors(found)
    if not wrong:
        return 0
    return EXIT_HUB if any(one.code in _HUB_CODES for one in wrong) else EXIT_PROBLEMS
