"""Passes: functions from program to program that keep the outputs, applied in this order.

A pass writes into its log where it fired, and where it declined and why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from adaptcompose.compiler.passes.concatenate import concatenate
from adaptcompose.compiler.passes.fold_fusion import fold_fusion
from adaptcompose.compiler.passes.group_rows import group_rows
from adaptcompose.compiler.passes.materialise import materialise
from adaptcompose.compiler.passes.merge_deltas import merge_deltas
from adaptcompose.compiler.passes.pass_log import PassLog
from adaptcompose.compiler.passes.prune import prune
from adaptcompose.compiler.passes.share_trunk import share_trunk
from adaptcompose.ir.program import Program

Pass = Callable[[Program, PassLog], Program]

PASSES: tuple[Pass, ...] = (
    prune,
    materialise,
    merge_deltas,
    concatenate,
    fold_fusion,
    share_trunk,
    group_rows,
)


def run_passes(program: Program) -> Iterator[tuple[str, Program, PassLog]]:
    """The literal program, then what each pass makes of the one before."""
    yield "literal", program, PassLog()
    for rewriting in PASSES:
        log = PassLog()
        program = rewriting(program, log)
        yield rewriting.__name__, program, log


def optimise(program: Program) -> Program:
    """Every pass once, in order."""
    for _, rewritten, _ in run_passes(program):
        program = rewritten
    return program
