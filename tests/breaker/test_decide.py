"""The decision about a request: from a circuit and a request to an action, with nothing changed."""

import pytest

from retter.base.errors import Outcome
from retter.base.reason import Reason
from retter.breaker import (
    Asker,
    BreakerSettings,
    FairnessMode,
    Kind,
    Mode,
    Permit,
    State,
    constants,
)
from retter.breaker import decide as module
from retter.breaker.decide import Action, Decision, decide
from retter.breaker.permit import HEAVY, REJECTION_REASONS, STRANGER
from tests.support.breaker_driver import Driver

STORED_AGE_S = 60.0


def asked(
    driver: Driver,
    *,
    is_get: bool = True,
    key: bytes = b"/new",
    stored_age_s: float | None = STORED_AGE_S,
    client: int = 0,
    lane: int = STRANGER,
    after_s: float = 0.0,
) -> tuple[Action, Reason]:
    """Decide twice, and check that the first decision has changed nothing."""
    circuit, now = driver.breaker.circuit, driver.now + after_s
    route = circuit.routes.peek(b"GET /", now)
    before = driver.breaker.snapshot(now)
    first = decide(circuit, now, is_get, route, key, stored_age_s, client, lane)
    assert driver.breaker.snapshot(now) == before
    assert decide(circuit, now, is_get, route, key, stored_age_s, client, lane) == first
    return first.action, first.reason


def limiting(**settings: float) -> Driver:
    """Fill the sixteen places of an operator's limit, until the circuit limits."""
    driver = Driver(BreakerSettings(max_in_flight=16, **settings))  # type: ignore[arg-type]
    for number in range(60):
        driver.admit(key=b"/%d" % number)
    assert driver.breaker.circuit.state is State.LIMITING
    return driver


def opened() -> Driver:
    driver = Driver()
    for number in range(constants.FAILURES_IN_A_ROW):
        permit = driver.admit(key=b"/%d" % number)
        assert isinstance(permit, Permit)
        driver.finish(permit, Outcome.OVERLOAD)
    assert driver.breaker.circuit.state is State.OPEN
    return driver


def test_a_rejection_names_its_own_reason() -> None:
    decisions = [one for one in vars(module).values() if isinstance(one, Decision)]
    rejections = [one for one in decisions if one.action is Action.REJECT]
    assert len(rejections) == len({one.reason for one in rejections}) >= 10
    for one in rejections:
        assert REJECTION_REASONS[one.rejection] is one.reason


@pytest.mark.parametrize("stored_age_s", [None, STORED_AGE_S])
def test_a_closed_circuit_forwards_while_it_has_places(stored_age_s: float | None) -> None:
    assert asked(Driver(), stored_age_s=stored_age_s) == (Action.FORWARD, Reason.ADMITTED)


def test_a_circuit_that_is_held_open_answers_what_is_stored_and_forwards_the_rest() -> None:
    driver = Driver(BreakerSettings(mode=Mode.OPEN))
    assert asked(driver) == (Action.REJECT, Reason.FORCED_OPEN)
    assert asked(driver, stored_age_s=None) == (Action.FORWARD, Reason.ADMITTED)
    assert asked(driver, is_get=False) == (Action.FORWARD, Reason.ADMITTED)


def test_a_circuit_that_is_held_closed_forwards_above_every_limit() -> None:
    driver = limiting()
    driver.set_mode(Mode.CLOSED)
    assert asked(driver) == (Action.FORWARD, Reason.ADMITTED)
    assert asked(driver, is_get=False) == (Action.FORWARD, Reason.ADMITTED)


def test_during_a_pause_what_is_stored_is_answered_and_the_rest_is_held() -> None:
    driver = Driver()
    driver.pause(60.0)
    assert asked(driver) == (Action.REJECT, Reason.PAUSED)
    assert asked(driver, stored_age_s=None) == (Action.WAIT, Reason.ADMITTED)
    assert asked(driver, is_get=False, stored_age_s=None) == (Action.WAIT, Reason.ADMITTED)
    for number in range(constants.HELD_MAX):
        driver.admit(key=b"/%d" % number, stored=None)
    assert asked(driver, stored_age_s=None) == (Action.REJECT, Reason.PAUSED)


def test_an_open_circuit_probes_when_it_is_time_and_not_before() -> None:
    driver = opened()
    assert asked(driver) == (Action.REJECT, Reason.OPEN)
    assert asked(driver, after_s=driver.settings.open_min_s) == (Action.PROBE, Reason.PROBE)


def test_a_client_in_doubt_probes_only_if_nobody_else_does() -> None:
    driver = opened()
    clients = driver.breaker.circuit.failures.clients
    for number in range(3):
        clients.failed(7, driver.now - 3.0 + number)
        clients.passed(1, driver.now - 2.5 + number)
    due_s = driver.settings.open_min_s
    assert asked(driver, client=7, after_s=due_s) == (Action.REJECT, Reason.OPEN)
    assert asked(driver, client=8, after_s=due_s) == (Action.PROBE, Reason.PROBE)
    later_s = due_s + constants.DOUBTED_PROBE_S
    assert asked(driver, client=7, after_s=later_s) == (Action.PROBE, Reason.PROBE)


def test_an_open_route_is_open_alone() -> None:
    driver = Driver()
    circuit = driver.breaker.circuit
    route = circuit.routes.get(b"GET /slow", driver.now)
    circuit.open_route(driver.now, route)
    decision = decide(circuit, driver.now, True, route, b"/slow", None, 0)
    assert (decision.action, decision.reason) == (Action.REJECT, Reason.ROUTE_OPEN)
    assert asked(driver, stored_age_s=None) == (Action.FORWARD, Reason.ADMITTED)


def test_a_page_that_is_in_flight_is_not_asked_for_twice() -> None:
    driver = limiting()
    in_flight = driver.in_flight[0].key
    assert asked(driver, key=in_flight) == (Action.REJECT, Reason.SINGLE_FLIGHT)


def test_a_page_that_is_fresh_enough_is_not_asked_for_under_load() -> None:
    driver = limiting(fresh_for_s=2.0)
    assert asked(driver, stored_age_s=1.9) == (Action.REJECT, Reason.FRESH_ENOUGH)
    assert asked(driver, stored_age_s=2.1) != (Action.REJECT, Reason.FRESH_ENOUGH)


def test_a_page_without_a_stored_response_waits() -> None:
    assert asked(limiting(), stored_age_s=None) == (Action.WAIT, Reason.ADMITTED)


def test_no_get_waits_behind_a_full_queue() -> None:
    driver = limiting(queue_max=1)
    driver.admit(key=b"/waits", stored=None)
    assert asked(driver, stored_age_s=None) == (Action.REJECT, Reason.QUEUE_FULL)


def test_a_heavy_client_is_told_when_only_its_own_demand_is_in_the_way() -> None:
    driver = Driver(BreakerSettings(max_in_flight=16, fairness=FairnessMode.ON))
    for number in range(200):
        driver.admit(key=b"/%d" % number, stored=None, client=99, asker=Asker(99, crawler="bot"))
    assert asked(driver, lane=HEAVY) == (Action.REJECT, Reason.FAIR_SHARE)
    assert asked(driver, lane=STRANGER) == (Action.WAIT, Reason.ADMITTED)


def test_other_methods_wait_at_a_known_ceiling_alone() -> None:
    driver = limiting()
    assert asked(driver, is_get=False) == (Action.FORWARD, Reason.ADMITTED)
    driver.breaker.circuit.table.ceiling = driver.breaker.circuit.limit.in_flight
    assert asked(driver, is_get=False) == (Action.WAIT, Reason.ADMITTED)
    assert isinstance(driver.admit(kind=Kind.OTHER, stored=None), Permit), "never refused"
