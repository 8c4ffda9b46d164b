"""What operators order: held open, held closed, observed, paused."""

from math import inf

from retter.base.errors import Outcome
from retter.base.reason import Reason
from retter.breaker import (
    BreakerSettings,
    Kind,
    Mode,
    Permit,
    Phase,
    Signal,
    State,
)
from tests.breaker.situations import fail_one_route, filled, forwarded, shed
from tests.support.breaker_driver import Driver

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
