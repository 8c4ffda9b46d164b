"""Situations that the tests of the breaker begin with."""

from typing import Any

from retter.base.errors import Outcome
from retter.breaker import (
    BreakerSettings,
    Permit,
    Phase,
    Rejection,
    State,
)
from tests.support.breaker_driver import Driver


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


def fail_one_route(driver: Driver) -> None:
    """One route fails while another works."""
    for number in range(6):
        driver.finish(forwarded(driver, key=b"/ok%d" % number, route=b"GET /good"))
        if driver.breaker.snapshot(driver.now).routes_open:
            return
        bad = forwarded(driver, key=b"/bad%d" % number, route=b"GET /bad")
        driver.finish(bad, Outcome.ERROR)
