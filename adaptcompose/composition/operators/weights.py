"""Weights of members, `a:0.3`: what `average` and `merge` share, and what has no weighted sum."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from adaptcompose.composition.graph import Block, Slot, adapters
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Diagnostic, Span
from adaptcompose.methods.method import Method

EXACT = 1e-6  # so far from 1 a sum of weights may be


def shares(members: Sequence[Slot]) -> tuple[float, ...]:
    """The weights as written; without any, equal ones that sum to 1."""
    if all(slot.weight is None for slot in members):
        return (1 / len(members),) * len(members)
    return tuple(slot.weight or 0.0 for slot in members)


def incomplete(members: Sequence[Slot], span: Span | None) -> Iterator[Diagnostic]:
    """AC207 where some members have a weight and others have none."""
    if len({slot.weight is None for slot in members}) > 1:
        yield codes.AC207.at(span)


def unbalanced(
    word: str, members: Sequence[Slot], span: Span | None, *, normalize: bool
) -> Iterator[Diagnostic]:
    """AC207 or AC208 where weights do not sum to 1, or cannot be made to."""
    if found := list(incomplete(members, span)):
        yield from found
        return
    total = sum(shares(members))
    if normalize and EXACT < total < math.inf:
        return
    if normalize or abs(total - 1) > EXACT:
        help = "weights have a mean if they sum to more than 0" if normalize else None
        yield codes.AC208.at(span, operator=word, total=f"{total:.6g}", help=help)


def unadditive(
    word: str, block: Block, besides: tuple[type[Method], ...] = ()
) -> Iterator[Diagnostic]:
    """AC306 for the first adapter that adds nothing to a state: virtual tokens, keys and values."""
    for leaf in adapters(block).values():
        if leaf.method is None or isinstance(leaf.method, besides):
            continue
        if not leaf.method.additive:
            name, help = leaf.method.word, instead(leaf.method)
            yield codes.AC306.at(leaf.span, operator=word, what="outputs", method=name, help=help)
            return


def instead(method: Method) -> str:
    """What else combines adapters of a method, where an operator does not."""
    known = {"average(…) combines outputs": method.additive}
    known |= {"merge(…) combines weights": method.mergeable, "stack(…) has them beside": True}
    return "; ".join(words for words, possible in known.items() if possible)
