"""The short way of a usual request, `start_at_once` and `finished_whole`, beside the long one."""

import random

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
)
from retter.breaker.breaker import SPARE_MAX
from retter.breaker.endings import leave, succeeded
from retter.breaker.in_flight import KEYS_COUNTED_TICKS, Flight
from tests.support.breaker_driver import TICK_S

# All that is set when a request starts.
STARTED = (
    "phase", "reason", "is_get", "key", "has_stored", "client", "lane", "ticket", "who",
    "first_byte_at", "is_old", "is_judged", "is_slow", "started_at", "generation", "rank",
    "uncongested", "is_cold",
)  # fmt: skip

# All that is kept of clients.
CLIENTS = (
    "_passed", "_failed", "_failed_in_row", "_strangers", "_doubted",
)  # fmt: skip


def learnt_at_once(breaker: CircuitBreaker, now: float, permit: Permit) -> None:
    """Do the work of `finished` for a good answer, without the short way."""
    permit.phase = Phase.DONE
    if permit.first_byte_at >= 0:
        breaker.circuit.counts.in_pieces.add(now - permit.started_at)
    leave(breaker.circuit, now, permit, True)
    succeeded(breaker.circuit, now, permit)
    assert not breaker._ended


class Way:
    """A breaker whose requests go one of the two ways."""

    def __init__(self, settings: BreakerSettings, *, short: bool) -> None:
        self.breaker = CircuitBreaker(settings, 0.0)
        self.short = short
        self.in_flight: list[Permit] = []
        self.shed: list[Reason] = []
        self.shed_at_once = 0

    def begins(
        self, now: float, kind: Kind, route: bytes, key: bytes, age_s: float | None, client: int
    ) -> Permit | None:
        breaker = self.breaker
        permit: Permit | None = None
        if self.short and breaker.unsettled.calm:
            permit = breaker.start_at_once(now, kind, route, key, age_s is not None, client)
        elif self.short and age_s is not None:
            shed = breaker.shed_at_once(now, kind, route)
            if shed is not None:
                assert shed.serve_stored
                self.shed.append(shed.reason)
                self.shed_at_once += 1
                return None
        if permit is None:
            decision = breaker.admit(now, kind, route, key, age_s, client)
            if not isinstance(decision, Permit):
                self.shed.append(decision.reason)
                return None
            permit = decision
            if permit.phase is not Phase.ADMITTED:
                return None
            breaker.started(now, permit)
        self.in_flight.append(permit)
        return permit

    def ends(self, now: float, at: int, outcome: Outcome) -> None:
        permit = self.in_flight.pop(at)
        in_pieces = permit.client == 2
        if in_pieces and permit.phase is Phase.IN_FLIGHT:
            self.breaker.first_byte(now, permit)
        if outcome is not Outcome.OK or permit.phase is not Phase.IN_FLIGHT:
            self.breaker.finished(now, permit, outcome)
        elif not self.short:
            learnt_at_once(self.breaker, now, permit)
        elif in_pieces:
            self.breaker.finished(now, permit, outcome)
        else:
            self.breaker.finished_whole(now, permit)
        if self.breaker.waiting:
            self.start_ready(now)

    def start_ready(self, now: float) -> None:
        for permit in self.breaker.take_ready(now):
            self.breaker.started(now, permit)
            self.in_flight.append(permit)

    def ticks(self, now: float) -> None:
        self.breaker.tick(now)
        self.start_ready(now)


def assert_alike(one: Way, other: Way, now: float) -> None:
    assert one.breaker.snapshot(now) == other.breaker.snapshot(now)
    assert one.shed == other.shed
    assert one.breaker.circuit.limit.shed_at == other.breaker.circuit.limit.shed_at
    assert len(one.in_flight) == len(other.in_flight)
    for mine, its in zip(one.in_flight, other.in_flight, strict=True):
        assert [getattr(mine, name) for name in STARTED] == [getattr(its, name) for name in STARTED]
        assert mine.route.name == its.route.name
        assert (mine.probe is None) is (its.probe is None)
        assert mine.row.first == its.row.first


@pytest.mark.parametrize("seed", range(8))
def test_both_ways_end_in_the_same_state(seed: int) -> None:
    """Whatever comes: in time, late, failed, above the ceiling, over its patience."""
    chance = random.Random(seed)
    settings = BreakerSettings(limit_start=chance.choice((4, 16)))
    short, long = Way(settings, short=True), Way(settings, short=False)
    now, spare_used, states = 0.0, 0, set[State]()
    bad = chance.choice((0.0, 0.02, 0.2))
    for step in range(1500):
        now += chance.choice((0.0, 0.001, 0.01))
        if step % 10 == 0:
            now += chance.choice((0.0, TICK_S, 1.0))
            short.ticks(now)
            long.ticks(now)
        if chance.random() < 0.5:
            asked = (
                now,
                chance.choice((Kind.GET, Kind.GET, Kind.GET, Kind.OTHER)),
                b"GET /%d" % chance.randrange(3),
                b"/%d" % chance.randrange(9),
                chance.choice((None, 1.0)),
                chance.randrange(1, 4),
            )
            spare_used += bool(short.breaker._spare and short.breaker.circuit.calm)
            short.begins(*asked)
            long.begins(*asked)
        elif short.in_flight:
            at = chance.randrange(len(short.in_flight))
            outcome = Outcome.OVERLOAD if chance.random() < bad else Outcome.OK
            short.ends(now, at, outcome)
            long.ends(now, at, outcome)
        assert_alike(short, long, now)
        states.add(short.breaker.circuit.state)
    assert spare_used
    assert len(states) > 1 or not bad


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("paused", [False, True])
def test_both_ways_answer_the_same_from_the_store(mode: Mode, paused: bool) -> None:
    """The application fails, then it recovers: the circuit opens, lets probes go, and closes."""
    chance = random.Random(repr((mode, paused)))
    short, long = (Way(BreakerSettings(), short=short) for short in (True, False))
    for way in (short, long):
        way.breaker.circuit.set_mode(0.0, mode)
        if paused:
            way.breaker.circuit.pause(0.0, 1e6)
    now, states = 0.0, set[State]()
    for step in range(2000):
        now += chance.choice((0.001, 0.01))
        if step % 10 == 0:
            now += chance.choice((TICK_S, 1.0))
            short.ticks(now)
            long.ticks(now)
        if chance.random() < 0.6:
            kind = chance.choice((Kind.GET, Kind.GET, Kind.GET, Kind.OTHER))
            route, age_s = b"GET /%d" % chance.randrange(3), chance.choice((None, 1.0, 1.0))
            asked = (now, kind, route, b"/", age_s, chance.randrange(1, 4))
            short.begins(*asked)
            long.begins(*asked)
        elif short.in_flight:
            at = chance.randrange(len(short.in_flight))
            outcome = Outcome.OVERLOAD if step < 1000 else Outcome.OK
            short.ends(now, at, outcome)
            long.ends(now, at, outcome)
        assert_alike(short, long, now)
        states.add(short.breaker.circuit.state)
    assert bool(short.shed_at_once) is (not paused and mode in (Mode.AUTO, Mode.OPEN))
    assert len(states) > 1 or mode is not Mode.AUTO or paused


@pytest.mark.parametrize("seed", range(8))
def test_answers_are_learnt_together_as_one_by_one(seed: int) -> None:
    """Between two looks at the circuit: some are in time, some late, of routes new and known."""
    chance = random.Random(seed)
    settings = BreakerSettings(limit_start=chance.choice((16, 64)))
    short, long = Way(settings, short=True), Way(settings, short=False)
    now, together = 0.0, 0
    for step in range(4000):
        now += chance.choice((0.0, 0.0001, 0.001))
        if step % 200 == 0:
            now += TICK_S
            short.ticks(now)
            long.ticks(now)
            assert_alike(short, long, now)
            ours, theirs = short.breaker.circuit, long.breaker.circuit
            assert ours.pulse.passed_at == theirs.pulse.passed_at
            assert ours.failures.in_a_row == theirs.failures.in_a_row
            for name in CLIENTS:
                our, their = ours.failures.clients, theirs.failures.clients
                assert getattr(our, name) == getattr(their, name), name
            for mine, its in zip(ours.routes, theirs.routes, strict=True):
                assert mine.passed_at == its.passed_at
                assert mine.baseline.mean_s == its.baseline.mean_s
                assert mine.outcomes.passed == its.outcomes.passed
                assert mine.latency.counts == its.latency.counts
        if len(short.in_flight) < 8 and chance.random() < 0.6:
            kind = chance.choice((Kind.GET, Kind.GET, Kind.OTHER))
            route = b"GET /%d" % chance.randrange(3)
            asked = (now, kind, route, b"/", None, chance.randrange(1, 8))
            short.begins(*asked)
            long.begins(*asked)
        elif short.in_flight:
            bad = chance.random() < 0.002
            together = max(together, len(short.breaker._ended))
            short.ends(now, 0, Outcome.OVERLOAD if bad else Outcome.OK)
            long.ends(now, 0, Outcome.OVERLOAD if bad else Outcome.OK)
    assert together >= 16


def test_a_permit_that_grew_old_is_not_used_again() -> None:
    breaker = CircuitBreaker(BreakerSettings(), 0.0)
    old = breaker.start_at_once(0.0, Kind.GET, b"GET /", b"k", True, 1)
    assert old is not None
    breaker.tick(5.0)
    assert old.is_old
    breaker.finished_whole(5.0, old)
    assert not breaker._spare
    young = breaker.start_at_once(5.0, Kind.GET, b"GET /", b"k", True, 1)
    assert young is not None
    breaker.finished_whole(5.1, young)
    breaker.settle()
    assert breaker._spare == [young]
    assert breaker.start_at_once(5.2, Kind.GET, b"GET /", b"k", True, 1) is young


def known_application() -> CircuitBreaker:
    """A breaker that learns from usual answers together: the cold start is over."""
    breaker = CircuitBreaker(BreakerSettings(), 0.0)
    while breaker.circuit.baseline.cold is not None:
        breaker.finished_whole(0.1, started(breaker, b"k"))
    breaker._spare.clear()
    return breaker


def test_a_permit_of_the_rules_is_not_used_again() -> None:
    breaker = known_application()
    permit = breaker.admit(0.0, Kind.GET, b"GET /", b"k", 1.0)
    assert isinstance(permit, Permit)
    breaker.started(0.0, permit)
    assert not breaker.finished_whole(0.1, permit)
    breaker.settle()
    assert not breaker._spare


def test_a_permit_whose_caller_may_still_read_it_is_not_used_again() -> None:
    breaker = known_application()
    read, other = started(breaker, b"a"), started(breaker, b"b")
    breaker.first_byte(0.05, read)
    breaker.finished(0.1, read, Outcome.OK)
    breaker.finished_whole(0.1, other)
    assert breaker._ended == [read, other]
    breaker.settle()
    assert breaker._spare == [other]


def test_few_permits_are_kept() -> None:
    breaker = CircuitBreaker(BreakerSettings(limit_start=4 * SPARE_MAX), 0.0)
    permits = [
        breaker.start_at_once(0.0, Kind.GET, b"GET /", b"k", True, 1) for _ in range(SPARE_MAX + 9)
    ]
    for permit in permits:
        assert permit is not None
        breaker.finished_whole(0.1, permit)
    breaker.settle()
    assert len(breaker._spare) == SPARE_MAX


def test_an_end_that_is_told_twice_is_a_fault() -> None:
    breaker = CircuitBreaker(BreakerSettings(), 0.0)
    permit = breaker.start_at_once(0.0, Kind.GET, b"GET /", b"k", True, 1)
    assert permit is not None
    breaker.finished_whole(0.1, permit)
    with pytest.raises(AssertionError):
        breaker.finished_whole(0.1, permit)


def started(breaker: CircuitBreaker, key: bytes) -> Permit:
    permit = breaker.start_at_once(0.0, Kind.GET, b"GET /", key, True, 1)
    assert permit is not None
    return permit


def test_keys_are_counted_from_the_first_question_on() -> None:
    breaker = CircuitBreaker(BreakerSettings(), 0.0)
    flight: Flight = breaker.circuit.flight
    first, second, third = started(breaker, b"a"), started(breaker, b"a"), started(breaker, b"b")
    breaker.finished_whole(0.0, third)
    assert flight.counted is None
    assert flight.keys == {b"a": 2}
    breaker.finished_whole(0.0, first)
    other = started(breaker, b"c")
    assert flight.keys == {b"a": 1, b"c": 1}
    breaker.finished(0.0, second, Outcome.NEUTRAL)
    breaker.finished_whole(0.0, other)
    assert flight.keys == {}


def test_keys_are_not_counted_when_nobody_asks_any_more() -> None:
    breaker = CircuitBreaker(BreakerSettings(), 0.0)
    flight = breaker.circuit.flight
    permit = started(breaker, b"a")
    assert flight.keys == {b"a": 1}
    for _ in range(KEYS_COUNTED_TICKS):
        flight.grown_old(-1.0)
        assert flight.counted is not None
    flight.grown_old(-1.0)
    assert flight.counted is None
    breaker.finished_whole(0.0, permit)
    assert flight.keys == {}
