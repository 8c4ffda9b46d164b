"""The controller's rules one by one, with the clock in hand."""

import sys
from math import inf
from typing import Any

import pytest

from retter.base.errors import Outcome
from retter.base.reason import Reason
from retter.breaker import (
    BreakerSettings,
    CircuitBreaker,
    Kind,
    Mode,
    Permit,
    Phase,
    Rejection,
    Signal,
    State,
    constants,
    route_of,
)
from retter.breaker.baseline import ApplicationBaseline, Baseline, Dips
from retter.breaker.limit import WorkRateLimit
from retter.breaker.queue import WaitingRoom
from tests.support.breaker_driver import TICK_S, Driver
from tests.support.compiled import counts_lines


def forwarded(driver: Driver, **how: Any) -> Permit:
    """Admit one request that has to go upstream at once."""
    decision = driver.admit(**how)
    assert isinstance(decision, Permit)
    assert decision.phase is Phase.IN_FLIGHT
    return decision


def shed(driver: Driver, **how: Any) -> Rejection:
    """Admit one request that must not go upstream."""
    decision = driver.admit(**how)
    assert isinstance(decision, Rejection)
    return decision


def serve(driver: Driver, seconds: float, *, took_s: float = 0.05, **how: Any) -> None:
    """Let one request after the other be answered well."""
    end = driver.now + seconds
    while driver.now < end - 1e-9:
        permit = forwarded(driver, **how)
        driver.tick(took_s)
        driver.finish(permit)


def filled(driver: Driver | None = None, count: int = 60) -> Driver:
    """Let GETs arrive at once until the circuit limits, each for its own page.

    Unless said otherwise an operator's limit of 16 is why it does.
    """
    driver = driver or Driver(BreakerSettings(max_in_flight=16))
    for number in range(count):
        driver.admit(key=b"/%d" % number)
    assert driver.breaker.circuit.state is State.LIMITING
    return driver


def opened(driver: Driver) -> Driver:
    """Let five GETs in a row fail."""
    for number in range(5):
        driver.finish(forwarded(driver, key=b"/%d" % number), Outcome.OVERLOAD)
    assert driver.breaker.circuit.state is State.OPEN
    return driver


# --- settings ---


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_in_flight", -1),
        ("limit_start", 0),
        ("patience_min_s", 0.0),
        ("patience_max_s", 0.1),
        ("patience_closed_s", 0.1),
        ("queue_wait_s", -1.0),
        ("retry_after_s", -1.0),
        ("failure_ratio", 0.0),
        ("failure_ratio", 1.1),
        ("failure_volume", 0),
        ("open_min_s", 0.0),
        ("open_max_s", 0.5),
        ("fresh_for_s", -1.0),
    ],
)
def test_a_bad_setting_is_named_with_its_value(field: str, value: float) -> None:
    """And with what is allowed."""
    settings: dict[str, Any] = {field: value}
    with pytest.raises(ValueError, match=rf"{field} is {value!r}; allowed: "):
        BreakerSettings(**settings)


# --- routes ---


@pytest.mark.parametrize(
    ("method", "target", "name"),
    [
        (b"GET", b"/", b"GET /"),
        (b"GET", b"*", b"GET /"),
        (b"GET", b"/shop?page=2", b"GET /shop"),
        (b"GET", b"/item/1234/reviews", b"GET /item/*/reviews"),
        (b"GET", b"/a/b/c/d/e", b"GET /a/b/c/d"),
        (b"GET", b"/blob/deadBEEF01", b"GET /blob/*"),
        (b"GET", b"/blob/deadbee", b"GET /blob/deadbee"),
        (b"GET", b"/u/9b2d6a4e-1c3f-4a5b-8c7d-0123456789ab", b"GET /u/*"),
        (b"GET", b"/" + b"x" * 24, b"GET /" + b"x" * 24),
        (b"GET", b"/" + b"x" * 25, b"GET /*"),
        (b"GET", b"/item;jsessionid=1A2B/reviews;b=1", b"GET /item/reviews"),
        (b"POST", b"/cart/7", b"OTHER /cart/*"),
        (b"HEAD", b"/cart", b"OTHER /cart"),
    ],
)
def test_route_names(method: bytes, target: bytes, name: bytes) -> None:
    """Identifiers are no places in a program."""
    assert route_of(method, target) == name


def test_the_65th_route_shares_until_room_is_made() -> None:
    """The least recently used one goes, on the tick."""
    driver = Driver()
    for number in range(constants.ROUTES_MAX):
        driver.finish(forwarded(driver, route=b"GET /%d" % number))
        driver.now += 0.001
    late = forwarded(driver, route=b"GET /late")
    assert late.route.name == b"other"
    driver.finish(late)
    driver.tick()
    late = forwarded(driver, route=b"GET /late")
    assert late.route.name == b"GET /late"
    driver.finish(late)
    assert driver.breaker.snapshot(driver.now).routes == constants.ROUTES_MAX
    first = forwarded(driver, route=b"GET /0")
    assert first.route.name == b"other", "the least recently used route had to go"


# --- misuse ---


def test_a_permit_ends_exactly_once() -> None:
    """A double report is a bug, not a decrement."""
    driver = Driver()
    permit = forwarded(driver)
    driver.finish(permit)
    with pytest.raises(AssertionError, match="cannot finish"):
        driver.breaker.finished(driver.now, permit, Outcome.OK)
    with pytest.raises(AssertionError, match="cannot start"):
        driver.breaker.started(driver.now, permit)
    with pytest.raises(AssertionError, match="cannot be detached"):
        driver.breaker.detach(driver.now, permit)
    with pytest.raises(AssertionError, match="cannot be cancelled"):
        driver.breaker.cancel(permit)
    driver.check()


def test_a_stream_ends_exactly_once_too() -> None:
    """Its end is reported once, and counts for nothing."""
    driver = Driver()
    permit = forwarded(driver)
    driver.detach(permit)
    driver.breaker.detach(driver.now, permit)
    assert driver.breaker.snapshot(driver.now).in_flight == 0
    driver.finish(permit, Outcome.OVERLOAD)
    with pytest.raises(AssertionError, match="cannot finish"):
        driver.breaker.finished(driver.now, permit, Outcome.OK)


def test_an_admitted_client_may_leave_before_the_start() -> None:
    """A probe among them is given back."""
    breaker = CircuitBreaker(BreakerSettings(), 0.0)
    permit = breaker.admit(0.0, Kind.GET, b"GET /", b"/", 1.0)
    assert isinstance(permit, Permit)
    breaker.cancel(permit)
    assert permit.phase is Phase.DONE
    assert breaker.snapshot(0.0).in_flight == 0
    driver = opened(Driver())
    driver.run(1.0)
    probe = driver.breaker.admit(driver.now, Kind.GET, b"GET /", b"/", 1.0)
    assert isinstance(probe, Permit)
    driver.breaker.cancel(probe)
    driver.run(1.0)
    assert forwarded(driver).reason is Reason.PROBE, "the next is not later for it"


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
    room = WaitingRoom()
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


# --- patience ---


def test_a_closed_circuit_is_patient_a_limiting_one_is_not() -> None:
    """5 s against 0.5 s."""
    driver = Driver()
    serve(driver, 1.0)
    forwarded(driver)
    driver.run(4.9)
    assert not driver.answered
    driver.run(0.2)
    assert len(driver.answered) == 1
    assert driver.answered[0] in driver.in_flight
    late = filled()
    late.run(0.45)
    assert not late.answered
    late.run(0.15)
    assert len(late.answered) == len(late.in_flight)


def test_patience_needs_a_stored_response() -> None:
    """Without one there is nothing to answer with."""
    driver = Driver()
    forwarded(driver, stored=None)
    forwarded(driver, kind=Kind.OTHER, route=b"OTHER /", stored=None)
    driver.run(20.0)
    assert not driver.answered
    assert driver.breaker.snapshot(driver.now).old_others == 1


def test_the_first_byte_ends_the_patience() -> None:
    """And a body that flows on for 10 s is detached, whenever it began."""
    driver = Driver()
    early, late = forwarded(driver), forwarded(driver)
    driver.breaker.first_byte(driver.now, early)
    driver.run(2.0)
    driver.breaker.first_byte(driver.now, late)
    driver.run(7.9)
    assert driver.in_flight == [early, late]
    driver.run(0.2)
    assert driver.in_flight == [late]
    driver.run(2.0)
    assert driver.detached == [early, late]
    assert not driver.answered


def test_the_patience_follows_the_route() -> None:
    """Eight times what the route usually takes."""
    driver = Driver()
    serve(driver, 6.0, took_s=0.2)
    for number in range(3):
        forwarded(driver, key=b"/%d" % number)
    driver.run(1.5)
    assert driver.breaker.circuit.state is State.LIMITING
    assert not driver.answered
    driver.run(0.2)
    assert driver.answered


# --- the error breaker ---


def test_half_of_ten_failures_open_the_circuit() -> None:
    """Without five in a row."""
    driver = Driver()
    for number in range(10):
        assert driver.breaker.circuit.state is State.CLOSED
        driver.finish(
            forwarded(driver, key=b"/%d" % number),
            Outcome.ERROR if number % 2 else Outcome.OK,
        )
    assert driver.breaker.circuit.state is State.OPEN
    assert driver.transitions[-1].cause is Signal.FAILING
    assert driver.transitions[-1].failures == 5
    assert shed(driver).reason is Reason.OPEN


def test_open_gives_the_needy_a_bounded_wait() -> None:
    """Then 503: never for longer than the queue's wait."""
    driver = opened(Driver())
    waiting = driver.admit(stored=None)
    assert isinstance(waiting, Permit)
    assert waiting.phase is Phase.QUEUED
    while isinstance(decision := driver.admit(stored=None), Permit):
        assert decision.phase is Phase.QUEUED
    assert decision.reason is Reason.OPEN
    assert not decision.serve_stored


def test_a_ramp_and_back_to_limiting() -> None:
    """Two at first, one more for each success; ten successes end it."""
    driver = opened(Driver())
    driver.run(1.0)
    driver.finish(forwarded(driver))
    assert driver.breaker.circuit.state is State.HALF_OPEN
    for _ in range(10):
        places = driver.breaker.circuit.cap
        while len(driver.in_flight) < places:
            forwarded(driver, key=b"/%d" % len(driver.in_flight))
        # Nobody queues while the limit is so low: two places, two answers in 0.1 s.
        driver.finish(driver.in_flight[0])
    assert driver.breaker.circuit.state is State.LIMITING
    assert driver.transitions[-1].cause is Signal.TRIALS_PASSED
    assert driver.transitions[-1].limit == 12


def test_above_the_ramp_the_reason_is_half_open() -> None:
    """When those who wait are enough."""
    driver = opened(Driver())
    driver.run(1.0)
    driver.finish(forwarded(driver))
    reasons = set()
    for number in range(10):
        decision = driver.admit(key=b"/%d" % number)
        if isinstance(decision, Rejection):
            reasons.add(decision.reason)
    assert reasons == {Reason.HALF_OPEN}


@pytest.mark.parametrize("slow", [False, True])
def test_a_failed_trial_opens_again_for_longer(slow: bool) -> None:
    """A late answer is a failure too."""
    driver = opened(Driver())
    driver.run(1.0)
    driver.finish(forwarded(driver))
    trial = forwarded(driver)
    if slow:
        driver.run(0.6)
        assert driver.answered == [trial]
    else:
        driver.finish(trial, Outcome.ERROR)
    assert driver.transitions[-1].cause is Signal.TRIAL_FAILED
    driver.run(1.4)
    shed(driver)
    driver.run(0.15)
    assert forwarded(driver).reason is Reason.PROBE


def test_another_method_that_succeeds_ends_open() -> None:
    """Nobody has to be sent ahead when a POST went well."""
    driver = opened(Driver())
    driver.finish(forwarded(driver, kind=Kind.OTHER, route=b"OTHER /", stored=None))
    assert driver.transitions[-1].cause is Signal.PROBE_PASSED


def test_another_method_that_fails_while_open_changes_nothing() -> None:
    """It is known already."""
    driver = opened(Driver())
    driver.finish(
        forwarded(driver, kind=Kind.OTHER, route=b"OTHER /", stored=None), Outcome.OVERLOAD
    )
    assert driver.breaker.circuit.state is State.OPEN
    assert len(driver.transitions) == 1


def test_a_late_probe_is_lost_and_may_still_succeed() -> None:
    """Its success counts whenever it comes."""
    driver = opened(Driver())
    driver.run(1.0)
    probe = forwarded(driver)
    driver.run(0.7)
    assert driver.answered == [probe]
    driver.finish(probe)
    assert driver.breaker.circuit.state is State.HALF_OPEN


def test_a_late_probe_that_fails_is_not_counted_twice() -> None:
    """Nor one that says nothing."""
    for outcome in (Outcome.OVERLOAD, Outcome.NEUTRAL):
        driver = opened(Driver())
        driver.run(1.0)
        probe = forwarded(driver)
        driver.run(0.7)
        driver.finish(probe, outcome)
        assert driver.breaker.circuit.opening.wait_s == constants.WAIT_GROWTH
        assert driver.breaker.circuit.state is State.OPEN


# --- route breakers ---


def fail_one_route(driver: Driver) -> None:
    """One route fails while another works."""
    for number in range(6):
        driver.finish(forwarded(driver, key=b"/ok%d" % number, route=b"GET /good"))
        if driver.breaker.snapshot(driver.now).routes_open:
            return
        bad = forwarded(driver, key=b"/bad%d" % number, route=b"GET /bad")
        driver.finish(bad, Outcome.ERROR)


def test_a_failing_route_opens_alone() -> None:
    """The others stay fresh, and the circuit stays closed."""
    driver = Driver()
    fail_one_route(driver)
    assert driver.breaker.snapshot(driver.now).routes_open == (b"GET /bad",)
    assert shed(driver, route=b"GET /bad").reason is Reason.ROUTE_OPEN
    assert not shed(driver, route=b"GET /bad", stored=None).serve_stored
    driver.finish(forwarded(driver, route=b"GET /good"))
    assert driver.breaker.circuit.state is State.CLOSED


def test_a_route_probe_closes_or_waits_longer() -> None:
    """1 s, then 1.5 s; a late one is lost; one that says nothing changes nothing."""
    driver = Driver()
    fail_one_route(driver)
    driver.run(1.0)
    probe = forwarded(driver, route=b"GET /bad")
    assert probe.reason is Reason.PROBE
    driver.finish(probe, Outcome.ERROR)
    driver.run(1.4)
    shed(driver, route=b"GET /bad")
    driver.run(0.15)
    slow = forwarded(driver, route=b"GET /bad")
    driver.run(0.6)
    assert driver.answered == [slow]
    driver.finish(slow)
    assert driver.breaker.snapshot(driver.now).routes_open, "it was late"
    driver.run(2.3)
    neutral = forwarded(driver, route=b"GET /bad")
    driver.finish(neutral, Outcome.NEUTRAL)
    driver.run(2.3)
    driver.finish(forwarded(driver, route=b"GET /bad"))
    assert not driver.breaker.snapshot(driver.now).routes_open


def test_results_from_before_a_route_opened_are_no_probes() -> None:
    """Neither a success nor a failure."""
    driver = Driver()
    early = [forwarded(driver, key=b"/e%d" % n, route=b"GET /bad") for n in range(2)]
    fail_one_route(driver)
    driver.finish(early[0], Outcome.OK)
    driver.finish(early[1], Outcome.ERROR)
    assert driver.breaker.snapshot(driver.now).routes_open == (b"GET /bad",)


def test_the_whole_application_failing_opens_no_route() -> None:
    """The others are no witnesses when they fail as well."""
    driver = Driver()
    for number in range(20):
        decision = driver.admit(key=b"/%d" % number, route=b"GET /%d" % (number % 2))
        if isinstance(decision, Rejection):
            break
        driver.finish(decision, Outcome.OVERLOAD if number > 6 else Outcome.OK)
    assert driver.breaker.circuit.state is State.OPEN
    assert not driver.breaker.snapshot(driver.now).routes_open


def one_slow_route(driver: Driver, *, answers: bool, others: bool = True) -> bool:
    """One route becomes slow, or hangs; return whether it was opened within 10 s."""
    for number in range(40):
        serve(driver, 0.05, key=b"/%d" % number, route=b"GET /slow")
        serve(driver, 0.05, key=b"/%d" % number, route=b"GET /good")
    slow: list[Permit] = []
    for number in range(200):
        if number % 3 == 0 and len(slow) < 15:
            slow.append(forwarded(driver, key=b"/s%d" % number, route=b"GET /slow"))
        if others:
            serve(driver, 0.05, key=b"/g", route=b"GET /good")
        else:
            driver.tick()
        while answers and slow and driver.now - slow[0].started_at > 2.0:
            driver.finish(slow.pop(0))
        if b"GET /slow" in driver.breaker.snapshot(driver.now).routes_open:
            return True
        if driver.breaker.circuit.state is not State.CLOSED:
            return False
    return False


@pytest.mark.parametrize("answers", [True, False])
def test_a_slow_route_opens_alone(answers: bool) -> None:
    """Whether it answers late or not at all."""
    driver = Driver()
    assert one_slow_route(driver, answers=answers)
    assert driver.breaker.circuit.state is State.CLOSED


def test_a_route_without_witnesses_is_not_opened() -> None:
    """When nothing else is answered the whole application may hang."""
    driver = Driver()
    assert not one_slow_route(driver, answers=False, others=False)
    assert driver.breaker.circuit.state is State.LIMITING


def test_no_route_is_judged_while_the_circuit_is_open() -> None:
    """Everything is late then."""
    driver = Driver()
    hanging = [forwarded(driver, key=b"/h%d" % number) for number in range(6)]
    opened(driver)
    driver.run(3.0)
    assert not driver.breaker.snapshot(driver.now).routes_open
    assert len(hanging) == 6


# --- the operator ---


def test_held_open() -> None:
    """Stored responses for GETs that have one, a trickle for the rest, other methods pass."""
    driver = Driver()
    driver.set_mode(Mode.OPEN)
    assert driver.breaker.circuit.state is State.OPEN
    assert shed(driver).reason is Reason.FORCED_OPEN
    for number in range(8):
        forwarded(driver, key=b"/%d" % number, stored=None)
    while isinstance(decision := driver.admit(stored=None), Permit):
        assert decision.phase is Phase.QUEUED
    assert decision.reason is Reason.FORCED_OPEN
    forwarded(driver, kind=Kind.OTHER, route=b"OTHER /", stored=None)
    for permit in list(driver.in_flight):
        driver.finish(permit)
    driver.run(60.0)
    assert driver.breaker.circuit.state is State.OPEN
    driver.set_mode(Mode.OPEN)
    driver.set_mode(Mode.AUTO)
    assert driver.breaker.circuit.state is State.LIMITING
    assert [t.cause for t in driver.transitions] == [Signal.FORCED_OPEN, Signal.RELEASED]


def test_held_closed() -> None:
    """Everything is forwarded, whatever happens."""
    driver = Driver(BreakerSettings(mode=Mode.CLOSED))
    permits = [forwarded(driver, key=b"/%d" % number) for number in range(500)]
    for permit in permits:
        driver.finish(permit, Outcome.OVERLOAD)
    assert driver.breaker.circuit.state is State.CLOSED
    assert driver.breaker.snapshot(driver.now).cap == inf
    driver.set_mode(Mode.AUTO)
    assert driver.breaker.circuit.state is State.CLOSED


def test_an_open_route_is_forwarded_when_held_closed() -> None:
    """The operator's word is stronger."""
    driver = Driver()
    fail_one_route(driver)
    driver.set_mode(Mode.CLOSED)
    assert forwarded(driver, route=b"GET /bad").reason is Reason.ADMITTED


def test_observe_decides_and_forwards() -> None:
    """All that would have been done is counted."""
    driver = Driver(BreakerSettings(mode=Mode.OBSERVE, max_in_flight=16, queue_max=30))
    for number in range(100):
        forwarded(driver, key=b"/%d" % number, stored=1.0 if number % 2 else None)
    driver.run(6.0)
    figures = driver.breaker.snapshot(driver.now)
    assert figures.state is State.LIMITING
    assert figures.would_queue > 0
    assert figures.would_shed > 0
    assert figures.would_reject > 0
    assert figures.would_answer_late == 50
    assert figures.queued == figures.answered_late == 0
    assert not any(figures.shed_stored.values())
    driver.set_mode(Mode.AUTO)
    assert len(driver.transitions) == 1, "observing decides as AUTO does"


def test_observe_lets_those_go_who_wait() -> None:
    """As soon as the operator says so."""
    driver = filled()
    assert driver.queued
    driver.set_mode(Mode.OBSERVE)
    assert not driver.queued


# --- the parts ---


def test_a_baseline_clips_freaks() -> None:
    """After ten samples one counts as ten means at most."""
    baseline = Baseline()
    for _ in range(11):
        baseline.add(1.0, 0.01)
    baseline.add(1000.0, 0.01)
    assert baseline.mean_s == pytest.approx(1.0 + 9.0 / 12)


def test_the_cold_mean_counts_those_that_still_run() -> None:
    """Five short ones answered, five long ones not: the mean is far above the short."""
    baseline = ApplicationBaseline(0.0)
    cold = baseline.cold
    assert cold is not None
    for _ in range(10):
        cold.enter(0.0)
    baseline.cold_leave(1.0, completed=False)
    assert baseline.mean_s == constants.BASELINE_START_S
    for _ in range(4):
        baseline.cold_leave(1.0, completed=True)
    assert baseline.mean_s == pytest.approx(10 / 4)
    assert baseline.samples == 4


def test_the_cold_start_lasts_longer_if_many_are_in_flight() -> None:
    """Their time is counted, their answers are not: with 32 in flight 30 answers are too few."""
    baseline = ApplicationBaseline(0.0)
    cold = baseline.cold
    assert cold is not None
    for number in range(32):
        cold.enter(number / 32)
    ended = 0
    while baseline.cold is not None:
        now = 1.0 + ended / 32
        ended += 1
        baseline.cold_leave(now, completed=True)
        cold.enter(now)
    assert ended == 117, "30 for each 8 of the 31 in flight"
    assert baseline.mean_s == pytest.approx(1.0, rel=0.15)


def test_the_first_answers_are_judged_when_it_is_known_what_is_late() -> None:
    """Nobody knew it when they came. If they stayed in time, later ones would prove an edge."""
    driver = Driver()
    permits = [forwarded(driver) for _ in range(10)]  # ranks 1 to 10

    def ended() -> list[tuple[float, float]]:
        rows = [driver.breaker.circuit.table.by_rank[rank] for rank in (1, 2, 3, 4, 10)]
        return [(row.in_time, row.late) for row in rows]

    for aborted in permits[4:9]:
        driver.finish(aborted, Outcome.NEUTRAL)
    driver.now = 0.05
    for short in (permits[0], permits[1], permits[3]):
        driver.finish(short)
    driver.now = 0.4
    driver.finish(permits[2])
    assert ended() == [(1, 0), (1, 0), (1, 0), (1, 0), (0, 0)], "too few to judge by"
    driver.finish(permits[9])  # 0.19 s on the average: 0.4 s are late
    assert ended() == [(1, 0), (1, 0), (0, 1), (1, 0), (1, 0)], (
        "with ten in flight it may have waited"
    )


def test_a_wide_application_ends_its_cold_start() -> None:
    """It always has more than a few in flight; those below the proven number do not wait in it."""
    driver = Driver(BreakerSettings(limit_start=20))
    baseline = driver.breaker.circuit.baseline
    for number in range(20):
        forwarded(driver)
        driver.now = number * 0.0125
    for _ in range(300):  # the oldest ends, after 0.25 s, and another comes
        driver.tick(0.0125)
        driver.finish(driver.in_flight[0])
        forwarded(driver)
    assert baseline.cold is None
    assert baseline.mean_s == pytest.approx(0.25, rel=0.15)
    assert not driver.transitions


def test_what_began_cold_may_end_warm() -> None:
    """The mean then follows the samples alone."""
    driver = Driver()
    early = forwarded(driver)
    serve(driver, 2.0)
    before = driver.breaker.snapshot(driver.now).baseline_s
    driver.finish(early, Outcome.NEUTRAL)
    assert driver.breaker.snapshot(driver.now).baseline_s == before
    serve(driver, 30.0, took_s=0.1)
    assert driver.breaker.snapshot(driver.now).baseline_s == pytest.approx(0.1, rel=0.1)


def test_a_dip_ends_by_time_or_by_samples() -> None:
    """And comes back."""
    dips = Dips()
    assert not dips.due(100.0, 0.05)
    dips.start_waiting(0.0)
    assert not dips.due(0.9, 0.05)
    assert dips.due(1.0, 0.05)
    assert dips.active
    assert not dips.due(1.1, 0.05)
    assert dips.due(1.3, 0.05)
    assert not dips.active
    assert dips.due(1.3 + constants.DIP_EVERY_MIN_S, 0.05)
    ended = [dips.sample(4.0, 0.05) for _ in range(constants.DIP_SAMPLES)]
    assert ended == [False] * (constants.DIP_SAMPLES - 1) + [True]
    assert dips.begun == 2
    dips.stop()
    assert not dips.due(1e9, 0.05)


def test_a_dip_makes_room_for_uncongested_answers() -> None:
    """Also when all that is in flight is congested for ever."""
    driver = filled()
    dipped = False
    for _ in range(100):
        driver.finish(driver.in_flight[0])
        driver.tick()
        for number in range(30):
            driver.admit(key=b"/%d" % number)
        dipped = dipped or driver.breaker.circuit.dips.active
        assert driver.breaker.circuit.state is State.LIMITING
    assert dipped
    assert driver.breaker.snapshot(driver.now).dips >= 1


def test_limiting_leaves_as_many_places_as_are_proven() -> None:
    """Whatever the work rate says, until answers at that rank are late or the application hangs."""
    driver = filled()
    circuit = driver.breaker.circuit
    row = circuit.table.by_rank[12]

    def places() -> float:
        circuit.table.read_proven()
        circuit.set_cap()
        return circuit.cap

    circuit.limit.set_limit(5.0)
    row.in_time = 20.0
    assert places() == 5, "during the cold start little is known of which answers are in time"
    circuit.baseline.cold = None
    assert places() == 12
    circuit.limit.discount()
    circuit.limit.discount()
    assert places() == 12 - (circuit.limit.in_flight - circuit.limit.load) == 11.25
    circuit.limit.old_others = 0
    circuit.limit.weigh()
    row.late = 20.0
    assert places() == 5
    row.late = 0.0
    circuit.pulse.stalled_at = driver.now + TICK_S
    assert places() == 5
    circuit.pulse.passed_at = driver.now + TICK_S
    assert places() == 12
    circuit.table.late_from = 9.0
    assert places() == 8, "answers are late from the edge on"
    circuit.limit.set_limit(14.0)
    assert places() == 14


def test_a_window_of_no_length_teaches_nothing() -> None:
    """Two ticks at one time."""
    limit = WorkRateLimit(0.0, 8)
    limit.close_window(0.0, crowded=False)
    assert limit.windows == 0


def test_nobody_has_to_listen() -> None:
    """The callback is optional."""
    breaker = CircuitBreaker(BreakerSettings(), 0.0)
    breaker.circuit.set_mode(0.0, Mode.OPEN)
    assert breaker.circuit.state is State.OPEN


def test_words_for_people() -> None:
    """Permits and kinds have readable texts for the log."""
    permit = forwarded(Driver(), key=b"/page")
    assert repr(permit) == "<Permit in-flight admitted b'GET /' b'/page'>"
    assert permit.kind is Kind.GET


def lines_run(in_flight: int) -> int:
    """Count the lines that one request more executes beside so many others."""
    driver = Driver(BreakerSettings(limit_start=4000))
    for number in range(in_flight):
        forwarded(driver, key=b"/%d" % number, route=b"GET /%d" % (number % 60))
    lines = 0

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        permit = driver.breaker.admit(0.0, Kind.GET, b"GET /0", b"/new", 1.0)
        assert isinstance(permit, Permit)
        driver.breaker.started(0.0, permit)
        driver.breaker.first_byte(0.0, permit)
        driver.breaker.finished(0.0, permit, Outcome.OK)
        driver.breaker.take_ready(0.0)
    finally:
        sys.settrace(before)
    return lines


@counts_lines
def test_a_request_costs_the_same_beside_a_thousand_others() -> None:
    """No loop over requests, keys or routes on the way of one."""
    few, many = lines_run(100), lines_run(1000)
    assert few > 20
    assert many == few


def test_refused_connections_in_a_row_open_the_circuit_whatever_went_well_before() -> None:
    driver = Driver()
    serve(driver, 1.5)
    for number in range(4):
        driver.finish(forwarded(driver, key=b"/%d" % number), Outcome.REFUSED)
    driver.finish(forwarded(driver))  # somebody listens after all
    for number in range(4):
        driver.finish(forwarded(driver, key=b"/%d" % number), Outcome.REFUSED)
    driver.finish(forwarded(driver, key=b"/r"), Outcome.OVERLOAD)
    assert driver.breaker.circuit.state is not State.OPEN
    for number in range(5):
        driver.finish(forwarded(driver, key=b"/%d" % number), Outcome.REFUSED)
    assert driver.breaker.circuit.state is State.OPEN


def test_the_wait_of_a_refused_probe_does_not_grow() -> None:
    driver = Driver()
    for number in range(5):
        driver.finish(forwarded(driver, key=b"/%d" % number), Outcome.REFUSED)
    for _ in range(10):
        driver.tick(1.05)
        probe = forwarded(driver)
        assert probe.reason is Reason.PROBE
        driver.finish(probe, Outcome.REFUSED)


def test_who_waits_with_a_stored_response_when_a_pause_begins_gets_it() -> None:
    """The circuit is CLOSED, where nobody's wait expires otherwise."""
    driver = Driver(BreakerSettings(limit_start=4))
    waiting = [driver.admit(Kind.GET, b"/%d" % number, stored=1.0) for number in range(40)]
    assert driver.breaker.circuit.state is State.CLOSED
    assert any(isinstance(one, Permit) and one.phase is Phase.QUEUED for one in waiting)
    driver.pause(100.0)
    for _ in range(30):
        driver.tick()
    assert not driver.queued


def test_during_a_pause_nobody_in_the_line_becomes_a_probe() -> None:
    """Its stored response comes in time, and the application is left alone."""
    driver = filled(Driver(BreakerSettings(max_in_flight=16, open_min_s=0.05)))
    waiting = [permit for permit in driver.queued if permit.has_stored]
    assert waiting
    for permit in list(driver.in_flight)[:12]:
        driver.breaker.finished(driver.now, permit, Outcome.OVERLOAD)
        driver.in_flight.remove(permit)
    assert driver.breaker.circuit.state is State.OPEN
    driver.pause(100.0)
    driver.run(0.5)
    assert driver.breaker.snapshot(driver.now).probes == 0
    assert not driver.queued
