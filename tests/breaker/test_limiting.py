"""LIMITING: who gets a place, the ceiling, and what begins and ends it."""

from math import inf
from typing import Any

import pytest

from retter.base.errors import Outcome
from retter.base.reason import Reason
from retter.breaker import (
    BreakerSettings,
    Kind,
    Permit,
    Phase,
    Signal,
    State,
    constants,
)
from retter.breaker.lanes import Lanes
from tests.breaker.situations import filled, forwarded, serve, shed
from tests.support.breaker_driver import TICK_S, Driver

# --- limiting ---


def test_gets_above_the_limit_wait_or_get_the_stored_response() -> None:
    """And the state says why it changed."""
    driver = filled()
    assert driver.transitions[0].cause is Signal.NO_PERMITS
    assert len(driver.in_flight) == 16
    decision = shed(driver, key=b"/another")
    assert decision.serve_stored
    assert decision.reason is Reason.LIMIT
    assert "stored" in repr(decision)
    assert shed(driver, key=b"/1").reason is Reason.SINGLE_FLIGHT
    # 0.1 s of one worker's time is 2 answers of 50 ms.
    assert len(driver.queued) == 2


def test_a_get_without_a_stored_response_waits_and_is_refused_at_last() -> None:
    """The line is bounded by time, and by a number; 503 with Retry-After when the wait is over."""
    driver = filled(Driver(BreakerSettings(max_in_flight=16, queue_max=500)))
    without_stored = []
    while isinstance(decision := driver.admit(key=b"/n", stored=None), Permit):
        assert decision.phase is Phase.QUEUED
        without_stored.append(decision)
    assert decision.reason is Reason.QUEUE_FULL
    assert not decision.serve_stored
    assert decision.retry_after_s == 2.0
    assert "503" in repr(decision)
    assert driver.breaker.waiting == 500
    driver.cancel(without_stored[3])
    driver.run(2.0 + TICK_S)
    assert [permit for permit in driver.timed_out if not permit.has_stored] == [
        permit for permit in without_stored if permit is not without_stored[3]
    ]
    driver.check()


def test_whose_page_was_stored_while_it_waited_leaves_its_place_to_the_next() -> None:
    driver = filled(Driver(BreakerSettings(max_in_flight=1)), count=2)
    with_stored = driver.queued[0]
    waiting = [driver.admit(key=b"/n%d" % n, stored=None) for n in range(3)]
    driver.stored_meanwhile = True
    driver.finish(driver.in_flight[0])
    assert driver.timed_out == waiting
    assert driver.in_flight == [with_stored]
    figures = driver.breaker.snapshot(driver.now)
    assert figures.shed_stored[Reason.SINGLE_FLIGHT] == 3
    assert figures.queue_timeouts == 0
    alone = driver.admit(key=b"/alone", stored=None)
    driver.finish(with_stored)
    assert driver.in_flight == [alone], "a place is free, and nobody else waits"
    driver.check()


def test_whose_answer_would_come_too_late_leaves_its_place_to_the_next() -> None:
    """It gets its 503 a moment before its wait is over, but not if nobody else waits."""
    driver = filled(Driver(BreakerSettings(max_in_flight=1)), count=2)
    driver.run(0.3)  # the one with a stored response has waited long enough
    first = driver.admit(key=b"/first", stored=None)
    driver.run(1.0)
    second = driver.admit(key=b"/second", stored=None)
    driver.now += 0.96  # an answer takes 50 ms, and half of them 35 ms
    driver.finish(driver.in_flight[0], Outcome.NEUTRAL)
    assert driver.in_flight == [first], "its answer may come in time"
    third = driver.admit(key=b"/third", stored=None)
    driver.now += 1.01
    driver.finish(driver.in_flight[0], Outcome.NEUTRAL)
    assert driver.timed_out[1:] == [second]
    assert driver.in_flight == [third]
    fourth = driver.admit(key=b"/fourth", stored=None)
    driver.now += 1.97
    driver.finish(driver.in_flight[0], Outcome.NEUTRAL)
    assert driver.in_flight == [fourth], "nobody else waits"
    assert driver.breaker.snapshot(driver.now).queue_timeouts == 1
    driver.check()


def test_a_work_rate_measured_with_a_full_house_bounds_the_line() -> None:
    """Then 503 comes at once to whom it would come after the wait."""
    driver = filled()
    queued = 0
    for _ in range(40):
        for _ in range(2):  # 40 a second: with b0 of 50 ms, two busy workers
            driver.finish(driver.in_flight[0])
        driver.tick()
        decision = driver.admit(key=b"/n", stored=None)
        queued += isinstance(decision, Permit)
        driver.admit(key=b"/m", stored=None)
    while isinstance(decision := driver.admit(key=b"/n", stored=None), Permit):
        assert decision.phase is Phase.QUEUED
    assert decision.reason is Reason.QUEUE_FULL
    figures = driver.breaker.snapshot(driver.now)
    work_in_time_s = constants.QUEUE_SHARE * 2.0 * max(1.0, figures.work_rate)
    waiting, each_s = figures.waiting_without_stored, figures.baseline_s
    assert (waiting - 1) * each_s < work_in_time_s <= waiting * each_s


def test_the_line_counts_on_the_workers_that_other_methods_leave() -> None:
    """Half of the workers serve other methods: half as many GETs would be answered in time."""
    driver = filled()
    limit = driver.breaker.circuit.limit
    limit.work_rate, limit.crowded_windows = 8.0, constants.CROWDED_WINDOWS
    each_s = driver.breaker.circuit.baseline.mean_s
    alone = driver.breaker.expected_wait_s(0)
    for others_rate in (4.0, 0.0):
        limit.others_rate = others_rate
        while isinstance(driver.admit(key=b"/n", stored=None), Permit):
            pass
        waiting = driver.breaker.snapshot(driver.now).waiting_without_stored
        assert waiting * each_s >= (8.0 - others_rate) * constants.QUEUE_SHARE * 2.0
        assert (waiting - 1) * each_s < (8.0 - others_rate) * constants.QUEUE_SHARE * 2.0
    assert driver.breaker.expected_wait_s(0) > alone


def test_what_other_methods_take_is_measured_apart() -> None:
    """By windows, as the work rate is."""
    driver = Driver()
    for _ in range(60):
        for kind, route in ((Kind.GET, b"GET /"), (Kind.OTHER, b"OTHER /")):
            forwarded(driver, kind=kind, route=route, stored=None)
        driver.tick()
        for permit in list(driver.in_flight):
            driver.finish(permit)
    limit = driver.breaker.circuit.limit
    assert limit.work_rate > 1.5
    assert limit.others_rate == pytest.approx(limit.work_rate / 2, rel=0.2)
    assert limit.gets_rate == max(1.0, limit.work_rate - limit.others_rate)


def test_the_needy_go_first() -> None:
    """Who has nothing else to be answered with gets the next place."""
    driver = filled()
    without_stored = driver.admit(key=b"/n", stored=None)
    assert isinstance(without_stored, Permit)
    while without_stored.phase is Phase.QUEUED:
        driver.finish(driver.in_flight[0])
    assert without_stored in driver.in_flight
    assert driver.queued, "those with a stored response still wait"


def test_a_client_that_left_the_queue_is_skipped() -> None:
    """Its place goes to the next."""
    room = Lanes(None)
    driver = filled()
    first, second = (driver.admit(key=b"/%d" % n, stored=None) for n in (1, 2))
    assert isinstance(first, Permit)
    assert isinstance(second, Permit)
    driver.cancel(first)
    while second.phase is Phase.QUEUED:
        driver.finish(driver.in_flight[0])
    assert first.phase is Phase.DONE
    assert room.next_get() is None
    assert room.next_other() is None
    assert driver.breaker.take_ready(driver.now) == []


def test_young_stored_responses_may_save_a_place() -> None:
    """Only while limiting, and only if the operator wants it."""
    driver = Driver(BreakerSettings(fresh_for_s=1.0, max_in_flight=16))
    forwarded(driver, stored=0.5)
    filled(driver)
    assert shed(driver, key=b"/x", stored=0.5).reason is Reason.FRESH_ENOUGH


def test_a_hard_limit_holds_in_every_state() -> None:
    """Even where nothing is known against more."""
    driver = Driver(BreakerSettings(max_in_flight=3))
    for number in range(10):
        driver.admit(key=b"/%d" % number)
    assert len(driver.in_flight) == 3


# --- the ceiling ---


def crowd(driver: Driver, places: int, *, writes: bool = False) -> int:
    """Let GETs arrive while so many places are taken; who comes above them fails. Return how many.

    Those below are answered well, one after the other.
    """
    failed = 0
    for number in range(3 * places):
        how: dict[str, Any] = {"key": b"/%d" % number}
        if writes:
            how = {"kind": Kind.OTHER, "route": b"OTHER /", "stored": None}
        decision = driver.admit(**how)
        if not isinstance(decision, Permit) or decision.phase is Phase.QUEUED:
            break
        if decision.rank > places:
            driver.finish(decision, Outcome.ERROR)
            failed += 1
    while driver.in_flight:
        driver.finish(driver.in_flight[0])
    return failed


def pooled(driver: Driver, places: int = 10) -> Driver:
    """Let it find out that so many connections are all there are."""
    serve(driver, 1.0)
    for _ in range(40):
        crowd(driver, places)
        driver.tick()
        if driver.breaker.circuit.table.ceiling < inf:
            break
    assert driver.breaker.circuit.table.ceiling == places
    return driver


def fill(driver: Driver, places: int) -> None:
    """Take so many places; other methods do, up to the ceiling, whatever the limit."""
    for _ in range(places):
        forwarded(driver, kind=Kind.OTHER, route=b"OTHER /", stored=None)


def test_failures_that_lean_to_many_in_flight_are_a_ceiling() -> None:
    """An exhausted pool: all that fail started above it, and nothing opens."""
    driver = pooled(Driver())
    assert driver.transitions[-1].cause is Signal.OVERLOADED
    assert driver.breaker.snapshot(driver.now).failures == 0, "they are explained"
    fill(driver, 10)
    assert driver.now < driver.breaker.circuit.table.trial_at
    for number in range(20):
        driver.admit(key=b"/p%d" % number)
    assert len(driver.in_flight) == 10


def test_a_failing_write_lowers_the_ceiling_too() -> None:
    """It is the same pool."""
    driver = Driver()
    serve(driver, 1.0)
    for _ in range(10):
        crowd(driver, 10, writes=True)
        driver.tick()
    assert driver.breaker.circuit.table.ceiling == 10


def test_writes_wait_below_a_known_ceiling_and_are_forwarded_at_last() -> None:
    """At the head of the line, before GETs; 2 s at most, and never refused."""
    driver = pooled(Driver())
    fill(driver, 10)
    without_stored = driver.admit(key=b"/n", stored=None)
    write = driver.admit(Kind.OTHER, route=b"OTHER /", stored=None)
    late = driver.admit(Kind.OTHER, route=b"OTHER /", stored=None)
    assert isinstance(without_stored, Permit)
    assert isinstance(write, Permit)
    assert isinstance(late, Permit)
    assert {without_stored.phase, write.phase, late.phase} == {Phase.QUEUED}
    driver.finish(driver.in_flight[0])
    assert write.phase is Phase.IN_FLIGHT, "it goes first"
    assert without_stored.phase is Phase.QUEUED
    while late.phase is Phase.QUEUED and driver.now < 100:
        driver.tick()
    assert late.phase is Phase.IN_FLIGHT
    assert late.rank > 10
    assert driver.now - late.queued_at == pytest.approx(2.0, abs=2 * TICK_S)


def test_without_a_ceiling_no_write_waits() -> None:
    """However many are in flight, in any state; nor if the operator says so."""
    driver = filled()
    for _ in range(50):
        forwarded(driver, kind=Kind.OTHER, route=b"OTHER /", stored=None)
    patient = pooled(Driver(BreakerSettings(write_wait_s=0.0)))
    for _ in range(50):
        forwarded(patient, kind=Kind.OTHER, route=b"OTHER /", stored=None)


def test_with_all_of_its_part_a_box_lets_writes_wait() -> None:
    """More would be places of the other boxes. Then they go upstream in any case."""
    driver = Driver(BreakerSettings(max_in_flight=4, is_part=True))
    others = [forwarded(driver, kind=Kind.OTHER, route=b"OTHER /", stored=None) for _ in range(4)]
    late = driver.admit(kind=Kind.OTHER, route=b"OTHER /", stored=None)
    assert isinstance(late, Permit)
    assert late.phase is Phase.QUEUED
    driver.finish(others[0])
    assert late.phase is Phase.IN_FLIGHT
    patient = driver.admit(kind=Kind.OTHER, route=b"OTHER /", stored=None)
    assert isinstance(patient, Permit)
    driver.run(driver.settings.write_wait_s + 0.1)
    assert patient.phase is Phase.IN_FLIGHT
    assert driver.breaker.circuit.limit.in_flight == 5


def test_one_more_than_the_ceiling_is_tried_with_a_stored_response_in_hand() -> None:
    """Once a second; it fails unseen, or makes old failures doubtful."""
    driver = pooled(Driver(BreakerSettings(limit_start=20)))
    fill(driver, 10)
    driver.breaker.circuit.table.trial_at = driver.now
    trial = forwarded(driver, key=b"/trial")
    assert trial.rank == 11
    another = driver.admit(key=b"/another-trial")
    assert isinstance(another, Permit)
    assert another.phase is Phase.QUEUED, "one at a time"
    driver.cancel(another)
    driver.finish(trial, Outcome.ERROR)
    assert driver.breaker.circuit.table.ceiling == 10
    for _ in range(20):
        if driver.breaker.circuit.table.ceiling == inf:
            break
        driver.breaker.circuit.table.trial_at = driver.now
        trial = forwarded(driver, key=b"/trial")
        driver.finish(trial)
    assert driver.breaker.circuit.table.ceiling == inf
    assert 2 <= driver.breaker.snapshot(driver.now).trials < 20


def test_the_ceiling_is_forgotten_when_the_load_is_gone() -> None:
    """Old failures do not count."""
    driver = pooled(Driver())
    driver.run(60.0)
    assert driver.breaker.circuit.table.ceiling == inf


def test_a_failure_with_few_in_flight_says_nothing_about_capacity() -> None:
    """It may be any bug."""
    driver = Driver()
    serve(driver, 1.0)
    driver.finish(forwarded(driver), Outcome.OVERLOAD)
    assert driver.breaker.circuit.state is State.CLOSED
    assert driver.breaker.snapshot(driver.now).ceiling == inf


def test_rare_failures_say_nothing_about_capacity() -> None:
    """One in fifty, whatever is in flight: no change of state."""
    driver = Driver()
    serve(driver, 1.0)
    for number in range(2000):
        while len(driver.in_flight) < 3 + number % 9:
            forwarded(driver, key=b"/%d" % number)
        bad = number % 50 == 0
        driver.finish(driver.in_flight[0], Outcome.OVERLOAD if bad else Outcome.OK)
        driver.tick(0.005)
    assert not driver.transitions
    assert driver.breaker.circuit.table.ceiling == inf


# --- a closed circuit ---


def test_a_burst_at_an_idle_application_waits_and_goes_upstream() -> None:
    """Nothing speaks of saturation: twice what is proven at once, the rest a moment later."""
    driver = Driver()
    for number in range(100):
        driver.admit(key=b"/%d" % number)
    assert len(driver.in_flight) == 2 * constants.SMALL
    assert len(driver.queued) == 100 - 2 * constants.SMALL
    driver.run(constants.FIRST_S + TICK_S)
    assert len(driver.in_flight) == 100
    assert not driver.transitions


def test_late_answers_that_lean_to_many_are_saturation() -> None:
    """Ranks above eight are late, nobody knows it yet, and more wait than there are places."""
    driver = Driver()
    serve(driver, 2.0)
    for number in range(200):
        driver.admit(key=b"/%d" % number)
    for _ in range(20):
        driver.tick()
        for permit in driver.in_flight[:8]:
            driver.finish(permit)
        if driver.transitions:
            break
    assert driver.transitions[-1].cause is Signal.SATURATED
    assert driver.breaker.snapshot(driver.now).limit < 16


@pytest.mark.parametrize(("count", "early"), [(200, True), (50, False)])
def test_a_long_line_does_not_wait_for_the_tick(count: int, early: bool) -> None:
    """The answers of a line that is too long for the pace are looked at as they come."""
    driver = Driver()
    serve(driver, 2.0)
    for number in range(count):
        driver.admit(key=b"/%d" % number)
    for _ in range(3):
        driver.now += 0.05
        for permit in driver.in_flight[:8]:
            driver.finish(permit)
    assert bool(driver.transitions) is early
    driver.tick()
    assert driver.transitions[-1].cause is Signal.SATURATED


def test_a_pause_of_the_application_is_no_queue() -> None:
    """All were late when it went on, at whatever rank."""
    driver = Driver()
    serve(driver, 2.0, took_s=0.01)
    for number in range(40):
        driver.admit(key=b"/%d" % number)
    driver.run(0.5)
    while driver.in_flight:
        driver.finish(driver.in_flight[0])
    driver.run(1.0)
    assert not driver.transitions


def test_a_stall_is_seen_before_any_answer_fails() -> None:
    """Three requests hang for 0.6 s and nothing is answered."""
    driver = Driver()
    serve(driver, 1.0)
    for number in range(3):
        forwarded(driver, key=b"/%d" % number)
    driver.run(0.55)
    assert driver.breaker.circuit.state is State.CLOSED
    driver.run(0.1)
    assert driver.transitions[-1].cause is Signal.STALLED
    assert driver.breaker.snapshot(driver.now).limit == constants.SPARE + 1
    driver.run(0.1)
    assert len(driver.answered) == 3


def test_of_an_unknown_route_a_second_is_no_stall() -> None:
    """It may take that long."""
    driver = Driver()
    serve(driver, 1.0)
    for number in range(3):
        forwarded(driver, key=b"/%d" % number, route=b"GET /slow")
    driver.run(0.95)
    assert driver.breaker.circuit.state is State.CLOSED
    driver.run(0.1)
    assert driver.transitions[-1].cause is Signal.STALLED


def test_hung_is_not_busy() -> None:
    """While nothing is answered the state is not left, though nothing is shed."""
    driver = Driver()
    serve(driver, 1.0)
    for number in range(3):
        forwarded(driver, key=b"/%d" % number, stored=None)
    driver.run(14.0)
    assert [t.cause for t in driver.transitions] == [Signal.STALLED]
    for permit in list(driver.in_flight):
        driver.finish(permit)
    driver.run(8.0)
    assert driver.transitions[-1].cause is Signal.RELIEVED


def test_hung_is_not_idle() -> None:
    """Those that hung have been given up and nobody comes: RETTER asks itself, and then it is over.

    Nothing is in flight, nothing is shed; and yet nothing says that the application is well.
    """
    driver = Driver()
    serve(driver, 1.0)
    hung = [forwarded(driver, key=b"/%d" % number, stored=None) for number in range(3)]
    driver.run(3.0)
    for permit in hung:
        driver.finish(permit, Outcome.NEUTRAL)
    driver.run(5.0)
    assert [t.cause for t in driver.transitions] == [Signal.STALLED]
    probe = driver.breaker.probe(driver.now, b"GET /", b"/0")
    assert probe is not None
    driver.start(probe)
    driver.run(0.05)
    assert driver.breaker.probe(driver.now, b"GET /", b"/0") is None, "one at a time"
    driver.finish(probe)
    driver.run(1.0)
    assert driver.transitions[-1].cause is Signal.RELIEVED
    assert driver.breaker.probe(driver.now, b"GET /", b"/0") is None


def test_two_that_hang_are_no_stall() -> None:
    """One or two requests may be special."""
    driver = Driver()
    serve(driver, 1.0)
    forwarded(driver)
    forwarded(driver)
    driver.run(4.0)
    assert driver.breaker.circuit.state is State.CLOSED
