"""The command line: read arguments, call one function, print."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from adaptcompose.cli.exit_codes import EXIT_BROKEN_PIPE, EXIT_INTERNAL, EXIT_INTERRUPTED
from adaptcompose.cli.inputs import (
    check_target,
    os_error_diagnostic,
    print_diagnostics,
    print_failure,
)
from adaptcompose.cli.terminal import style_for
from adaptcompose.diagnostics.codes import AC999
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.plugins import broken_plugins

OFFLINE_OPTION = "--offline"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    Mistakes of users are printed as diagnostics, and so are internal errors (AC999), unless
    ADAPTCOMPOSE_DEBUG is set: then an internal error is raised.
    """
    for stream in (sys.stdout, sys.stderr):
        # texts can contain characters that the encoding of the terminal does not have
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    words = _offline_first(list(sys.argv[1:] if arguments is None else arguments))
    try:
        match words:
            case ["check", target] if target == "-" or not target.startswith("-"):
                # the most frequent command, which editors run on every save, skips importing typer
                code = print_diagnostics(check_target(target), target)
                sys.stdout.flush()
                return code
        return _run_or_complete(words)
    except Failed as failed:
        return print_failure(failed)
    except KeyboardInterrupt:
        return _report_interruption()
    except BrokenPipeError:  # the reader of the output ended first, as in `adaptcompose … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except SystemExit as request:  # typer turns a broken pipe into an exit with code 1
        return EXIT_BROKEN_PIPE if request.code == 1 else int(request.code or 0)
    except Exception as error:
        if os.environ.get("ADAPTCOMPOSE_DEBUG"):
            raise
        return _report_exception(error)
    finally:
        _report_broken_plugins()


def _offline_first(words: list[str]) -> list[str]:
    """Move the global option `--offline` to the front, where typer expects it.

    `doctor` has an option `--offline` of its own, which stays in place.
    """
    end = words.index("--") if "--" in words else len(words)
    options, values = words[:end], words[end:]
    if OFFLINE_OPTION not in options or options[0] == "doctor":
        return words
    return [OFFLINE_OPTION, *(word for word in options if word != OFFLINE_OPTION), *values]


def _report_exception(error: Exception) -> int:
    """Print an exception that no command handles: an unreadable file, or an internal error."""
    if isinstance(error, OSError):
        return print_failure(Failed(os_error_diagnostic(error)))
    why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return print_failure(Failed(AC999.at(why=why)))


def _run_or_complete(words: Sequence[str]) -> int:
    """Run a command, or answer bash when it asks for completions."""
    from adaptcompose.cli.completion import COMPLETION_VARIABLE, answer_bash

    if os.environ.get(COMPLETION_VARIABLE) == "complete_bash":
        return answer_bash(lambda: _run(words))
    return _run(words)


def _run(words: Sequence[str]) -> int:
    import typer

    from adaptcompose.cli.commands import app

    usage: Any = typer.BadParameter.__mro__[2]  # UsageError of click, which typer may vendor
    try:
        code = int(app(words, prog_name="adaptcompose", standalone_mode=False) or 0)
    except typer.Abort:
        return _report_interruption()
    except usage as error:
        error.show()
        return EXIT_INTERNAL
    # some versions of typer catch the interrupt themselves
    return _report_interruption() if code == EXIT_INTERRUPTED else code


def _report_broken_plugins() -> None:
    """Warn about every plug-in that could not be imported, whatever the command was."""
    for plugin in broken_plugins():
        title = style_for(sys.stderr).paint("warning", "warning")
        text = f"cannot load the plug-in `{plugin.name}` of {plugin.package}: {plugin.error}"
        print(f"{title}: {text}", file=sys.stderr)


def _report_interruption() -> int:
    print("interrupted; run the same command again to continue", file=sys.stderr)
    return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
