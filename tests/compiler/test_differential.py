"""A few random compositions, each pass alone and all together; `make soak` takes 5,000."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.differential import Found, compare, explore, numbered
from tests.sampling import SEED

KNOWN = (Path(__file__).parent / "fixtures/counterexamples.txt").read_text().splitlines()


@pytest.mark.parametrize("share", range(4))
def test_passes_change_nothing(share: int) -> None:
    found = explore(numbered(f"{SEED}/{share}"), 12)
    assert list(found.problems(counts=False)) == []
    assert sum(found.fired.values()) > 5


@pytest.mark.parametrize("line", [line for line in KNOWN if not line.startswith("#")])
def test_what_once_was_wrong(line: str) -> None:
    family, text = line.split(maxsplit=1)
    found, refused = Found(), family == "refused"
    taken = compare(text, "bert" if refused else family, random.Random(0), found)
    assert taken is not refused
    assert found.failures == []
