"""Properties of any history of several workers that start, work, freeze, die and come back."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from retter.base.errors import Outcome
from retter.breaker import Asker, BreakerSettings, FairnessMode, Kind, Mode, State
from retter.judgement.breaker import SILENT_S
from tests.support.crew import TICK_S, Crew
from tests.support.tracing import untraced

WORKERS = 3
WORKER = st.integers(0, WORKERS - 1)
PICK = st.integers(0, 10_000)
OUTCOMES = st.sampled_from(
    [Outcome.OK, Outcome.OK, Outcome.OK, Outcome.OVERLOAD, Outcome.ERROR, Outcome.REFUSED]
)
ROUTES = st.sampled_from([b"GET /", b"GET /list", b"GET /item/*"])
AGES = st.sampled_from([None, 0.0, 100.0])


class AnyCrew(RuleBasedStateMachine):
    """Requests come to any worker; workers freeze, die and come back; operators interfere."""

    fairness = FairnessMode.OFF

    def __init__(self) -> None:
        super().__init__()
        self.crew = Crew(WORKERS, self.given())
        self.crew.settle()

    def given(self) -> BreakerSettings:
        """Few places, so that they are taken."""
        return BreakerSettings(limit_start=4, max_in_flight=12, fairness=self.fairness)

    def one_of(self, pick: int) -> int:
        """Choose a worker that lives."""
        return self.crew.alive[pick % len(self.crew.alive)]

    @precondition(lambda self: self.crew.alive)
    @rule(pick=PICK, count=st.integers(1, 8), route=ROUTES, age=AGES, client=st.integers(0, 3))
    def gets(self, pick: int, count: int, route: bytes, age: float | None, client: int) -> None:
        """Some GETs arrive at once."""
        index = self.one_of(pick)
        asker = None
        if self.crew[index].breaker.circuit.fairness is not None:
            asker = Asker(client, crawler="bot" if client == 3 else "")
        for number in range(count):
            self.crew.admit(
                index, key=b"/%d" % number, stored=age, route=route, client=client, asker=asker
            )

    @precondition(lambda self: self.crew.alive)
    @rule(pick=PICK, count=st.integers(1, 4))
    def others(self, pick: int, count: int) -> None:
        """Some requests of other methods arrive."""
        for _ in range(count):
            self.crew.admit(self.one_of(pick), Kind.OTHER, route=b"OTHER /", stored=None)

    @precondition(lambda self: self.crew.alive)
    @rule(pick=PICK, count=st.integers(1, 10), outcome=OUTCOMES)
    def finish(self, pick: int, count: int, outcome: Outcome) -> None:
        """Some requests of a worker end."""
        index = self.one_of(pick)
        for _ in range(min(count, len(self.crew[index].in_flight))):
            in_flight = self.crew[index].in_flight
            if in_flight:
                self.crew.finish(index, in_flight[pick % len(in_flight)], outcome)

    @precondition(lambda self: self.crew.alive)
    @rule(pick=PICK)
    def detach(self, pick: int) -> None:
        """One becomes a stream."""
        index = self.one_of(pick)
        if in_flight := self.crew[index].in_flight:
            self.crew.detach(index, in_flight[pick % len(in_flight)])

    @rule(ticks=st.integers(1, 30))
    def time_passes(self, ticks: int) -> None:
        """All workers tick."""
        self.crew.run(ticks * TICK_S)

    @precondition(lambda self: len(self.crew.alive) > 1)
    @rule(pick=PICK, ticks=st.integers(1, 40))
    def freeze(self, pick: int, ticks: int) -> None:
        """One worker does not run for a while, and the others do."""
        frozen = self.one_of(pick)
        for _ in range(ticks):
            self.crew.tick(*[index for index in self.crew.alive if index != frozen])

    @precondition(lambda self: len(self.crew.alive) > 1)
    @rule(pick=PICK, noticed=st.booleans())
    def kill(self, pick: int, noticed: bool) -> None:
        """A worker ends in the middle of its work."""
        self.crew.kill(self.one_of(pick), noticed=noticed)

    @rule(index=WORKER)
    def come_back(self, index: int) -> None:
        """Another process follows a dead worker."""
        if index not in self.crew.alive:
            self.crew.begin(index)

    @precondition(lambda self: self.crew.alive)
    @rule(pick=PICK, mode=st.sampled_from(list(Mode)))
    def order(self, pick: int, mode: Mode) -> None:
        """An operator speaks to one worker, and all obey."""
        self.crew[self.one_of(pick)].breaker.circuit.set_mode(self.crew.now, mode)
        self.crew.tick()
        self.crew.settle()
        modes = {self.crew[index].breaker.circuit.mode for index in self.crew.alive}
        assert modes == {mode}

    @invariant()
    def what_must_hold(self) -> None:
        """At any moment, and once all have seen each other."""
        self.crew.check()

    def teardown(self) -> None:
        """When all is over, one leads, all agree, and nothing is in flight anywhere."""
        crew = self.crew
        for index in range(WORKERS):
            if index not in crew.alive:
                crew.begin(index)
        crew.settle()
        assert len(crew.states()) == 1
        for index in crew.alive:
            for permit in list(crew[index].in_flight):
                crew.finish(index, permit, Outcome.NEUTRAL)
        crew.run(crew.settings.queue_wait_s + crew.settings.write_wait_s + SILENT_S)
        for index in crew.alive:
            for permit in list(crew[index].in_flight):
                crew.finish(index, permit, Outcome.NEUTRAL)
        crew.settle()
        for index in crew.alive:
            limit = crew[index].breaker.circuit.limit
            assert (limit.in_flight, limit.old_others) == (0, 0)
            assert limit.load == 0
        crew.check()


class AnyFairCrew(AnyCrew):
    """The same with lanes."""

    fairness = FairnessMode.ON


_LIMITS = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestAnyCrew = untraced(AnyCrew.TestCase)
TestAnyCrew.settings = _LIMITS
TestAnyFairCrew = untraced(AnyFairCrew.TestCase)
TestAnyFairCrew.settings = _LIMITS


STEPS = st.lists(
    st.tuples(st.sampled_from(["get", "post", "finish", "fail", "tick"]), WORKER, PICK), max_size=60
)


@settings(max_examples=25, deadline=None)
@given(STEPS)
def test_the_same_events_give_the_same_decisions(steps: list[tuple[str, int, int]]) -> None:
    """Nothing depends on the clock on the wall or on chance."""
    logs = []
    for _ in range(2):
        crew = Crew(WORKERS, BreakerSettings(limit_start=2))
        crew.settle()
        for what, index, pick in steps:
            in_flight = crew[index].in_flight
            if what == "get":
                crew.admit(index, key=b"%d" % (pick % 5))
            elif what == "post":
                crew.admit(index, Kind.OTHER, stored=None)
            elif what == "tick":
                crew.tick(index)
            elif in_flight:
                outcome = Outcome.OK if what == "finish" else Outcome.OVERLOAD
                crew.finish(index, in_flight[pick % len(in_flight)], outcome)
        crew.settle()
        logs.append((crew.log, crew.states(), [repr(one) for one in crew.transitions]))
        assert crew.states() <= set(State)
    assert logs[0] == logs[1]
