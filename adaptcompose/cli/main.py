"""The command line: read arguments, call one function, print."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from adaptcompose.cli.inputs import (
    EXIT_INTERNAL,
    EXIT_INTERRUPTED,
    EXIT_PROBLEMS,
    check_target,
    exit_code_for,
    os_error_diagnostic,
    print_diagnostics,
)
from adaptcompose.cli.terminal import colour_diagnostics
from adaptcompose.diagnostics.codes import AC999
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.plugins import broken_plugins

OFFLINE_OPTION = "--offline"

EXIT_BROKEN_PIPE = 141  # as of any program that SIGPIPE ends: a shell says nothing of it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; users' mistakes become messages, errors of ours one sentence."""
    for stream in (sys.stdout, sys.stderr):
        # a text may hold characters that the terminal cannot show
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    given = _offline_first(list(sys.argv[1:] if arguments is None else arguments))
    try:
        match given:
            case ["check", target] if target == "-" or not target.startswith("-"):
                # asked most often, and answered before typer would be imported
                code = print_diagnostics(check_target(target), target)
                sys.stdout.flush()
                return code
        return _run_or_complete(given)
    except Failed as failed:
        print(colour_diagnostics(str(failed), sys.stderr), file=sys.stderr)
        return exit_code_for(failed.diagnostics)
    except KeyboardInterrupt:
        return _report_interruption()
    except BrokenPipeError:  # who read the output has gone, as in `adaptcompose check … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except SystemExit as left:  # typer has met the same
        return EXIT_BROKEN_PIPE if left.code == 1 else int(left.code or 0)
    except Exception as error:
        if os.environ.get("ADAPTCOMPOSE_DEBUG"):
            raise
        return _report_exception(error)
    finally:
        _report_broken_plugins()


def _offline_first(given: list[str]) -> list[str]:
    """The words of a command, the option `--offline` in front; `doctor` has one of its own."""
    end = given.index("--") if "--" in given else len(given)
    words, values = given[:end], given[end:]
    if OFFLINE_OPTION not in words or words[0] == "doctor":
        return given
    return [OFFLINE_OPTION, *(word for word in words if word != OFFLINE_OPTION), *values]


def _report_exception(error: Exception) -> int:
    """One message for what nothing closer to it has met: a file of the user's, or our mistake."""
    if isinstance(error, OSError):
        print(os_error_diagnostic(error), file=sys.stderr)
        return EXIT_PROBLEMS
    why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    print(AC999.at(why=why), file=sys.stderr)
    return EXIT_INTERNAL


def _run_or_complete(given: Sequence[str]) -> int:
    """The commands with all their options; bash has its own way to ask for words."""
    from adaptcompose.cli.completion import COMPLETION_VARIABLE, answer_bash

    if os.environ.get(COMPLETION_VARIABLE) == "complete_bash":
        return answer_bash(lambda: _run(given))
    return _run(given)


def _run(given: Sequence[str]) -> int:
    import typer

    from adaptcompose.cli.commands import app

    usage: Any = typer.BadParameter.__mro__[2]  # click's exception, wherever typer keeps its click
    try:
        code = int(app(given, prog_name="adaptcompose", standalone_mode=False) or 0)
    except typer.Abort:
        return _report_interruption()
    except usage as error:
        error.show()
        return EXIT_INTERNAL
    # some versions of typer have caught the interrupt themselves
    return _report_interruption() if code == EXIT_INTERRUPTED else code


def _report_broken_plugins() -> None:
    """A package that adds something and cannot be imported is told, whatever was asked."""
    for one in broken_plugins():
        text = f"warning: cannot load the plug-in `{one.name}` of {one.package}: {one.error}"
        print(colour_diagnostics(text, sys.stderr), file=sys.stderr)


def _report_interruption() -> int:
    print("interrupted; run the same command again to continue", file=sys.stderr)
    return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
