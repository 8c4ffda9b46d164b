"""The controller: for every GET, forward it now, let it wait, or answer without the application.

What is decided stands in decide.py; here it is carried out, and what becomes of the request is
taken in. `admit`, `started`, `first_byte` and `finished` take constant time; what needs a look at
many requests happens on the `tick` (sweep.py).
"""

from bisect import bisect_left
from collections.abc import Iterator
from math import inf
from typing import Final

from retter.base.counters import LATENCY_BOUNDS_S, Histogram
from retter.base.errors import Outcome
from retter.base.reason import Reason
from retter.breaker import constants, report, sweep
from retter.breaker.circuit import Circuit
from retter.breaker.decide import PAUSED, Action, Decision, decide
from retter.breaker.demand import NOBODY
from retter.breaker.fairness import NOT_SORTED, Asker, Sorted
from retter.breaker.mode import Mode
from retter.breaker.opening import Opening
from retter.breaker.permit import (
    STRANGER,
    UNSORTED,
    Kind,
    Permit,
    Phase,
    Rejection,
)
from retter.breaker.routes import Route
from retter.breaker.snapshot import Snapshot
from retter.breaker.states import Signal, State

# Members of an enum, looked up once: the functions below run for every request.
_OTHER: Final = Kind.OTHER
_QUEUED: Final = Phase.QUEUED
_ADMITTED: Final = Phase.ADMITTED
_IN_FLIGHT: Final = Phase.IN_FLIGHT
_DETACHED: Final = Phase.DETACHED
_HELD: Final = Phase.HELD
_DONE: Final = Phase.DONE
_CLOSED: Final = State.CLOSED
_LIMITING: Final = State.LIMITING
_OPEN: Final = State.OPEN
_HALF_OPEN: Final = State.HALF_OPEN
_OK: Final = Outcome.OK
_OBSERVE: Final = Mode.OBSERVE
_NEUTRAL: Final = Outcome.NEUTRAL
_IS_ADMITTED: Final = Reason.ADMITTED
_SHED: Final = Action.REJECT


class CircuitBreaker(Circuit):
    """Decides about every request; see `retter.breaker` for the rules of its use.

    For each permit: `started` at once when it is ADMITTED, `first_byte` if there is one, `finished`
    exactly once. After every `finished`, `detach` and `tick`, whoever `take_ready` returns starts.
    """

    __slots__ = ()

    # --- the decision, carried out ---

    def admit(
        self,
        now: float,
        kind: Kind,
        route: bytes,
        key: bytes,
        stored_age_s: float | None,
        client: int = 0,
        asker: Asker | None = None,
    ) -> Permit | Rejection:
        """Decide about one request.

        `stored_age_s` is the age of the stored response that may be used to shed it, None if
        there is none. `client` is a number that tells clients apart, 0 if that is not possible.
        `asker` says more of who asks; it is needed if `wants_asker`. A permit is ADMITTED, and
        started at once, or QUEUED or HELD.
        """
        its_route = self.routes.get(route, now)
        if self.fast_path and self.limit.load < self.calm and its_route.opening is None:
            return Permit(
                _ADMITTED, _IS_ADMITTED, kind is not _OTHER, its_route, key,
                stored_age_s is not None, client,
            )  # fmt: skip
        is_get, has_stored = kind is not _OTHER, stored_age_s is not None
        place, lane = NOT_SORTED, STRANGER
        if asker is not None:
            place = self._sort(now, asker, its_route)
            if place.lane != UNSORTED:
                lane = place.lane
        decision = decide(self, now, is_get, its_route, key, stored_age_s, client, lane)
        made: Permit | Rejection
        if decision.action is _SHED:
            made = self._shed(now, decision, is_get, its_route, key, has_stored, client)
        else:
            made = self._permit(now, decision, is_get, its_route, key, has_stored, client, place)
        if asker is not None and place.lane == UNSORTED and isinstance(made, Permit):
            made.who = asker
        return made

    def expected_wait_s(self, lane: int) -> float:
        """Return how long a GET without a stored response would wait in that lane."""
        ahead = self.room.ahead(lane, has_stored=False)
        return ahead * self.baseline.mean_s / max(1.0, self.limit.work_rate)

    def wants_asker(self, has_stored: bool) -> bool:
        """Whether it matters who asks.

        It does not while the application has little to do. Nor does it for a request with a stored
        response while the circuit is OPEN: nobody has a place to give away, and to find out who
        asks would make the stored response dearer by a half (1,235 instructions instead of 841).
        """
        if self.fast_path:
            return self.limit.load >= self.calm
        return not (has_stored and self.state is _OPEN)

    def _sort(self, now: float, asker: Asker, route: Route) -> Sorted:
        fairness = self.fairness
        if fairness is None:
            return NOT_SORTED
        if self.state is _CLOSED:
            return fairness.note(asker, self.expected_s(route), now)
        return fairness.sort(asker, self.expected_s(route), now)

    def probe(self, now: float, route: bytes, key: bytes) -> Permit | None:
        """Admit a request of our own, if one is wanted (`probe_wanted`): a GET for no client."""
        if not self.probe_wanted(now):
            return None
        its_route = self.routes.get(route, now)
        permit = Permit(_ADMITTED, Reason.PROBE, True, its_route, key, False, 0)
        if self.state is _OPEN:
            self.send_probe(now, permit, self.opening)
        else:
            self.was_asked(now)
        return permit

    def would(
        self,
        now: float,
        kind: Kind,
        route: bytes,
        key: bytes,
        stored_age_s: float | None,
        client: int = 0,
        asker: Asker | None = None,
    ) -> Permit | Rejection:
        """Return what `admit` would, and change nothing. The permit is good for reading alone."""
        its_route = self.routes.peek(route, now)
        is_get = kind is not _OTHER
        has_stored = stored_age_s is not None
        place = NOT_SORTED
        if asker is not None and self.fairness is not None and self.state is not _CLOSED:
            place = self.fairness.place_of(asker, now, self.expected_s(its_route))
        lane = STRANGER if place.lane == UNSORTED else place.lane
        decision = decide(self, now, is_get, its_route, key, stored_age_s, client, lane)
        action, reason = decision.action, decision.reason
        if action is Action.REJECT:
            if self.mode is not _OBSERVE or decision is PAUSED:
                rejections = self.rejections
                return (rejections.stored if has_stored else rejections.rejects)[decision.rejection]
            reason = _IS_ADMITTED
        permit = Permit(_ADMITTED, reason, is_get, its_route, key, has_stored, 0)
        permit.lane, permit.asker, permit.ticket, permit.since = place
        if action is Action.HOLD:
            permit.phase = _HELD
        elif action is Action.WAIT:
            permit.phase = _ADMITTED if self.mode is _OBSERVE else _QUEUED
        elif action is Action.PROBE:
            permit.probe = self._probed(its_route)
        return permit

    def _shed(
        self,
        now: float,
        decision: Decision,
        is_get: bool,
        route: Route,
        key: bytes,
        has_stored: bool,
        client: int,
    ) -> Permit | Rejection:
        """Answer without the application, unless we only observe."""
        if decision.limits:
            self.fire(now, Signal.NO_PERMITS)
        if decision.for_lack_of_a_place:
            self.limit.shed_at = now
        if self.mode is not _OBSERVE or decision is PAUSED:
            rejections = self.rejections
            shed = (rejections.stored if has_stored else rejections.rejects)[decision.rejection]
            if self.paused_until is not None:
                shed.retry_after_s = max(1.0, self.paused_until - now)
            shed.count += 1
            return shed
        if has_stored:
            self.counts.would_shed += 1
        else:
            self.counts.would_reject += 1
        return Permit(_ADMITTED, _IS_ADMITTED, is_get, route, key, has_stored, client)

    def _permit(
        self,
        now: float,
        decision: Decision,
        is_get: bool,
        route: Route,
        key: bytes,
        has_stored: bool,
        client: int,
        place: Sorted,
    ) -> Permit:
        """Let a request through: now or later, as a probe or as any other."""
        action = decision.action
        if decision.limits:
            self.fire(now, Signal.NO_PERMITS)
        permit = Permit(_ADMITTED, decision.reason, is_get, route, key, has_stored, client)
        permit.lane, permit.asker, permit.ticket, permit.since = place
        if action is Action.FORWARD:
            pass
        elif action is Action.HOLD:
            self.room.hold(permit, now)
        elif action is Action.PROBE:
            self.send_probe(now, permit, self._probed(route))
        elif action is Action.TRIAL:
            self.counts.trials += 1
            self.table.trial_at = now + constants.TRIAL_S
        else:
            self._enqueue(now, permit)
        if permit.phase is _ADMITTED:
            self._note_place(now, permit)
        return permit

    def _probed(self, route: Route) -> Opening:
        """Return what a probe is to find the end of."""
        return self.opening if self.state is _OPEN or route.opening is None else route.opening

    def _note_place(self, now: float, permit: Permit) -> None:
        fairness = self.fairness
        if fairness is not None and (permit.lane != UNSORTED or permit.asker != NOBODY):
            fairness.admitted(permit, self.expected_s(permit.route), now)

    def _enqueue(self, now: float, permit: Permit) -> None:
        if self.state is not _CLOSED and not permit.has_stored:
            self.limit.shed_at = now
        if self.mode is _OBSERVE:
            self.counts.would_queue += 1
        else:
            self.counts.queued += 1
            self.room.add(permit, now)

    def take_ready(self, now: float) -> list[Permit]:
        """Return those who waited long enough: there is a place, and they start at once."""
        room = self.room
        if self.paused_until is not None:
            return []
        ready = room.take_released()
        limit = self.limit
        if room.others:
            ceiling = inf if self.mode is _OBSERVE else self.table.ceiling
            while limit.in_flight + len(ready) < ceiling:
                if (permit := room.next_other()) is None:
                    break
                ready.append(permit)
        cap = inf if self.mode is _OBSERVE else self.cap
        while limit.load + len(ready) < cap and (permit := room.next_get()) is not None:
            ready.append(permit)
        for permit in ready:
            self._note_place(now, permit)
        return ready

    def cancel(self, now: float, permit: Permit) -> None:
        """The client left before its request went upstream."""
        if permit.phase is _QUEUED or permit.phase is _HELD:
            self.room.cancel(permit)
            return
        assert permit.phase is _ADMITTED, f"{permit} cannot be cancelled"
        permit.phase = _DONE
        self.give_probe_back(permit)

    # --- the life of a permit ---

    def started(self, now: float, permit: Permit) -> None:
        """The request goes upstream: its connection is attempted or its head written."""
        assert permit.phase is _ADMITTED, f"{permit} cannot start"
        limit = self.limit
        permit.phase = _IN_FLIGHT
        permit.started_at = now
        permit.generation = self.generation
        limit.load += 1
        rank = permit.rank = limit.in_flight = limit.in_flight + 1
        by_rank = self.table.by_rank
        permit.row = by_rank[rank] if rank < len(by_rank) else by_rank[-1]
        # The first one alone is uncongested whatever the limit.
        permit.uncongested = rank <= constants.UNCONGESTED_RATIO * limit.limit or rank == 1
        cold = self.baseline.cold
        if cold is None or rank > constants.SMALL:
            permit.is_cold = False
        else:
            permit.is_cold = True
            cold.enter(now)
        self.flight.enter(permit)

    def first_byte(self, now: float, permit: Permit) -> None:
        """The first byte of the answer is here: its patience is not needed any more."""
        permit.first_byte_at = now
        self.counts.first_bytes.add(now - permit.started_at)
        if permit.is_old and permit.phase is _IN_FLIGHT:
            self.flight.look_at(permit, now + constants.BODY_MAX_S)

    def finished(self, now: float, permit: Permit, outcome: Outcome) -> None:
        """The answer is complete, or there will be none. Exactly once for every started permit."""
        if permit.phase is _DETACHED:
            permit.phase = _DONE
            return
        assert permit.phase is _IN_FLIGHT, f"{permit} cannot finish"
        permit.phase = _DONE
        if outcome is _OK:
            self.leave(now, permit, True)
            self._succeeded(now, permit)
            return
        self.leave(now, permit, False)
        if outcome is _NEUTRAL:
            self.give_probe_back(permit)
        else:
            self._failed(now, permit, refused=outcome is Outcome.REFUSED)

    # --- what an outcome teaches ---

    def _succeeded(self, now: float, permit: Permit) -> None:
        took_s = now - permit.started_at
        route = permit.route
        limit = self.limit
        # With every answer, so its parts are here and not a call away: a twentieth of the whole.
        baseline = route.baseline
        known = baseline.samples >= constants.ROUTE_SAMPLES_MIN
        expected_s = baseline.mean_s if known else self.baseline.mean_s
        latency = route.latency
        bucket = bisect_left(LATENCY_BOUNDS_S, took_s)  # Histogram.add, and once for both
        latency.counts[bucket] += 1
        latency.total += took_s
        if permit.first_byte_at >= 0:
            in_pieces = self.counts.in_pieces
            in_pieces.counts[bucket] += 1
            in_pieces.total += took_s
        limit.completions += 1
        limit.work_s += expected_s
        if known and took_s <= constants.LATE_BASELINES * expected_s + constants.LATE_SLACK_S:
            if not permit.is_judged:
                permit.row.in_time += 1
        else:
            self._late(now, permit, took_s)
        self.passed_at = route.passed_at = now
        if permit.uncongested:
            self._learn(now, route, took_s)
        if permit.rank > self.table.ceiling:
            self.table.passed_above_ceiling(now, permit.rank)
            self.set_cap()
        if permit.probe is not None or route.opening is not None:
            self._probe_passed(now, permit)
        elif permit.generation == self.generation:
            if not permit.is_slow:
                route.outcomes.passed += 1
            failures = self.failures
            failures.recent.passed += 1
            if failures.in_a_row:
                failures.end_row()
            failures.clients.passed(permit.client, now)
            if self.state is _HALF_OPEN:
                self._climb(now)
            elif self.state is _OPEN and not permit.is_get:
                self.fire(now, Signal.PROBE_PASSED)

    def _late(self, now: float, permit: Permit, took_s: float) -> None:
        """Take in an answer that is late, or of a route of which little is known.

        Nothing is late for a queue if the application paused: who was in flight when it went on
        says nothing.
        """
        route = permit.route
        if took_s <= self.late_after_s(route):
            permit.row.in_time += not permit.is_judged
        elif now - self.passed_at > (silence_s := sweep.silence_s(self)) and took_s > silence_s:
            self.woke_at = now
        elif not permit.is_judged and permit.started_at >= self.woke_at:
            permit.row.late += 1
        if route.first_answers.samples < constants.ROUTE_SAMPLES_MIN:
            route.first_answers.add(took_s, 0.0)

    def _learn(self, now: float, route: Route, took_s: float) -> None:
        limiting = self.state is _LIMITING
        weight = constants.BASELINE_WEIGHT_LIMITING if limiting else constants.BASELINE_WEIGHT
        route.baseline.add(took_s, weight)
        if self.baseline.cold is None:
            self.baseline.add(took_s, weight)
        if limiting and self.dips.sample(now, self.baseline.mean_s):
            self.limit.restart_window(now)
            self.set_cap()

    def _climb(self, now: float) -> None:
        """Half-open: every success makes room for one more, so the ramp doubles a round trip."""
        self.was_asked(now)
        self.ramp += 1
        self.set_cap()
        if self.ramp >= constants.RAMP_START + constants.RAMP_SUCCESSES:
            self.fire(now, Signal.TRIALS_PASSED)

    def _failed(self, now: float, permit: Permit, *, refused: bool) -> None:
        route, failures = permit.route, self.failures
        route.errors += 1
        counts = failures.clients.failed(permit.client, now) or refused
        if permit.probe is not None or route.opening is not None:
            if not counts:
                self.give_probe_back(permit)
            elif permit.probe is not None and not permit.is_slow:
                permit.probe.failed(now, refused=refused)
            return
        if permit.generation != self.generation or not counts:
            return
        permit.row.failed += 1
        agreed = refused or failures.clients.agree(now)
        if failures.refused_in_a_row + refused < constants.REFUSALS_IN_A_ROW:
            if permit.rank > self.table.ceiling:
                self.table.failed_above_ceiling()
                return  # it stands above the ceiling: that is explained
            if self.state is not _OPEN and agreed and self.table.read_ceiling():
                self._ceiling_lowered(now)
                return
        failures.failed(route, refused=refused)
        if not permit.is_slow:
            route.outcomes.failed += 1
        if self.state is _HALF_OPEN:
            if not failures.clients.is_doubted(permit.client, now):
                self.fire(now, Signal.TRIAL_FAILED)
        elif self.state is not _OPEN and agreed:
            self._judge_failures(now, route)

    def _ceiling_lowered(self, now: float) -> None:
        self.table.trial_at = now + constants.TRIAL_S
        self.failures.clear()  # they are explained
        self.set_cap()
        if self.state is _CLOSED:
            self.fire(now, Signal.OVERLOADED)

    def _judge_failures(self, now: float, route: Route) -> None:
        failures = self.failures
        if failures.nobody_listens:
            self.fire(now, Signal.FAILING)
        elif failures.fails_alone(route, self.routes, now):
            self.open_route(now, route)
        elif failures.many(self.settings):
            self.fire(now, Signal.FAILING)

    def _probe_passed(self, now: float, permit: Permit) -> None:
        self.give_probe_back(permit)
        route = permit.route
        if permit.probe is self.opening:
            if self.state is _OPEN:
                self.fire(now, Signal.PROBE_PASSED)
        # Other methods need no probe: they always go.
        elif (permit.probe is route.opening and not permit.is_slow) or not permit.is_get:
            route.close()

    # --- the tick ---

    def tick(self, now: float) -> list[Permit]:
        """Do what is due; called every 50 ms.

        Returns the permits whose holder must answer: those whose queue wait expired (DONE, reason
        QUEUE_TIMEOUT or PAUSED: the stored response or 503) and those in flight whose patience is
        over (IN_FLIGHT, reason PATIENCE: the stored response; `finished` is still to come).
        """
        return sweep.tick(self, now)

    # --- what operators see ---

    @property
    def waiting(self) -> int:
        """How many are queued: look at `take_ready` only if there are any."""
        return self.room.waiting

    def all_waiting(self) -> list[Permit]:
        """Return the permits of all that are queued, or held by a pause."""
        return self.room.all_waiting()

    def patience_of(self, route: bytes) -> float:
        """Return for how many seconds a GET of that route would now be waited for."""
        known = self.routes.peek(route, 0.0)
        if self.state is _CLOSED and not known.is_open:
            return self.closed_patience_s(known)
        return self.patience_s(known)

    def all_routes(self) -> Iterator[Route]:
        """Yield every route, and at last the one for all that have no place of their own."""
        return report.all_routes(self)

    def latency(self) -> Histogram:
        """Return how long good answers took until they were complete."""
        return report.latency(self)

    @property
    def answers_whole(self) -> int:
        """How many good answers came in one piece (without `first_byte`)."""
        return sum(self.latency().counts) - sum(self.counts.in_pieces.counts)

    def first_byte_latency(self) -> Histogram:
        """Return how long answers took until they began."""
        return report.first_byte_latency(self)

    def snapshot(self, now: float) -> Snapshot:
        """Return all figures as they are now."""
        return report.snapshot(self, now)
