"""What the blocks of a graph find wrong themselves, by what is known of the adapters so far."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.composition.graph import Block, walk
from adaptcompose.composition.operator import Members
from adaptcompose.composition.operators import Branches, Fuse, Restriction, misplaced
from adaptcompose.diagnostics.diagnostic import Diagnostic
from adaptcompose.syntax.parser import argument_span


def verify(graph: Block, facts: Facts | None) -> list[Diagnostic]:
    """The problems of every block, and of their places in each other."""
    wrong = list(misplaced(graph))
    found = [*wrong]
    for block in walk(graph):
        # with outputs where only one can be, nothing is true of its sites
        unclear = wrong and isinstance(block, Members) and _branched(block)
        problems = block.problems(None if unclear else facts)
        found += [_placed(one, block) for one in problems]
    if facts is not None:
        found += _uncovered(graph, facts, facts.sublayers())
    return list(dict.fromkeys(found))


def _placed(found: Diagnostic, block: Block) -> Diagnostic:
    """What is wrong with an argument of a call stands at the argument."""
    if not found.about or block.span is None or found.span != block.span:
        return found
    return replace(found, span=argument_span(block.span, found.about))


def _branched(block: Block) -> bool:
    return any(isinstance(one, Branches) for inner in block.inner() for one in walk(inner))


def _uncovered(block: Block, facts: Facts, sites: Sequence[Site]) -> Iterator[Diagnostic]:
    """A loaded fusion must cover the sites that `drop` and `keep` around it leave."""
    if isinstance(block, Restriction):
        sites = [site for site in sites if block.keeps(site, facts)]
    if isinstance(block, Fuse):
        yield from block.uncovered(facts, sites)
    for inner in block.inner():
        yield from _uncovered(inner, facts, sites)
