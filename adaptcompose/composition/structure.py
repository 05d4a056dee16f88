"""What the blocks of a graph find wrong themselves, by what is known of the adapters so far."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.composition.graph import Block, walk
from adaptcompose.composition.operator import BlockOperator
from adaptcompose.composition.operators import (
    BranchOperator,
    Fuse,
    LayerFilter,
    branch_position_problems,
)
from adaptcompose.diagnostics.diagnostic import Diagnostic
from adaptcompose.syntax.parser import argument_span


def structural_problems(graph: Block, facts: Facts | None) -> list[Diagnostic]:
    """The problems of every block, and of their places in each other."""
    wrong = list(branch_position_problems(graph))
    found = [*wrong]
    for block in walk(graph):
        # with outputs where only one can be, nothing is true of its sites
        unclear = wrong and isinstance(block, BlockOperator) and _contains_branches(block)
        problems = block.problems(None if unclear else facts)
        found += [_at_argument(one, block) for one in problems]
    if facts is not None:
        found += _coverage_problems(graph, facts, facts.sublayer_sites())
    return list(dict.fromkeys(found))


def _at_argument(found: Diagnostic, block: Block) -> Diagnostic:
    """What is wrong with an argument of a call stands at the argument."""
    if not found.subject or block.span is None or found.span != block.span:
        return found
    return replace(found, span=argument_span(block.span, found.subject))


def _contains_branches(block: Block) -> bool:
    return any(isinstance(one, BranchOperator) for inner in block.inner() for one in walk(inner))


def _coverage_problems(block: Block, facts: Facts, sites: Sequence[Site]) -> Iterator[Diagnostic]:
    """A loaded fusion must cover the sites that `drop` and `keep` around it leave."""
    if isinstance(block, LayerFilter):
        sites = [site for site in sites if block.is_active_at(site, facts)]
    if isinstance(block, Fuse):
        yield from block.coverage_problems(facts, sites)
    for inner in block.inner():
        yield from _coverage_problems(inner, facts, sites)
