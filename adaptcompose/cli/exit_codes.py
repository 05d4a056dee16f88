"""Exit codes of the command line: what went wrong, as a number for scripts."""

from __future__ import annotations

from collections.abc import Iterable

from adaptcompose.diagnostics.codes import CODES
from adaptcompose.diagnostics.diagnostic import Cause, Diagnostic, select_errors

EXIT_PROBLEMS = 1
EXIT_INTERNAL = 2
EXIT_HUB = 3
EXIT_RUN = 4
EXIT_CHANGES = 5
EXIT_INTERRUPTED = 130
_EXIT_CODES: dict[Cause, int] = {
    "input": EXIT_PROBLEMS,
    "internal": EXIT_INTERNAL,
    "hub": EXIT_HUB,
}
EXIT_BROKEN_PIPE = 141  # the code of a program that SIGPIPE ended; shells do not report it


def exit_code_for(diagnostics: Iterable[Diagnostic]) -> int:
    """0 without errors; otherwise the highest exit code among the causes of the errors."""
    causes = (CODES[error.code].cause for error in select_errors(diagnostics))
    return max((_EXIT_CODES[cause] for cause in causes), default=0)
