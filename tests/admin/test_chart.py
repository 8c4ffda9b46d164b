"""The history in three steps: what is kept of it, and how much that takes."""

import sys
from math import isnan, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.admin.chart import MINUTES_MAX, QUARTERS_MAX, RATES, SECONDS_MAX, Chart, Series
from retter.breaker import State

ROW = [1.0, 2.0, 0.0, 0.0, 0.5]


@given(st.integers(0, 200))
def test_the_newest_rows_are_kept_and_no_more_than_asked_for(added: int) -> None:
    series = Series(1, 20)
    for number in range(added):
        series.add([float(number), 0.0, 0.0, 0.0, 0.0], nan, 0)
        assert len(series) < 25, "a quarter more at most"
    told = series.document(0.0)
    assert told["fresh"] == [float(number) for number in range(max(0, added - 20), added)]
    assert {len(told[name]) for name in (*RATES, "p99_ms", "state")} == {min(added, 20)}


def test_a_longer_step_has_the_mean_of_the_rates_and_the_worst_of_the_rest() -> None:
    series = Series(1, 100)
    series.add([10.0, 0.0, 0.0, 0.0, 0.0], nan, 0)
    series.add([20.0, 0.0, 4.0, 0.0, 0.0], 30.0, 3)
    series.add([30.0, 0.0, 0.0, 0.0, 0.0], 20.0, 1)
    assert series.last(3) == ([20.0, 0.0, 4.0 / 3, 0.0, 0.0], 30.0, 3)
    rates, p99_ms, state = series.last(1)
    assert (rates[0], p99_ms, state) == (30.0, 20.0, 1)
    series.add(ROW, nan, 0)
    assert isnan(series.last(1)[1]), "not known"


def test_thirty_days_take_a_quarter_of_a_mebibyte() -> None:
    chart = Chart()
    for series, rows in (
        (chart._seconds, SECONDS_MAX), (chart._minutes, MINUTES_MAX),
        (chart._quarters, QUARTERS_MAX),
    ):  # fmt: skip
        for _ in range(rows * 5 // 4 - 1):
            series.add(ROW, 1.0, 0)
    taken = sum(
        sys.getsizeof(column)
        for series in (chart._seconds, chart._minutes, chart._quarters)
        for column in (*series._rates, series._p99_ms, series._states)
    )
    assert taken < 300 * 1024
    assert len(chart.document("hour", 0.0)["state"]) == SECONDS_MAX
    assert len(chart.document("month", 0.0)["state"]) == QUARTERS_MAX


def test_a_second_becomes_a_part_of_its_minute_and_its_quarter_of_an_hour() -> None:
    chart = Chart()
    rates = dict(zip(RATES, ROW, strict=True))
    for second in range(900):
        chart.add(rates, None, State.OPEN if second == 500 else State.CLOSED)
    assert chart.document("day", 0.0)["state"].count("OPEN") == 1
    assert chart.document("month", 0.0)["state"] == ["OPEN"]
    assert chart.document("month", 0.0)["gave_up"] == [0.5]
    assert chart.document("recent", 0.0)["state"] == ["CLOSED"] * 300


def filled(seconds: int) -> Chart:
    chart = Chart()
    for second in range(seconds):
        rates = dict(zip(RATES, [float(second), 0.0, 0.0, 0.0, 0.0], strict=True))
        chart.add(rates, None, State.LIMITING if second % 2 else State.CLOSED)
    return chart


@given(st.integers(0, 200), st.integers(0, 40))
def test_a_series_goes_on_after_another_process(rows: int, absent: int) -> None:
    series, other = Series(1, 20), Series(1, 20)
    for number in range(rows):
        series.add([float(number), 0.0, 0.0, 0.0, 0.5], nan if number % 3 else 7.5, number % 4)
    other.restore(series.packed(), absent)
    before, after = series.document(100.0), other.document(100.0)
    kept = max(0, min(rows, 20 - absent))
    for name in (*RATES, "p99_ms", "state"):
        was = before[name][len(before[name]) - kept :]
        gap = [None if name in ("p99_ms", "state") else 0.0] * min(absent, 20)
        assert after[name] == was + gap, name
    other.add(ROW, nan, 0)
    assert other.document(101.0)["state"][-1] == "CLOSED"


@pytest.mark.parametrize(
    "data", [b"x", bytes(24), bytes(25 * 21), bytes(24) + b"\x05", bytes(24) + b"\xff"]
)
def test_what_is_no_series_changes_nothing(data: bytes) -> None:
    series = Series(1, 20)
    series.add(ROW, 3.0, 0)
    before = series.document(0.0)
    with pytest.raises(ValueError, match=r"no rows|no state|does not exist"):
        series.restore(data, 0)
    assert series.document(0.0) == before


def test_a_time_in_which_no_process_ran_has_no_state() -> None:
    series = Series(1, 100)
    series.restore(b"", 3)
    assert isnan(series.last(3)[1])
    series.add(ROW, 2.0, 1)
    assert series.last(4)[2] == 1, "the worst of those that are known"
    other = Series(60, 100)
    other.add(*series.last(4))
    assert other.document(0.0)["state"] == ["LIMITING"]
    other.restore(b"", 1)
    assert other.document(0.0)["state"] == [None]


def test_a_part_of_the_history_is_as_fine_as_it_is_kept() -> None:
    chart = filled(2 * 3600)
    now = 1_000_000.0
    part = chart.between(now - 50, now - 40, now)
    assert (part["step_s"], part["until"]) == (1, now - 40)
    assert part["fresh"] == [float(second) for second in range(7200 - 51, 7200 - 40)]
    older = chart.between(now - 6000, now - 5700, now)
    assert older["step_s"] == 60
    assert len(older["state"]) == 6
    assert chart.between(now - 90_000, now - 80_000, now)["step_s"] == 60, "nothing is older"
    assert filled(20).between(now - 60, now, now)["fresh"] == [float(n) for n in range(20)]
    assert chart.between(now + 10, now + 20, now)["state"] == ["LIMITING"], "the last one"


def test_a_minute_that_goes_on_is_not_yet_told() -> None:
    assert filled(3600 + 17).document("day", 1000.0)["until"] == 983.0
    assert filled(3600 + 17).document("month", 1000.0)["until"] == 983.0
    assert filled(3600 + 17).document("hour", 1000.0)["until"] == 1000.0


def test_a_second_has_the_worst_state_that_there_was_in_it() -> None:
    chart = Chart()
    rates = dict(zip(RATES, ROW, strict=True))
    chart.add(rates, None, State.CLOSED)
    for state in (State.OPEN, State.HALF_OPEN, State.CLOSED):
        chart.entered(state)
    chart.add(rates, None, State.CLOSED)  # all of it between two looks
    chart.add(rates, None, State.LIMITING)
    chart.add(rates, None, State.CLOSED)  # it began as the one before had ended
    chart.add(rates, None, State.CLOSED)
    assert chart.document("hour", 0.0)["state"] == [
        "CLOSED",
        "OPEN",
        "LIMITING",
        "LIMITING",
        "CLOSED",
    ]
