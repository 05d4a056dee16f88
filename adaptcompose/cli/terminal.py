"""Stages, progress, tables and colours. Data goes to stdout, everything else to stderr."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from adaptcompose.diagnostics.style import ANSI, PLAIN, Style

_SECONDS_BETWEEN_LINES = 10.0  # seconds between plain lines where there is no terminal


@dataclass
class Terminal:
    """One live line per stage on a terminal; elsewhere a plain line every few seconds."""

    quiet: bool = False
    _stage: str = ""
    _last: float = field(default=0.0, repr=False)
    _loss: float | None = None
    _score: str = ""
    _live: bool = False

    def stage(self, name: str, detail: str = "") -> None:
        self._close()
        self._stage, self._loss, self._score = f"{name} {detail}".strip(), None, ""
        self._last = time.monotonic()
        self._say(self._stage)

    def event(self, entry: dict[str, Any]) -> None:
        if entry["event"] == "loss":
            self._loss = float(entry["loss"])
        elif entry["event"] == "score" and entry["score"] is not None:
            self._score = f"  {entry['metric']} {entry['score']:.3f}"
        elif entry["event"] == "step":
            self._step(int(entry["step"]), int(entry["steps"]))

    def _step(self, step: int, steps: int) -> None:
        loss = "" if self._loss is None else f"  loss {self._loss:.3f}"
        line = f"  step {step}/{steps}{loss}{self._score}"
        if self.quiet:
            return
        if sys.stderr is not None and sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[2K{line}")
            sys.stderr.flush()
            self._live = True
        elif time.monotonic() - self._last > _SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            self._say(line)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self._close()
        if not self.quiet:
            print(format_table(header, rows))

    def close(self) -> None:
        self._close()

    def _close(self) -> None:
        if self._live:
            sys.stderr.write("\n")
            self._live = False

    def _say(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)


def choose_colour(mode: str) -> None:
    """Make `always` and `never` override streams and environment, for the rest of the process."""
    if mode == "always":
        os.environ["FORCE_COLOR"] = "1"
        os.environ.pop("NO_COLOR", None)
    elif mode == "never":
        os.environ["NO_COLOR"] = "1"


def has_colour(stream: Any) -> bool:
    """Whether to write colours to a stream.

    NO_COLOR forbids them (no-color.org), FORCE_COLOR demands them (force-color.org); without
    either, a terminal gets them.
    """
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


def style_for(stream: Any) -> Style:
    """How diagnostics and hints look on a stream."""
    return ANSI if has_colour(stream) else PLAIN


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with aligned columns: the first one to the left, the others to the right.

    >>> print(format_table(["", "f1"], [["right", "70.1"], ["none", "9.0"]]))
             f1
    right  70.1
    none    9.0
    """
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def align_columns(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Rows with all columns aligned to the left; a column that is empty everywhere is left out.

    >>> print(*align_columns([["lang/sw", "", "Swahili"], ["lang/quy", "", "Quechua"]]), sep="\\n")
    lang/sw   Swahili
    lang/quy  Quechua
    """
    lines = list(rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True) if width)
        yield "  ".join(cells).rstrip()


def silence_transformers() -> None:
    """Turn off the progress bars and hints of transformers: adaptcompose prints its own."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
