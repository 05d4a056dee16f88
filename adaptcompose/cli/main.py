"""The command line: read arguments, call one function, print."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from adaptcompose.cli.inputs import (
    INTERNAL,
    INTERRUPTED,
    PROBLEMS,
    diagnostics,
    exit_code,
    tell,
    unreadable,
)
from adaptcompose.cli.terminal import paint
from adaptcompose.diagnostics.codes import AC999
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.plugins import broken

OFFLINE = "--offline"

BROKEN_PIPE = 141  # as of any program that SIGPIPE ends: a shell says nothing of it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; users' mistakes become messages, errors of ours one sentence."""
    for stream in (sys.stdout, sys.stderr):
        # a text may hold characters that the terminal cannot show
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    given = _global_first(list(sys.argv[1:] if arguments is None else arguments))
    try:
        match given:
            case ["check", target] if target == "-" or not target.startswith("-"):
                # asked most often, and answered before typer would be imported
                code = tell(diagnostics(target), target)
                sys.stdout.flush()
                return code
        return _typed(given)
    except Failed as failed:
        print(paint(str(failed), sys.stderr), file=sys.stderr)
        return exit_code(failed.diagnostics)
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:  # who read the output has gone, as in `adaptcompose check … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except SystemExit as left:  # typer has met the same
        return BROKEN_PIPE if left.code == 1 else int(left.code or 0)
    except Exception as error:
        if os.environ.get("ADAPTCOMPOSE_DEBUG"):
            raise
        return _failed(error)
    finally:
        _tell_broken()


def _global_first(given: list[str]) -> list[str]:
    """The words of a command, the option `--offline` in front; `doctor` has one of its own."""
    end = given.index("--") if "--" in given else len(given)
    words, values = given[:end], given[end:]
    if OFFLINE not in words or words[0] == "doctor":
        return given
    return [OFFLINE, *(word for word in words if word != OFFLINE), *values]


def _failed(error: Exception) -> int:
    """One message for what nothing closer to it has met: a file of the user's, or our mistake."""
    if isinstance(error, OSError):
        print(unreadable(error), file=sys.stderr)
        return PROBLEMS
    why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    print(AC999.at(why=why), file=sys.stderr)
    return INTERNAL


def _typed(given: Sequence[str]) -> int:
    """The commands with all their options; bash has its own way to ask for words."""
    from adaptcompose.cli.completion import ASKED, answer_bash

    if os.environ.get(ASKED) == "complete_bash":
        return answer_bash(lambda: _run(given))
    return _run(given)


def _run(given: Sequence[str]) -> int:
    import typer

    from adaptcompose.cli.commands import app

    usage: Any = typer.BadParameter.__mro__[2]  # click's exception, wherever typer keeps its click
    try:
        code = int(app(given, prog_name="adaptcompose", standalone_mode=False) or 0)
    except typer.Abort:
        return _interrupted()
    except usage as error:
        error.show()
        return INTERNAL
    # some versions of typer have caught the interrupt themselves
    return _interrupted() if code == INTERRUPTED else code


def _tell_broken() -> None:
    """A package that adds something and cannot be imported is told, whatever was asked."""
    for one in broken():
        text = f"warning: `{one.name}` of {one.package} cannot be loaded: {one.error}"
        print(paint(text, sys.stderr), file=sys.stderr)


def _interrupted() -> int:
    print("interrupted; run the same command again to go on", file=sys.stderr)
    return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
