"""Weights of members, `a:0.3`: what `average` and `merge` share, and what has no weighted sum."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from adaptcompose.composition.graph import Block, Slot, adapters_of
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Diagnostic, Span, either
from adaptcompose.methods.method import Method

SUM_TOLERANCE = 1e-6  # so far from 1 a sum of weights may be


def member_weights(members: Sequence[Slot]) -> tuple[float, ...]:
    """The weights as written; without any, equal ones that sum to 1."""
    if all(slot.weight is None for slot in members):
        return (1 / len(members),) * len(members)
    return tuple(slot.weight or 0.0 for slot in members)


def missing_weight_problems(members: Sequence[Slot], span: Span | None) -> Iterator[Diagnostic]:
    """AC207 where some members have a weight and others have none."""
    if len({slot.weight is None for slot in members}) > 1:
        yield codes.AC207.at(span)


def weight_sum_problems(
    word: str, members: Sequence[Slot], span: Span | None, *, normalize: bool
) -> Iterator[Diagnostic]:
    """AC207 or AC208 where weights do not sum to 1, or cannot be made to."""
    if found := list(missing_weight_problems(members, span)):
        yield from found
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
    """AC306 for the first adapter that adds nothing to a state: virtual tokens, keys and values."""
    for leaf in adapters_of(block).values():
        if leaf.method is None or isinstance(leaf.method, exempt_methods):
            continue
        if not leaf.method.additive:
            name, help = leaf.method.word, suggest_operators(leaf.method)
            yield codes.AC306.at(leaf.span, operator=word, what="outputs", method=name, help=help)
            return


def suggest_operators(method: Method) -> str:
    """A remedy: the operators that can combine adapters of a method."""
    known = {"`average(…)`": method.additive, "`merge(…)`": method.mergeable, "`stack(…)`": True}
    return f"use {either([word for word, possible in known.items() if possible])}"
