"""Properties of any history: random events for the controller and for a naive model of it."""

from itertools import pairwise
from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from retter.base.errors import Outcome
from retter.base.reason import Reason
from retter.breaker import (
    Asker,
    BreakerSettings,
    FairnessMode,
    Kind,
    Mode,
    Permit,
    Phase,
    Rejection,
    State,
    constants,
)
from retter.store.known_sessions import ISSUED
from tests.support.breaker_driver import TICK_S, Driver
from tests.support.compiled import replaces_parts
from tests.support.tracing import untraced

KEYS = st.sampled_from([b"/a", b"/b", b"/c", b"/d"])
ROUTES = st.sampled_from([b"GET /", b"GET /list", b"GET /item/*"])
AGES = st.sampled_from([None, 0.0, 1.0, 100.0])
OUTCOMES = st.sampled_from(
    [Outcome.OK, Outcome.OK, Outcome.OK, Outcome.OVERLOAD, Outcome.ERROR, Outcome.NEUTRAL]
)
PICK = st.integers(0, 10_000)


class AnyHistory(RuleBasedStateMachine):
    """Requests of all kinds come, start, answer, fail, hang, leave; operators interfere."""

    fairness = FairnessMode.OFF

    def __init__(self) -> None:
        super().__init__()
        self.driver = Driver(
            BreakerSettings(
                limit_start=4, max_in_flight=30, fresh_for_s=0.5, fairness=self.fairness
            )
        )
        self.driver.foretells = True
        self.tickets = [b""]

    @rule(count=st.integers(1, 12), key=KEYS, route=ROUTES, age=AGES, client=st.integers(0, 4))
    def gets(self, count: int, key: bytes, route: bytes, age: float | None, client: int) -> None:
        """Some GETs arrive at once."""
        for number in range(count):
            self.driver.admit(
                Kind.GET,
                b"%s?%d" % (key, number % 3),
                route=route,
                stored=age,
                asker=self.asker(client),
            )

    def asker(self, client: int) -> Asker | None:
        """Return who asks: somebody with a session, with a ticket, a crawler, nobody known."""
        fairness = self.driver.breaker.circuit.fairness
        if fairness is None or not client:
            return None
        session = 100 + client if client == 1 else 0
        ticket = self.tickets[-1] if client == 2 else b""
        if client == 2 and len(self.tickets) < 20:
            asker = Asker(client, ticket=ticket)
            self.tickets.append(fairness.ticket_for(asker, self.driver.now)[0])
        word = "bot" if client == 3 else ""
        return Asker(client, "", session, ISSUED if session else 0, word, ticket)

    @rule(count=st.integers(1, 6))
    def others(self, count: int) -> None:
        """Other methods are forwarded at once, or wait below a known ceiling."""
        for _ in range(count):
            permit = self.driver.admit(Kind.OTHER, route=b"OTHER /", stored=None)
            assert isinstance(permit, Permit)
            paused = self.driver.breaker.circuit.paused_until is not None
            # The driver knows when it waits.
            assert permit.phase is Phase.QUEUED or (not paused and permit.phase is Phase.IN_FLIGHT)
            assert not permit.is_get

    @precondition(lambda self: self.driver.in_flight)
    @rule(count=st.integers(1, 12), pick=PICK, outcome=OUTCOMES)
    def finish(self, count: int, pick: int, outcome: Outcome) -> None:
        """Some of those in flight end."""
        for _ in range(min(count, len(self.driver.in_flight))):
            in_flight = self.driver.in_flight
            self.driver.finish(in_flight[pick % len(in_flight)], outcome)

    @precondition(lambda self: self.driver.in_flight)
    @rule(pick=PICK)
    def first_byte(self, pick: int) -> None:
        """The body begins, and takes its time."""
        in_flight = self.driver.in_flight
        self.driver.breaker.first_byte(self.driver.now, in_flight[pick % len(in_flight)])

    @precondition(lambda self: self.driver.in_flight)
    @rule(pick=PICK)
    def detach(self, pick: int) -> None:
        """One becomes a stream."""
        in_flight = self.driver.in_flight
        self.driver.detach(in_flight[pick % len(in_flight)])

    @precondition(lambda self: self.driver.detached)
    @rule(pick=PICK, outcome=OUTCOMES)
    def stream_ends(self, pick: int, outcome: Outcome) -> None:
        """A stream ends, which teaches nothing."""
        detached = self.driver.detached
        before = self.driver.breaker.snapshot(self.driver.now)
        self.driver.finish(detached[pick % len(detached)], outcome)
        assert self.driver.breaker.snapshot(self.driver.now) == before

    @precondition(lambda self: self.driver.queued or self.driver.held)
    @rule(pick=PICK)
    def client_leaves(self, pick: int) -> None:
        """Someone in the queue, or held, goes."""
        queued = self.driver.queued + self.driver.held
        self.driver.cancel(queued[pick % len(queued)])

    @rule(ticks=st.sampled_from([0, 1, 2, 5, 20, 60]))
    def time_passes(self, ticks: int) -> None:
        """From an instant to some seconds."""
        self.driver.tick(0.0)
        for _ in range(ticks):
            self.driver.tick()

    @rule(mode=st.sampled_from([Mode.AUTO, Mode.AUTO, *Mode]))
    def operator(self, mode: Mode) -> None:
        """The circuit is held, or let go."""
        self.driver.set_mode(mode)

    @rule(seconds=st.sampled_from([0.2, 5.0, 100.0]))
    def pause(self, seconds: float) -> None:
        """Nothing goes upstream for a while."""
        self.driver.pause(seconds)

    @precondition(lambda self: self.driver.breaker.circuit.paused_until is not None)
    @rule()
    def resume(self) -> None:
        """The pause is over before its time."""
        self.driver.resume()

    @invariant()
    def model_agrees(self) -> None:
        """Figures and model are the same."""
        self.driver.check()

    def teardown(self) -> None:
        """When all is over nothing is left, and an idle application is asked again."""
        driver = self.driver
        driver.set_mode(Mode.AUTO)
        driver.resume()
        for permit in [*driver.in_flight, *driver.detached]:
            driver.finish(permit, Outcome.OK)
        driver.run(3.0)
        for permit in [*driver.in_flight, *driver.detached]:
            driver.finish(permit, Outcome.OK)
        driver.check()
        assert not driver.in_flight
        assert not driver.queued
        assert not driver.breaker.circuit.flight.keys
        driver.run(constants.BODY_MAX_S + 6)
        assert not driver.breaker.circuit.flight._due
        decision = driver.admit(Kind.GET, b"/late", route=b"GET /new", stored=1.0)
        assert isinstance(decision, Permit)
        driver.finish(decision, Outcome.OK)


AnyHistory.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestAnyHistory = untraced(AnyHistory.TestCase)


class AnyHistoryInLanes(AnyHistory):
    """The same with lanes."""

    fairness = FairnessMode.ON

    @invariant()
    def lanes_agree(self) -> None:
        """The counts of the lanes are right, and a ticket is in the queue once."""
        breaker = self.driver.breaker
        room = breaker.circuit.room
        assert room.fairness is not None
        assert sum(room.counts) + room.others == room.waiting
        tickets = [permit.ticket for permit in self.driver.queued if permit.ticket >= 0]
        assert len(tickets) == len(set(tickets))
        assert breaker.circuit.fairness is not None
        assert set(tickets) <= breaker.circuit.fairness.tickets._standing


AnyHistoryInLanes.TestCase.settings = AnyHistory.TestCase.settings
TestAnyHistoryInLanes = untraced(AnyHistoryInLanes.TestCase)

# One event: what, a number to pick with, and the time to the next in ticks.
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["get", "without_stored", "other", "ok", "ok", "fail", "error", "detach"]),
        st.integers(1, 15),
        st.integers(0, 40),
    ),
    max_size=40,
)
Event = tuple[str, int, int]


def play(events: list[Event], scale: float = 1.0) -> list[str]:
    """Play a history with all times scaled and return every decision."""
    names = (
        "patience_min_s",
        "patience_max_s",
        "patience_closed_s",
        "queue_wait_s",
        "write_wait_s",
        "retry_after_s",
        "open_min_s",
        "open_max_s",
    )
    plain = BreakerSettings()
    driver = Driver(BreakerSettings(**{name: getattr(plain, name) * scale for name in names}))
    for what, number, ticks in events:
        for index in range(number):
            if what == "get":
                driver.admit(Kind.GET, b"/%d" % index, route=b"GET /%d" % (index % 2))
            elif what == "without_stored":
                driver.admit(Kind.GET, b"/%d" % index, stored=None)
            elif what == "other":
                driver.admit(Kind.OTHER, route=b"OTHER /", stored=None)
            elif driver.in_flight and what == "detach":
                driver.detach(driver.in_flight[0])
            elif driver.in_flight:
                outcome = {"ok": Outcome.OK, "fail": Outcome.OVERLOAD, "error": Outcome.ERROR}
                driver.finish(driver.in_flight[number % len(driver.in_flight)], outcome[what])
        for _ in range(ticks):
            driver.tick(TICK_S * scale)
        driver.check()
    words = [f"{t.before.value}>{t.after.value} {t.cause}" for t in driver.transitions]
    return [line.replace(f"{2.0 * scale} s", "2.0 s") for line in driver.log] + words


@untraced
@given(events=EVENTS)
@settings(max_examples=200, deadline=None)
def test_the_same_events_give_the_same_decisions(events: list[Event]) -> None:
    """There is no clock, no chance and no order of a set in it."""
    assert play(events) == play(events)


@untraced
@replaces_parts
@example(
    events=[*[("get", 1, 0)] * 4, ("get", 12, 0), ("ok", 4, 0), ("fail", 6, 0), ("other", 3, 11)],
    scale=4.0,
)
@given(events=EVENTS, scale=st.sampled_from([0.25, 4.0]))
@settings(max_examples=200, deadline=None)
def test_scaling_all_times_changes_no_decision(events: list[Event], scale: float) -> None:
    """Nothing but ratios of times decides. Powers of two keep floating point exact."""
    changes: dict[str, Any] = {
        name: value * scale for name, value in vars(constants).items() if name.endswith("_S")
    }
    expected = play(events)
    with patch.multiple(constants, **changes):
        assert play(events, scale) == expected


@given(
    times=st.lists(st.sampled_from([0.0, 0.005, 0.05, 0.3, 1.0]), min_size=3, max_size=3),
    arrivals=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), max_size=150),
)
@settings(max_examples=200, deadline=None)
def test_without_a_queue_the_circuit_stays_closed(
    times: list[float], arrivals: list[tuple[int, int]]
) -> None:
    """Constant times up to a second and fewer in flight than the starting limit: for ever."""
    driver = Driver()
    due: list[tuple[float, Permit]] = []
    for route, ticks in arrivals:
        if len(driver.in_flight) < 7:
            decision = driver.admit(Kind.GET, b"/", route=b"GET /%d" % route)
            assert isinstance(decision, Permit)
            assert decision.phase is Phase.IN_FLIGHT
            due.append((driver.now + times[route], decision))
        for _ in range(ticks):
            for at, permit in [entry for entry in due if entry[0] <= driver.now + TICK_S]:
                driver.now = max(driver.now, at)
                driver.finish(permit)
                due.remove((at, permit))
            driver.tick()
        assert driver.breaker.circuit.state is State.CLOSED
    assert not driver.transitions


@given(lost=st.lists(st.sampled_from(["lost", "fail", "gone"]), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_open_always_ends(lost: list[str]) -> None:
    """However probes are lost, the next is granted in time, one a wait, and one success helps."""
    driver = opened()
    granted: list[float] = []
    for what in lost:
        since = driver.now
        permit = next_probe(driver)
        granted.append(driver.now)
        longest_s = driver.settings.open_max_s + driver.settings.patience_max_s
        assert driver.now - since <= longest_s + TICK_S
        if what != "lost":
            driver.finish(permit, Outcome.OVERLOAD if what == "fail" else Outcome.NEUTRAL)
    for earlier, later in pairwise(granted):
        assert later - earlier >= driver.settings.open_min_s - 1e-9
    driver.finish(next_probe(driver), Outcome.OK)
    assert driver.breaker.circuit.state is State.HALF_OPEN


def opened() -> Driver:
    """Return a driver whose circuit has just opened by failures."""
    driver = Driver()
    for number in range(5):
        permit = driver.admit(Kind.GET, b"/%d" % number)
        assert isinstance(permit, Permit)
        driver.finish(permit, Outcome.OVERLOAD)
    assert driver.breaker.circuit.state is State.OPEN
    return driver


def next_probe(driver: Driver) -> Permit:
    """Ask at every tick until a probe is granted."""
    for _ in range(1000):
        decision = driver.admit(Kind.GET, b"/probe")
        if isinstance(decision, Permit):
            assert decision.reason is Reason.PROBE
            return decision
        assert decision.reason is Reason.OPEN
        driver.tick()
    raise AssertionError("no probe for 50 s")


@given(outcomes=st.lists(OUTCOMES, min_size=1, max_size=3), half=st.booleans())
@settings(max_examples=200, deadline=None)
def test_results_of_an_older_generation_change_no_state(
    outcomes: list[Outcome], half: bool
) -> None:
    """Results of requests that were sent before the circuit opened or half-opened do not count."""
    driver = Driver()
    old = [driver.admit(Kind.OTHER, route=b"OTHER /", stored=None) for _ in outcomes]
    for _ in range(5):
        permit = driver.admit(Kind.GET, b"/fails")
        assert isinstance(permit, Permit)
        driver.finish(permit, Outcome.OVERLOAD)
    if half:
        driver.finish(next_probe(driver), Outcome.OK)
    state = driver.breaker.circuit.state
    assert state is (State.HALF_OPEN if half else State.OPEN)
    for permit, outcome in zip(old, outcomes, strict=True):
        assert isinstance(permit, Permit)
        driver.finish(permit, outcome)
        assert driver.breaker.circuit.state is state


@given(load=st.integers(1, 60), stored=st.booleans())
@settings(max_examples=40, deadline=None)
def test_gets_alone_never_exceed_the_cap(load: int, stored: bool) -> None:
    """However many come at once."""
    driver = Driver()
    for number in range(load):
        driver.admit(Kind.GET, b"/%d" % number, stored=1.0 if stored else None)
        assert len(driver.in_flight) <= constants.PACE * driver.settings.limit_start


def test_relief_closes_the_circuit() -> None:
    """Nothing shed for a while and few in flight: CLOSED within a window."""
    driver = Driver(BreakerSettings(max_in_flight=16))
    for number in range(200):
        driver.admit(Kind.GET, b"/%d" % number)
    assert driver.breaker.circuit.state is State.LIMITING
    while driver.in_flight or driver.queued:
        for permit in list(driver.in_flight):
            driver.finish(permit)
        driver.tick()
    b0 = driver.breaker.snapshot(driver.now).baseline_s
    driver.run(max(constants.RELIEF_MIN_S, constants.RELIEF_BASELINES * b0) + 1.0)
    assert driver.breaker.circuit.state is State.CLOSED


def test_shed_objects_are_never_permits() -> None:
    """A refusal is shared by all whom it concerns."""
    driver = opened()
    first, second = driver.admit(Kind.GET, b"/1"), driver.admit(Kind.GET, b"/2")
    assert isinstance(first, Rejection)
    assert first is second
    assert first.count >= 2
