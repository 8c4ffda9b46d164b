"""The history in three steps: what is kept of it, and how much that takes."""

import sys
from math import isnan, nan

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
    told = series.document()
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
    assert len(chart.document("hour")["state"]) == SECONDS_MAX
    assert len(chart.document("month")["state"]) == QUARTERS_MAX


def test_a_second_becomes_a_part_of_its_minute_and_its_quarter_of_an_hour() -> None:
    chart = Chart()
    rates = dict(zip(RATES, ROW, strict=True))
    for second in range(900):
        chart.add(rates, None, State.OPEN if second == 500 else State.CLOSED)
    assert chart.document("day")["state"].count("OPEN") == 1
    assert chart.document("month")["state"] == ["OPEN"]
    assert chart.document("month")["gave_up"] == [0.5]
    assert chart.document()["state"] == ["CLOSED"] * 300


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
    assert chart.document("hour")["state"] == ["CLOSED", "OPEN", "LIMITING", "LIMITING", "CLOSED"]
