"""Patience, the error breaker and the breakers of routes."""

import pytest

from retter.base.errors import Outcome
from retter.base.reason import Reason
from retter.breaker import (
    Kind,
    Permit,
    Phase,
    Rejection,
    Signal,
    State,
    constants,
)
from tests.breaker.situations import fail_one_route, filled, forwarded, opened, serve, shed
from tests.support.breaker_driver import Driver

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


@pytest.mark.parametrize(("late_from", "opens"), [(1.0, False), (9.0, True)])
def test_a_request_that_queued_is_not_its_routes_failure(late_from: float, opens: bool) -> None:
    """Quick routes are out of patience first: in an overload they would be the slow ones."""
    driver = Driver()
    for number in range(40):
        serve(driver, 0.05, key=b"/%d" % number, route=b"GET /quick")
        serve(driver, 0.05, key=b"/%d" % number, route=b"GET /good")
    serve(driver, 2.0, key=b"/", route=b"GET /good")  # all other outcomes are forgotten
    circuit = driver.breaker.circuit
    circuit.fire(driver.now, Signal.NO_PERMITS)
    circuit.table.late_from = late_from
    quick = [forwarded(driver, key=b"/q%d" % number, route=b"GET /quick") for number in range(5)]
    assert [permit.rank for permit in quick] == [1, 2, 3, 4, 5]
    for _ in range(12):
        good = forwarded(driver, kind=Kind.OTHER, route=b"OTHER /good", stored=None)
        driver.tick()
        driver.finish(good)
    assert quick == driver.answered
    assert circuit.state is State.LIMITING
    assert (b"GET /quick" in driver.breaker.snapshot(driver.now).routes_open) is opens


def test_no_route_is_judged_while_the_circuit_is_open() -> None:
    """Everything is late then."""
    driver = Driver()
    hanging = [forwarded(driver, key=b"/h%d" % number) for number in range(6)]
    opened(driver)
    driver.run(3.0)
    assert not driver.breaker.snapshot(driver.now).routes_open
    assert len(hanging) == 6


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
