"""The breaker: settings, routes, misuse, what a request costs, words for people."""

import sys
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
    State,
    constants,
    route_of,
)
from tests.breaker.situations import forwarded, opened
from tests.support.breaker_driver import Driver
from tests.support.compiled import counts_lines

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


def test_nobody_has_to_listen() -> None:
    """The callback is optional."""
    breaker = CircuitBreaker(BreakerSettings(), 0.0)
    breaker.circuit.set_mode(0.0, Mode.OPEN)
    assert breaker.circuit.state is State.OPEN


def test_words_for_people() -> None:
    """Permits and kinds have readable texts for the log."""
    permit = forwarded(Driver(), key=b"/page")
    assert repr(permit) == "<Permit in-flight admitted b'GET /' b'/page'>"
    assert permit.is_get


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
