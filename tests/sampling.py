"""Random examples: few and of the day in the usual run, many with ADAPTCOMPOSE_SOAK=1."""

from __future__ import annotations

import datetime
import functools
import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, note, seed, settings
from hypothesis.strategies import SearchStrategy

SEED = int(os.environ.get("ADAPTCOMPOSE_SEED") or datetime.date.today().strftime("%Y%m%d"))
SOAK = bool(os.environ.get("ADAPTCOMPOSE_SOAK"))
MORE = 40  # so many times the examples while soaking


def sampled(examples: int, **strategies: SearchStrategy[Any]) -> Callable[[Any], Any]:
    """A test on so many random examples; its failure tells the seed that makes it fail again."""

    def decorate(test: Callable[..., None]) -> Any:
        @functools.wraps(test)
        def noted(*fixtures: Any, **drawn: Any) -> None:
            note(f"again with ADAPTCOMPOSE_SEED={SEED}{' ADAPTCOMPOSE_SOAK=1' if SOAK else ''}")
            test(*fixtures, **drawn)

        chosen = settings(
            max_examples=examples * (MORE if SOAK else 1),
            deadline=None,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        )
        return seed(SEED)(chosen(given(**strategies)(noted)))

    return decorate
