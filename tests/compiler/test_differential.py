"""A few random compositions, each pass alone and all together; `make soak` takes 5,000."""

from __future__ import annotations

import pytest

from tests.differential import explore, numbered
from tests.sampling import SEED


@pytest.mark.parametrize("share", range(4))
def test_passes_change_nothing(share: int) -> None:
    found = explore(numbered(f"{SEED}/{share}"), 20)
    assert list(found.problems(counts=False)) == []
    assert sum(found.fired.values()) > 5
