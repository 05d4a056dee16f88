"""Passes: functions from program to program that keep the outputs, applied in this order."""

from __future__ import annotations

from collections.abc import Callable

from adaptcompose.compiler.passes.fold_fusion import fold_fusion
from adaptcompose.compiler.passes.prune import prune
from adaptcompose.compiler.program import Program

PASSES: tuple[Callable[[Program], Program], ...] = (prune, fold_fusion)


def optimise(program: Program) -> Program:
    """Every pass once, in order."""
    for rewrite in PASSES:
        program = rewrite(program)
    return program
