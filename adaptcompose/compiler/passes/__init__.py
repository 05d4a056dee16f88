"""Passes: functions from program to program that do not change the outputs.

Each pass is a module of this folder. Its docstring gives the condition under which it applies, the
law by which the outputs stay the same, and an example. A pass notes in its log where it applied,
and where it declined and why.
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

# The order matters: a pass also applies to what the passes before it have made.
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
    """The literal program, then the program after each pass, with their names and logs."""
    yield "literal", program, PassLog()
    for rewriting in PASSES:
        log = PassLog()
        program = rewriting(program, log)
        yield rewriting.__name__, program, log


def optimise(program: Program) -> Program:
    """The program after all passes, each applied once, in the order of `PASSES`."""
    for _, rewritten, _ in run_passes(program):
        program = rewritten
    return program
