from __future__ import annotations

import pytest

import adaptcompose as ac


@pytest.mark.parametrize(
    ("text", "place"),
    [("stack(./a, ./b) | drop(!./b)", 24), ("bottleneck(!./b)", 12), ("stack(./a, !./b)", 12)],
)
def test_an_exclusion_needs_a_glob(text: str, place: int) -> None:
    (found,) = ac.check(text)
    assert found.code == "AC210"
    assert found.as_dict()["column"] == place
