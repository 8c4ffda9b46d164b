"""Changes of the circuit's state: in the log, and in the list of the last ones."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from retter.admin.transitions import EVENTS_MAX, TRANSITIONS_MAX, TransitionHistory
from retter.breaker import Signal, State, Transition
from retter.breaker.states import NEXT_STATE
from retter.control import words
from retter.process.transition_log import TransitionLog
from tests.support.admin import admin_of
from tests.support.harness import FakeProxy

CLOSED, LIMITING, OPEN = State.CLOSED, State.LIMITING, State.OPEN
TRANSITION = Transition(
    at=0.0,
    before=CLOSED,
    after=LIMITING,
    cause=Signal.NO_PERMITS,
    generation=1,
    in_flight=8,
    limit=8.04,
    ceiling=float("inf"),
    work_rate=7.5,
    baseline_s=0.02,
    failures=0,
    successes=9,
    waiting=1,
)
SNAPSHOT = FakeProxy().services.breaker.snapshot(0.0)


def change(at: float, before: State, after: State, cause: Signal) -> Transition:
    return replace(TRANSITION, at=at, before=before, after=after, cause=cause)


def limits(at: float) -> Transition:
    return change(at, CLOSED, LIMITING, Signal.NO_PERMITS)


def relieves(at: float) -> Transition:
    return change(at, LIMITING, CLOSED, Signal.RELIEVED)


def opens(at: float) -> Transition:
    return change(at, LIMITING, OPEN, Signal.FAILING)


def test_what_another_worker_judges_is_not_logged_here() -> None:
    with capture_logs() as records:
        log = TransitionLog()
        log.judges = lambda: False
        log.on_transition(limits(0.0))
        log.flush()
        assert records == []
        log.judges = lambda: True
        log.on_transition(limits(1.0))
    assert len(records) == 1


def logged(act: Callable[[TransitionLog], None]) -> list[dict[str, Any]]:
    with capture_logs() as records:
        act(TransitionLog())
    return [dict(record) for record in records]


# In the log


def test_a_change_is_written_at_once_with_its_figures() -> None:
    (record,) = logged(lambda log: log.on_transition(limits(5.0)))
    assert record == {
        "event": "circuit", "log_level": "warning", "before": "CLOSED", "after": "LIMITING",
        "cause": "no-permits", "generation": 1, "in_flight": 8, "limit": 8.04, "ceiling": None,
        "work_rate": 7.5, "baseline_s": 0.02, "failures": 0, "successes": 9,
        "waiting": 1,
    }  # fmt: skip


def test_what_follows_within_a_second_is_one_line() -> None:
    def act(log: TransitionLog) -> None:
        for one in (limits(5.0), relieves(5.2), limits(5.4), opens(5.6)):
            log.on_transition(one)
        log.on_second(5.9)
        log.on_second(6.0)
        log.on_second(7.0)
        log.on_transition(change(7.1, OPEN, CLOSED, Signal.FORCED_CLOSED))

    first, gathered, last = logged(act)
    assert (first["before"], first["after"]) == ("CLOSED", "LIMITING")
    assert (gathered["before"], gathered["after"]) == ("LIMITING", "OPEN")
    assert (gathered["cause"], gathered["changes"]) == ("failing", 3)
    assert gathered["entered"] == {"CLOSED": 1, "LIMITING": 1, "OPEN": 1}
    assert (last["before"], last["after"], "changes" in last) == ("OPEN", "CLOSED", False)


def test_nothing_is_left_out_at_the_end() -> None:
    def act(log: TransitionLog) -> None:
        log.on_transition(limits(5.0))
        log.on_transition(relieves(5.1))
        log.flush()
        log.flush()

    assert [record["after"] for record in logged(act)] == ["LIMITING", "CLOSED"]


@given(st.lists(st.floats(0.0, 0.5), max_size=60))
def test_a_line_a_second_at_most_and_each_change_counted(pauses: list[float]) -> None:
    def act(log: TransitionLog) -> None:
        at, second = 100.0, 101.0
        for number, pause in enumerate(pauses):
            at += pause
            while second <= at:
                log.on_second(second)
                second += 1
            log.on_transition(relieves(at) if number % 2 else limits(at))
        log.on_second(at + 1)

    records = logged(act)
    assert sum(record.get("changes", 1) for record in records) == len(pauses)
    assert len(records) <= sum(pauses) + 2
    befores = [record["before"] for record in records]
    assert befores[1:] == [record["after"] for record in records][:-1], "no gap"


# In the list of the last ones


@pytest.mark.parametrize("signal", list(Signal))
def test_each_cause_is_told_in_words(signal: Signal) -> None:
    before = next(state for state, cause in NEXT_STATE if cause is signal)
    told = change(1.0, before, NEXT_STATE[before, signal], signal)
    event = TransitionHistory().record(told, SNAPSHOT)
    assert event["words"].endswith("in flight, limit 8).")


def test_a_change_that_comes_again_is_one_event() -> None:
    history = TransitionHistory()
    for number in range(1000):
        history.record(limits(number / 2), SNAPSHOT)
        history.record(relieves(number / 2 + 0.1), SNAPSHOT)
    history.record(opens(500.5), SNAPSHOT)
    flaps, reliefs, opening = history.events()
    assert (flaps["times"], reliefs["times"], opening["times"]) == (1000, 1000, 1)
    assert flaps["first_at"] <= flaps["at"]
    assert opening["to"] == "OPEN", "the newest is the last"
    assert history.by_cause[LIMITING, Signal.NO_PERMITS] == 1000


def test_the_figures_are_the_latest() -> None:
    history = TransitionHistory()
    history.record(limits(5.0), SNAPSHOT)
    history.record(replace(limits(5.5), in_flight=77), SNAPSHOT)
    (recorded,) = history.all()
    assert (recorded["times"], recorded["figures"]["in_flight"]) == (2, 77)


@pytest.mark.parametrize("period_s", [0.4, 1.5])
def test_flapping_pushes_no_other_event_out(period_s: float) -> None:
    history = TransitionHistory()
    history.record(change(0.0, CLOSED, OPEN, Signal.FORCED_OPEN), SNAPSHOT)
    history.record(change(9.0, OPEN, LIMITING, Signal.RELEASED), SNAPSHOT)
    history.record(opens(20.0), SNAPSHOT)
    for number in range(500):
        at = 30.0 + number * period_s
        history.record(limits(at), SNAPSHOT)
        history.record(relieves(at + period_s / 2), SNAPSHOT)
    for events, length in ((history.events(), EVENTS_MAX), (history.all(), TRANSITIONS_MAX)):
        causes = [event["cause"] for event in events]
        assert causes[:3] == ["forced-open", "released", "failing"]
        assert causes[-1] == "relieved"
        assert len(events) == (length if period_s > 1 else 5)
        assert [event["at"] for event in events] == sorted(event["at"] for event in events)


def test_the_times_are_told() -> None:
    with admin_of() as admin:
        for mode in ("open", "closed") * 3:
            admin.post("/api/circuit", f"mode={mode}")
        state = admin.state()
        opening, closing = state["events"]
        assert (opening["times"], closing["times"]) == (3, 3)
        line = words.event(closing, closing["at"])
        assert line.endswith(f" (3 times since {words.clock(closing['first_at'], closing['at'])})")
        assert "times" not in words.event(closing | {"times": 1}, closing["at"])
