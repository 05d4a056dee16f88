"""Random examples, and a share of a large product: a day's in `make test`, all in `make soak`.

ADAPTCOMPOSE_SEED=20260101 ADAPTCOMPOSE_SOAK=30    a seed, and thirty times the examples
"""

from __future__ import annotations

import datetime
import functools
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, note, seed, settings
from hypothesis.strategies import SearchStrategy

SEED = int(os.environ.get("ADAPTCOMPOSE_SEED") or datetime.date.today().strftime("%Y%m%d"))
SOAK = "ADAPTCOMPOSE_SOAK" in os.environ
TIMES = int(os.environ.get("ADAPTCOMPOSE_SOAK") or 1)
AGAIN = f"ADAPTCOMPOSE_SEED={SEED}{f' ADAPTCOMPOSE_SOAK={TIMES}' if SOAK else ''}"

WEEK = 7
Case = TypeVar("Case")

TRIED: Counter[str] = Counter()
"""What the test that is running has tried so far: examples, or texts by what became of them."""


def sampled(
    examples: int, *strategies: SearchStrategy[Any], **named: SearchStrategy[Any]
) -> Callable[[Any], Any]:
    """A test on so many random examples; its failure tells the seed that makes it fail again."""

    def decorate(test: Callable[..., None]) -> Any:
        @functools.wraps(test)
        def noted(*fixtures: Any, **drawn: Any) -> None:
            note(f"again with {AGAIN}")
            TRIED["examples"] += 1
            test(*fixtures, **drawn)

        chosen = settings(
            max_examples=examples * TIMES,
            deadline=None,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        )
        return seed(SEED)(chosen(given(*strategies, **named)(noted)))

    return decorate


def day_number(seed: int) -> int:
    """The days since the year 1 where the seed is a date such as 20260101, else the seed."""
    try:
        return datetime.datetime.strptime(str(seed), "%Y%m%d").toordinal()
    except ValueError:
        return seed


def share(cases: Sequence[Case], days: int = WEEK, seed: int = SEED) -> list[Case]:
    """The day's cases in their order: `days` days in a row have all of them, each of them once.

    Cases are dealt out in a fixed random order, so that a share is of all rows and columns of a
    product. Every share has at least one case.
    """
    days = min(days, len(cases))
    places = random.Random(len(cases)).sample(range(len(cases)), len(cases))
    return [cases[place] for place in sorted(places[day_number(seed) % days :: days])]


def daily(
    names: str | tuple[str, ...], cases: Sequence[Any], *, days: int = WEEK, ids: Any = None
) -> Callable[[Any], Any]:
    """A test on the day's share of the cases, and in `make soak` on all of them."""
    chosen = list(cases) if SOAK else share(cases, days)

    def decorate(test: Any) -> Any:
        return pytest.mark.soak(pytest.mark.parametrize(names, chosen, ids=ids)(test))

    return decorate
