"""A week of days has every case of a product, and every day has some."""

from __future__ import annotations

import pytest

from tests.sampling import day_number, share

MONTH_ENDS = [20261228 + number for number in range(4)] + [20270101, 20270102, 20270103]


def test_a_date_is_a_day_and_another_seed_itself() -> None:
    assert [day_number(seed) - day_number(20261228) for seed in MONTH_ENDS] == [*range(7)]
    assert day_number(20261399) == 20261399
    assert day_number(7) == 7


@pytest.mark.parametrize("count", [1, 2, 6, 7, 8, 100])
@pytest.mark.parametrize("days", [2, 3, 7])
def test_days_in_a_row_have_each_case_once(count: int, days: int) -> None:
    cases = [*range(count)]
    shares = [share(cases, days, seed) for seed in MONTH_ENDS]
    assert all(part == sorted(part) and part for part in shares)
    period = min(days, count)
    assert sorted(case for part in shares[:period] for case in part) == cases
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_share_is_of_all_rows_and_columns() -> None:
    """A stride through a product of seven columns would be one column."""
    product = [(row, column) for row in range(20) for column in range(7)]
    for seed in MONTH_ENDS:
        assert len({column for _, column in share(product, 7, seed)}) >= 4
