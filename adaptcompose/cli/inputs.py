"""What commands are given: an expression, a file with one, or a spec; and what is said of it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adaptcompose.cli.terminal import dim, paint
from adaptcompose.diagnostics.codes import AC413, AC607
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed, Source, errors, render

if TYPE_CHECKING:
    from adaptcompose.composition.check import Checked, Context
    from adaptcompose.experiment.prepare.prepared_run import Prepared

PROBLEMS, INTERNAL, HUB, RUN, CHANGES, INTERRUPTED = 1, 2, 3, 4, 5, 130
_HUB_CODES = {"AC404", "AC405", "AC419", "AC430", "AC431", "AC433"}
SPECS = (".yaml", ".yml")
_PATH = 1_000  # no folder has a longer name
_MOST = 1_000_000  # bytes; far more than an expression may have, and no more is read


def expression(target: str) -> tuple[Source, Path]:
    """The expression itself, or a run's, and the folder at which `./` starts in it."""
    from adaptcompose.storage.yaml_source import decode

    if target == "-":
        return decode(sys.stdin.buffer.read(_MOST), "<stdin>"), Path()
    if target.endswith(".compose"):
        path = Path(target)
        if not path.is_file():
            raise Failed(AC607.at(path=target, root=Path.cwd()))
        with path.open("rb") as file:
            return decode(file.read(_MOST), target), path.parent
    if (best := Path(target[:_PATH]) / "best" / "composition.yaml").is_file():
        from adaptcompose.resolution.manifest import Manifest

        return Source(Manifest.open(best.parent, target).expression, str(best)), best.parent
    return Source(target), Path()


def checked_expression(
    target: str, backbone: str | None, hub: str | None, known_as: str | None = None
) -> tuple[Checked, Context, Path]:
    """An expression as far as text, catalogue and config.json tell."""
    from adaptcompose.resolution.expression_check import check_alone, context

    source, root = expression(target)
    base = context(backbone, root, hub or "hf", known_as)
    return check_alone(source, base), base, root


def prepared_specs(target: str, overrides: Sequence[str] | None = None) -> tuple[Prepared, ...]:
    """A spec, or all specs of a sweep, checked, resolved and pinned."""
    from adaptcompose.experiment.prepare.preparer import prepare_all
    from adaptcompose.experiment.prepare.spec_check import read_whole

    path = Path(target)
    return prepare_all(read_whole(path, overrides or ()), path)


def diagnostics(
    target: str,
    backbone: str | None = None,
    hub: str | None = None,
    overrides: Sequence[str] | None = None,
    known_as: str | None = None,
) -> list[Diagnostic]:
    """Everything there is to say about an expression or a spec; nothing is downloaded."""
    try:
        if not target.endswith(SPECS):
            from adaptcompose.resolution.expression_check import check_files

            checked, base, root = checked_expression(target, backbone, hub, known_as)
            return check_files(checked, base, root, hub or "hf")
        from adaptcompose.experiment.prepare.spec_check import check_specs, read_whole

        path = Path(target)
        return check_specs(read_whole(path, overrides or ()), path)
    except Failed as failed:
        return list(failed.diagnostics)


def tell(
    found: Sequence[Diagnostic], target: str, form: str = "text", *, quiet: bool = False
) -> int:
    """Print what was found; the exit code."""
    if form != "text":
        print(render(found, form))
    elif found:
        print(paint(render(found), sys.stdout))
    elif not quiet:
        print("fine")
        if target.endswith(SPECS):
            hint("plan", target)
    return exit_code(found)


def say(notes: Iterable[Diagnostic]) -> None:
    """Warnings and notes, each once."""
    for note in dict.fromkeys(map(str, notes)):
        print(f"{paint(note, sys.stderr)}\n", file=sys.stderr)


def hint(*words: str, quiet: bool = False) -> None:
    """The command that comes next, where a person is looking."""
    if not quiet and sys.stderr is not None and sys.stderr.isatty():
        print(dim(f"next: adaptcompose {shlex.join(words)}", sys.stderr), file=sys.stderr)


def unreadable(error: OSError) -> Diagnostic:
    """What an operating system says of a file of the user's."""
    why = error.strerror or str(error)
    help = "check that it is there, and may be read and written"
    return AC413.at(file=error.filename or "a file", why=why, help=help)


def exit_code(found: Iterable[Diagnostic]) -> int:
    """0 without errors, 3 if the hub is one of them, else 1."""
    wrong = errors(found)
    if not wrong:
        return 0
    return HUB if any(one.code in _HUB_CODES for one in wrong) else PROBLEMS
