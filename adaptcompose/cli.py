"""The command line: read arguments, call one function, print."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import typer

import adaptcompose.commands  # noqa: F401 - they register themselves
from adaptcompose.commands.app import INTERNAL, INTERRUPTED, app, exit_code
from adaptcompose.language.codes import AC999
from adaptcompose.language.diagnostics import Failed
from adaptcompose.plugins import broken
from adaptcompose.terminal import paint

_USAGE: Any = typer.BadParameter.__mro__[2]  # click's exception, wherever typer keeps its click


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; users' mistakes become messages, errors of ours one sentence."""
    for stream in (sys.stdout, sys.stderr):
        # a text may hold characters that the terminal cannot show
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = int(app(arguments, prog_name="adaptcompose", standalone_mode=False) or 0)
        # some versions of typer have caught the interrupt themselves
        return _interrupted() if code == INTERRUPTED else code
    except Failed as failed:
        print(paint(str(failed), sys.stderr), file=sys.stderr)
        return exit_code(list(failed.diagnostics))
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except _USAGE as error:
        error.show()
        return INTERNAL
    except SystemExit as left:  # who read the output has gone, as in `adaptcompose graph … | head`
        return int(left.code or 0)
    except Exception as error:
        if os.environ.get("ADAPTCOMPOSE_DEBUG"):
            raise
        why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        print(AC999.at(why=why), file=sys.stderr)
        return INTERNAL
    finally:
        _tell_broken()


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
