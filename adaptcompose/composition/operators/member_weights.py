"""Weights of members, as in `average(a:0.3, b:0.7)`, and checks that operators share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from adaptcompose.composition.graph import Block, Slot, adapters_of
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Diagnostic, Span, either
from adaptcompose.methods.method import Method

SUM_TOLERANCE = 1e-6
"""The largest accepted difference between 1 and the sum of the weights."""


def member_weights(members: Sequence[Slot]) -> tuple[float, ...]:
    """The weights as written; if no member has one, equal weights that sum to 1."""
    if all(slot.weight is None for slot in members):
        return (1 / len(members),) * len(members)
    return tuple(slot.weight or 0.0 for slot in members)


def missing_weight_problems(members: Sequence[Slot], span: Span | None) -> Iterator[Diagnostic]:
    """Yield AC207 if some members have a weight and others do not."""
    if len({slot.weight is None for slot in members}) > 1:
        yield codes.AC207.at(span)


def weight_sum_problems(
    word: str, members: Sequence[Slot], span: Span | None, *, normalize: bool
) -> Iterator[Diagnostic]:
    """Yield AC207 or AC208 unless the weights sum to 1, or can be normalised if `normalize`."""
    if missing := list(missing_weight_problems(members, span)):
        yield from missing
        return
    total = sum(member_weights(members))
    if normalize and SUM_TOLERANCE < total < math.inf:
        return
    if normalize or abs(total - 1) > SUM_TOLERANCE:
        help = "use weights whose sum is above 0" if normalize else None
        yield codes.AC208.at(span, operator=word, total=f"{total:.6g}", help=help)


def additivity_problems(
    word: str, block: Block, exempt_methods: tuple[type[Method], ...] = ()
) -> Iterator[Diagnostic]:
    """Yield AC306 for the first adapter that does not add to hidden states, such as a prefix.

    Adapters of `exempt_methods` are accepted.
    """
    for leaf in adapters_of(block).values():
        if leaf.method is None or isinstance(leaf.method, exempt_methods):
            continue
        if not leaf.method.additive:
            name, help = leaf.method.word, suggest_operators(leaf.method)
            yield codes.AC306.at(leaf.span, operator=word, what="outputs", method=name, help=help)
            return


def suggest_operators(method: Method) -> str:
    """The text of a remedy: the operators that can combine adapters of a method."""
    calls = {"`average(…)`": method.additive, "`merge(…)`": method.mergeable, "`stack(…)`": True}
    return f"use {either([call for call, is_possible in calls.items() if is_possible])}"
