"""Budgets of days and months: what they admit, and that they agree with the attempts after every move."""

from datetime import UTC, datetime, timedelta

import pytest

from app.ledger.budgets import Budget, Ceiling, Scope, Term, ceilings, refusal, without_room

MOMENT = datetime(2027, 1, 31, 23, 59, 59, tzinfo=UTC)


def _ceilings(at: datetime, day: int | None = 10, month: int | None = 100) -> list[Ceiling]:
    return ceilings(Scope.TEAM, "lab", "lab", day_micros=day, month_micros=month, at=at)


def test_a_limit_of_a_day_and_one_of_a_month_are_two_budgets() -> None:
    day, month = _ceilings(MOMENT)
    assert (day.id, month.id) == ("team:lab:2027-01-31", "team:lab:2027-01")
    assert day.ends_at == month.ends_at == MOMENT + timedelta(seconds=1)
    assert (day.starts_at, month.starts_at) == (
        datetime(2027, 1, 31, tzinfo=UTC),
        datetime(2027, 1, 1, tzinfo=UTC),
    )


def test_without_a_limit_there_is_no_budget() -> None:
    assert _ceilings(MOMENT, None, None) == []
    assert [item.term for item in _ceilings(MOMENT, None, 5)] == [Term.MONTH]


@pytest.mark.parametrize("month", range(1, 13))
def test_a_month_ends_where_the_next_begins(month: int) -> None:
    last = _ceilings(datetime(2028, month, 28, tzinfo=UTC))[1]
    assert last.ends_at.day == 1
    assert last.ends_at.month == month % 12 + 1


def test_periods_are_those_of_utc() -> None:
    east = MOMENT.astimezone(tz=None) + timedelta(seconds=1)
    assert _ceilings(east)[0].period == "2027-02-01"


def test_room_is_what_is_neither_spent_nor_held() -> None:
    full = Budget(id="a", limit_micros=10, opening_micros=0, reserved_micros=4, spent_micros=3)
    roomy = Budget(id="b", limit_micros=100, opening_micros=0, reserved_micros=0, spent_micros=0)
    assert without_room([roomy, full], 3) is None
    assert without_room([roomy, full], 4) is full


def test_a_refusal_says_which_budget_how_much_and_until_when() -> None:
    day = _ceilings(MOMENT, day=240_000)[0]
    row = Budget(
        id=day.id, limit_micros=240_000, opening_micros=0, reserved_micros=6_000, spent_micros=232_000
    )
    error = refusal(day, row, 6_000)
    assert (error.status, error.code, error.should_retry) == (429, "insufficient_quota", False)
    for part in ("team", "day 2027-01-31", "0.24 USD", "0.002 USD", "0.006 USD", "2027-02-01T00:00:00Z"):
        assert part in error.message
