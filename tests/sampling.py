"""Random examples: few and of the day in the usual run, many times as many in `make soak`.

ADAPTCOMPOSE_SEED=20260101 ADAPTCOMPOSE_SOAK=30    a seed, and thirty times the examples
"""

from __future__ import annotations

import datetime
import functools
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, note, seed, settings
from hypothesis.strategies import SearchStrategy

SEED = int(os.environ.get("ADAPTCOMPOSE_SEED") or datetime.date.today().strftime("%Y%m%d"))
SOAK = "ADAPTCOMPOSE_SOAK" in os.environ
TIMES = int(os.environ.get("ADAPTCOMPOSE_SOAK") or 1)
AGAIN = f"ADAPTCOMPOSE_SEED={SEED}{f' ADAPTCOMPOSE_SOAK={TIMES}' if SOAK else ''}"

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
