"""Checks of a whole graph: every block's own checks, and where blocks may be in each other."""

from __future__ import annotations

from dataclasses import replace

from adaptcompose.backbones.layout import Facts
from adaptcompose.composition.graph import Block, walk
from adaptcompose.composition.operator import BlockOperator
from adaptcompose.composition.operators import BranchOperator, branch_position_problems
from adaptcompose.diagnostics.diagnostic import Diagnostic
from adaptcompose.syntax.parser import argument_span


def structural_problems(graph: Block, facts: Facts | None) -> list[Diagnostic]:
    """Run the checks of every block with whatever is known about its adapters so far."""
    misplaced = list(branch_position_problems(graph))
    problems = [*misplaced]
    for block in walk(graph):
        # a block with misplaced branches inside has no meaning at any site
        is_unclear = misplaced and isinstance(block, BlockOperator) and _contains_branches(block)
        problems += [_at_argument(p, block) for p in block.problems(None if is_unclear else facts)]
    if facts is not None:
        problems += graph.coverage_problems(facts, facts.sublayer_sites())
    return list(dict.fromkeys(problems))


def _at_argument(problem: Diagnostic, block: Block) -> Diagnostic:
    """Move a problem from a call to the argument that causes it."""
    if not problem.subject or block.span is None or problem.span != block.span:
        return problem
    return replace(problem, span=argument_span(block.span, problem.subject))


def _contains_branches(block: Block) -> bool:
    inner = (descendant for child in block.inner() for descendant in walk(child))
    return any(isinstance(descendant, BranchOperator) for descendant in inner)
