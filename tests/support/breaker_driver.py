"""Drives a CircuitBreaker as the proxy does, and checks what must hold at every step."""

from math import inf, isfinite

from retter.base.errors import Outcome
from retter.base.reason import Reason
from retter.breaker import (
    Asker,
    BreakerSettings,
    CircuitBreaker,
    Kind,
    Mode,
    Permit,
    Phase,
    Rejection,
    State,
    Transition,
    constants,
)

TICK_S = 0.05


# Why a request that can be answered from the store got no place in its short wait.
SHORT_WAITS = (Reason.LIMIT, Reason.OPEN, Reason.HALF_OPEN, Reason.FORCED_OPEN)


class Driver:
    """A naive model beside the controller: plain sets of what is where."""

    def __init__(self, settings: BreakerSettings | None = None, now: float = 0.0) -> None:
        self.now = now
        self.settings = settings or BreakerSettings()
        self.mode = self.settings.mode
        self.transitions: list[Transition] = []
        self.breaker = CircuitBreaker(self.settings, now, self.transitions.append)
        self.in_flight: list[Permit] = []
        self.detached: list[Permit] = []
        self.queued: list[Permit] = []
        self.held: list[Permit] = []  # until the end of a pause
        self.stored_meanwhile = False  # of those without a stored response, all have one by now
        self.foretells = False  # asks `would` before every decision
        self.answered: list[Permit] = []  # by patience
        self.timed_out: list[Permit] = []  # in the queue
        self.probes_since: list[float] = []  # when probes of the open circuit were granted
        self.log: list[str] = []  # every decision, for comparing runs

    # --- what the proxy does ---

    def admit(
        self,
        kind: Kind = Kind.GET,
        key: bytes = b"k",
        *,
        stored: float | None = 1.0,
        route: bytes = b"GET /",
        client: int = 0,
        asker: Asker | None = None,
    ) -> Permit | Rejection:
        """Ask, and start at once what may start."""
        state = self.breaker.circuit.state
        if self.foretells:
            before = self.breaker.snapshot(self.now)
            would = self.breaker.would(self.now, kind, route, key, stored, client, asker)
            assert self.breaker.snapshot(self.now) == before, "to ask changes nothing"
            transitions = len(self.transitions)
        decision = self.breaker.admit(self.now, kind, route, key, stored, client, asker)
        if self.foretells:
            assert type(would) is type(decision)
            assert would.reason is decision.reason
            if isinstance(would, Permit) and isinstance(decision, Permit):
                assert (would.phase, would.probe) == (decision.phase, decision.probe)
            elif isinstance(would, Rejection) and isinstance(decision, Rejection):
                assert would.count == decision.count, "told once"
                assert would.serve_stored == decision.serve_stored
            assert transitions <= len(self.transitions)
        self.log.append(repr(decision))
        if self.breaker.circuit.paused_until is not None:
            if isinstance(decision, Rejection):
                assert decision.reason is Reason.PAUSED
                assert decision.serve_stored == (stored is not None)
                assert stored is not None or len(self.held) == constants.HELD_MAX
            else:
                assert decision.phase is Phase.QUEUED
                self.held.append(decision)
            return decision
        if isinstance(decision, Rejection):
            assert kind is Kind.GET, "other methods are never shed"
            assert decision.serve_stored == (stored is not None)
            assert self.mode is not Mode.CLOSED
            assert self.mode is not Mode.OBSERVE
            return decision
        if decision.phase is Phase.QUEUED:
            if kind is not Kind.GET:
                assert self.breaker.circuit.limit.in_flight >= self.breaker.circuit.full_at or any(
                    not permit.is_get for permit in self.queued
                ), "other methods wait at a known ceiling or with all of a part alone"
            self.queued.append(decision)
            return decision
        assert decision.phase is Phase.ADMITTED
        if decision.reason is Reason.PROBE:
            if state is State.OPEN:
                self.probes_since.append(self.now)
        elif kind is Kind.GET and self.mode in (Mode.AUTO, Mode.OPEN):
            # One more than the ceiling is a trial.
            room = self.breaker.circuit.cap + (
                stored is not None and self.breaker.circuit.table.ceiling < inf
            )
            assert self.breaker.circuit.limit.load < room, "admitted above the cap"
        self.start(decision)
        return decision

    def start(self, permit: Permit) -> None:
        """It goes upstream."""
        self.breaker.started(self.now, permit)
        self.in_flight.append(permit)

    def finish(self, permit: Permit, outcome: Outcome = Outcome.OK) -> None:
        """It ends, and whoever waited may start."""
        if outcome not in (Outcome.OVERLOAD, Outcome.REFUSED) and permit.first_byte_at < 0:
            self.breaker.first_byte(self.now, permit)
        (self.in_flight if permit in self.in_flight else self.detached).remove(permit)
        self.breaker.finished(self.now, permit, outcome)
        self.start_ready()

    def detach(self, permit: Permit) -> None:
        """It turned out to be a stream."""
        self.breaker.detach(self.now, permit)
        self.in_flight.remove(permit)
        self.detached.append(permit)
        self.start_ready()

    def cancel(self, permit: Permit) -> None:
        """The client of one in the queue left."""
        self.breaker.cancel(permit)
        (self.queued if permit in self.queued else self.held).remove(permit)
        assert permit.phase is Phase.DONE

    def start_ready(self) -> None:
        """Start whoever waited long enough."""
        if not self.breaker.waiting:
            return
        breaker = self.breaker
        load, cap, ceiling = (
            breaker.circuit.limit.load,
            breaker.circuit.cap,
            breaker.circuit.table.ceiling,
        )
        released_before = self.released
        ready = breaker.take_ready(self.now)
        if breaker.circuit.paused_until is not None:
            assert not ready
            return
        # Those released go whatever the load: other methods, probes, and who waited for the pace.
        released = [permit for permit in ready if permit in released_before]
        rest = ready[len(released) :]
        assert rest == [permit for permit in ready if permit not in released_before]
        if rest and self.mode is not Mode.OBSERVE:
            others_in = len(self.in_flight) + len(ready) - 1
            assert load + len(ready) - 1 < cap if rest[-1].is_get else others_in < ceiling
        line = [permit for permit in self.queued if permit not in released_before]
        others = [permit for permit in line if not permit.is_get]
        without_stored = [permit for permit in line if permit.is_get and not permit.has_stored]
        with_stored = [permit for permit in line if permit.has_stored]
        if rest and rest[0].is_get:
            others = []
        if breaker.circuit.room.fairness is None:  # the order of lanes is looked at elsewhere
            due = others + without_stored + with_stored
            assert rest == due[: len(rest)], "first come, first served"
        left = False
        for permit in ready:
            self.queued.remove(permit)
            self.log.append(f"ready {permit!r}")
            reason = breaker.decide_again(self.now, permit, lambda: self.stored_meanwhile)
            if reason is None:
                self.start(permit)
                continue
            left = True
            assert permit.phase is Phase.DONE
            assert permit.is_get
            assert not permit.has_stored
            assert breaker.waiting, "the place is for somebody"
            assert breaker.circuit.state is not State.CLOSED
            if self.stored_meanwhile:
                assert reason is Reason.SINGLE_FLIGHT
            else:
                assert reason is Reason.QUEUE_TIMEOUT
                answer_s = constants.ANSWER_BASELINES * breaker.snapshot(self.now).baseline_s
                late_s = self.now - permit.queued_at + answer_s - self.settings.queue_wait_s
                assert late_s > -1e-9, "the answer would have come in time"
            self.timed_out.append(permit)
        if left:
            self.start_ready()

    @property
    def released(self) -> list[Permit]:
        """Those who have waited long enough, place or not."""
        return list(self.breaker.circuit.room._released)

    def tick(self, dt: float = TICK_S) -> None:
        """Let time go on by one tick."""
        self.now += dt
        paused = self.breaker.circuit.paused_until is not None
        answered = self.breaker.tick(self.now)
        if paused and self.breaker.circuit.paused_until is None:
            self.let_go()
        for permit in answered:
            self.log.append(f"tick {permit!r}")
            if permit.reason is Reason.PAUSED:
                assert permit.queued_at + constants.HELD_S_MAX <= self.now
                self.held.remove(permit)
                self.timed_out.append(permit)
            elif permit.phase is Phase.DONE:
                assert (permit.reason is Reason.QUEUE_TIMEOUT) is not permit.has_stored
                assert not permit.has_stored or permit.reason in SHORT_WAITS
                assert permit.is_get, "other methods are forwarded at last"
                waited_s = self.now - permit.queued_at
                assert permit.has_stored or waited_s >= self.settings.queue_wait_s
                self.queued.remove(permit)
                self.timed_out.append(permit)
            else:
                assert permit.reason is Reason.PATIENCE
                assert permit.has_stored
                assert permit in self.in_flight
                assert permit not in self.answered, "patience is lost once"
                assert permit.first_byte_at < 0
                assert self.now - permit.started_at >= self.settings.patience_min_s
                assert self.mode is not Mode.OBSERVE
                self.answered.append(permit)
        for permit in [permit for permit in self.in_flight if permit.phase is Phase.DETACHED]:
            assert self.now - permit.first_byte_at >= constants.BODY_MAX_S
            self.in_flight.remove(permit)
            self.detached.append(permit)
        self.start_ready()
        if self.breaker.circuit.paused_until is None:
            for permit in self.queued:
                longest_s = (
                    self.settings.queue_wait_s if permit.is_get else self.settings.write_wait_s
                )
                since = self.now - longest_s  # rounded as the controller does it
                assert permit.queued_at > since, "nobody waits longer, but a tick"

    def run(self, seconds: float) -> None:
        """Let time go on, tick by tick."""
        for _ in range(round(seconds / TICK_S)):
            self.tick()

    def set_mode(self, mode: Mode) -> None:
        """The operator speaks."""
        self.mode = mode
        self.breaker.circuit.set_mode(self.now, mode)
        self.start_ready()

    def pause(self, seconds: float) -> None:
        """The operator lets nothing through."""
        self.breaker.circuit.pause(self.now, self.now + seconds)
        moved = [permit for permit in self.queued if not permit.has_stored]
        self.held += moved
        self.queued = [permit for permit in self.queued if permit not in moved]

    def resume(self) -> None:
        """The pause is over."""
        assert self.breaker.circuit.resume(self.now) == len(self.held)
        self.let_go()
        self.start_ready()

    def let_go(self) -> None:
        """Those held go to the end of the queue."""
        self.queued += self.held
        self.held.clear()

    # --- what must hold ---

    def check(self) -> None:
        """Compare the figures with the model."""
        figures = self.breaker.snapshot(self.now)
        assert figures.in_flight == len(self.in_flight)
        assert all(permit.phase is Phase.IN_FLIGHT for permit in self.in_flight)
        assert figures.waiting == len(self.queued)
        assert figures.held == len(self.held)
        assert self.breaker.waiting == len(self.queued) + len(self.held)
        assert all(permit.phase is Phase.QUEUED for permit in self.held)
        assert figures.waiting_without_stored == sum(not p.has_stored for p in self.queued)
        old = sum(permit.is_slow and not permit.is_get for permit in self.in_flight)
        assert figures.old_others == old
        load = figures.in_flight - max(0.0, old - constants.OLD_OTHERS_SHARE * figures.limit)
        assert abs(figures.load - load) < 1e-9
        keys = self.breaker.circuit.flight.keys
        assert sum(keys.values()) == sum(permit.is_get for permit in self.in_flight)
        assert all(count > 0 for count in keys.values())
        assert figures.limit >= min(constants.RAMP_START, self.settings.limit_start)
        assert figures.ceiling >= constants.SPARE + 1
        for value in (
            figures.limit,
            figures.work_rate,
            figures.baseline_s,
        ):
            assert isfinite(value)
            assert value >= 0
        assert figures.routes <= constants.ROUTES_MAX
        # One a wait, and none counts for longer than its patience.
        probes_max = 1 + self.settings.patience_max_s / self.settings.open_min_s
        opening = self.breaker.circuit.opening
        probes = [
            one
            for one in self.in_flight
            if one.probe is opening and not one.is_slow and one.first_byte_at < 0
        ]
        assert len(probes) <= probes_max
        assert figures.state is self.breaker.circuit.state
        if self.settings.max_in_flight and self.mode is not Mode.CLOSED:
            assert figures.cap <= self.settings.max_in_flight
        if self.mode is Mode.OPEN:
            assert figures.state is State.OPEN
        if self.mode is Mode.CLOSED:
            assert figures.state is State.CLOSED
