"""Passes: functions from program to program that keep the outputs, applied in this order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from adaptcompose.compiler.passes.fold_fusion import fold_fusion
from adaptcompose.compiler.passes.prune import prune
from adaptcompose.compiler.program import Program

PASSES: tuple[Callable[[Program], Program], ...] = (prune, fold_fusion)


def stages(program: Program) -> Iterator[tuple[str, Program]]:
    """The literal program, then what each pass makes of the one before."""
    yield "literal", program
    for rewrite in PASSES:
        program = rewrite(program)
        yield rewrite.__name__, program


def optimise(program: Program) -> Program:
    """Every pass once, in order."""
    for _, rewritten in stages(program):
        program = rewritten
    return program
