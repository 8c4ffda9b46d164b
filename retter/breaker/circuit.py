"""The controller: for every GET, forward it now, let it wait, or answer without the application.

Three signals speak at once: no place left under the limit, requests that outlive their patience
(while they are still in flight), and refused or failed requests. The work rate corrects the limit
a window later. `admit`, `started`, `first_byte` and `finished` take constant time; what needs a
look at many requests happens on the `tick`.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from math import floor, inf
from typing import Final

from retter.breaker import constants
from retter.breaker.baseline import ApplicationBaseline, Baseline, ColdStart, Dips
from retter.breaker.constants import BreakerSettings
from retter.breaker.flight import Flight
from retter.breaker.limit import WorkRateLimit
from retter.breaker.permit import (
    CIRCUIT_PROBE,
    ROUTE_PROBE,
    Kind,
    Mode,
    Permit,
    Phase,
    Refusal,
    Shed,
)
from retter.breaker.recovery import Recovery
from retter.breaker.routes import Route, RouteTable
from retter.breaker.snapshot import Snapshot
from retter.breaker.states import Signal, State, Transition, next_state
from retter.breaker.twins import take_state
from retter.breaker.waiting import WaitingRoom
from retter.errors import Outcome
from retter.reason import Reason
from retter.statistics import LATENCY_BOUNDS_S, Histogram
from retter.window import RollingWindow

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
_HELD_OPEN: Final = Mode.OPEN
_HELD_CLOSED: Final = Mode.CLOSED
_OBSERVE: Final = Mode.OBSERVE
_NEUTRAL: Final = Outcome.NEUTRAL
_IS_ADMITTED: Final = Reason.ADMITTED
_IS_PROBE: Final = Reason.PROBE

# What `admit` may change besides the controller itself.
_PARTS: Final = frozenset((
    ApplicationBaseline, Baseline, ColdStart, Dips, Recovery, Refusal, RollingWindow, Shed,
    WorkRateLimit,
))  # fmt: skip


class CircuitBreaker:
    """Decides about every request; see `retter.breaker` for the rules of its use.

    For each permit: `started` at once when it is ADMITTED, `first_byte` if there is one, `finished`
    exactly once. After every `finished`, `detach` and `tick`, whoever `take_ready` returns starts.
    """

    __slots__ = (
        "_answered_late", "_baseline", "_cap", "_dips", "_failures_in_a_row", "_first_bytes",
        "_flight", "_forced_open", "_fresh_enough", "_full", "_half_open", "_in_pieces", "_limit",
        "_mode", "_on_transition", "_open", "_outcomes", "_passed_at", "_paused", "_queue_full",
        "_queue_timeouts", "_queued", "_recovery", "_refusals_in_a_row", "_room", "_route_open",
        "_route_probes", "_routes", "_settings", "_shed_at", "_single_flight", "_straight",
        "_transitions", "_would_answer_late", "_would_queue", "_would_reject", "_would_shed",
        "generation", "paused_until", "state",
    )

    def __init__(
        self,
        settings: BreakerSettings,
        now: float,
        on_transition: Callable[[Transition], None] | None = None,
    ) -> None:
        self._settings = settings
        self._on_transition = on_transition
        self._mode = Mode.AUTO
        self.state = _CLOSED
        self.generation = 0
        self._limit = WorkRateLimit(now, settings.limit_start)
        self._baseline = ApplicationBaseline(now)
        self._dips = Dips()
        self._routes = RouteTable(now)
        self._flight = Flight()
        self._room = WaitingRoom()
        self._outcomes = RollingWindow(
            now, buckets=constants.FAILURE_BUCKETS, bucket_s=constants.FAILURE_BUCKET_S
        )
        self._passed_at = now             # of the last success
        self._shed_at = now               # when a place was last missing
        self._failures_in_a_row = 0
        self._refusals_in_a_row = 0
        self._first_bytes = Histogram(LATENCY_BOUNDS_S)   # of answers that came in pieces
        self._in_pieces = Histogram(LATENCY_BOUNDS_S)     # the same, until complete
        # What belongs to one state is set in _enter.
        self._recovery = Recovery(settings)
        # Made once, handed out often; with how often.
        retry_after_s = settings.retry_after_s
        self._full = Refusal(Reason.LIMIT, retry_after_s)
        self._single_flight = Refusal(Reason.SINGLE_FLIGHT, retry_after_s)
        self._fresh_enough = Refusal(Reason.FRESH_ENOUGH, retry_after_s)
        self._queue_full = Refusal(Reason.QUEUE_FULL, retry_after_s)
        self._open = Refusal(Reason.OPEN, retry_after_s)
        self._half_open = Refusal(Reason.HALF_OPEN, retry_after_s)
        self._route_open = Refusal(Reason.ROUTE_OPEN, retry_after_s)
        self._forced_open = Refusal(Reason.FORCED_OPEN, retry_after_s)
        self._paused = Refusal(Reason.PAUSED, retry_after_s)
        self.paused_until: float | None = None    # by an operator; monotonic seconds
        self._queued = self._queue_timeouts = self._answered_late = 0
        self._route_probes = self._transitions = 0
        self._would_shed = self._would_queue = self._would_reject = self._would_answer_late = 0
        # The two attributes that the hot path reads: see _set_cap.
        self._straight = True
        self._cap = inf
        self._set_cap()
        if settings.mode is not Mode.AUTO:
            self.set_mode(now, settings.mode)

    def reconfigure(self, settings: BreakerSettings) -> None:
        """Decide by other settings from now on. The mode stays, and what has been learnt."""
        self._settings = self._recovery.settings = settings
        for refusal in (
            self._full, self._single_flight, self._fresh_enough, self._queue_full, self._open,
            self._half_open, self._route_open, self._forced_open,
        ):  # fmt: skip
            refusal.stored.retry_after_s = refusal.reject.retry_after_s = settings.retry_after_s
        self._set_cap()

    @property
    def mode(self) -> Mode:
        """What an operator asks of the circuit."""
        return self._mode

    @property
    def waiting(self) -> int:
        """How many are queued: look at `take_ready` only if there are any."""
        return self._room.waiting

    def all_waiting(self) -> list[Permit]:
        """Return the permits of all that are queued, or held by a pause."""
        return self._room.all_waiting()

    # --- the decision ---

    def admit(
        self, now: float, kind: Kind, route: bytes, key: bytes, stored_age_s: float | None
    ) -> Permit | Shed:
        """Decide about one request.

        `stored_age_s` is the age of the stored response that may be used to shed it, None if
        there is none. A permit is ADMITTED, and started at once, or QUEUED.
        """
        its_route = self._routes.get(route, now)
        if kind is _OTHER:
            if self.paused_until is not None:
                return self._decide_paused(now, self.paused_until, False, its_route, key, None)
            return Permit(_ADMITTED, _IS_ADMITTED, False, its_route, key, False)
        if self._straight and self._limit.load < self._cap and not its_route.is_open:
            return Permit(_ADMITTED, _IS_ADMITTED, True, its_route, key, stored_age_s is not None)
        return self._decide(now, its_route, key, stored_age_s)

    def _decide(
        self, now: float, route: Route, key: bytes, stored_age_s: float | None
    ) -> Permit | Shed:
        if self.paused_until is not None:
            return self._decide_paused(now, self.paused_until, True, route, key, stored_age_s)
        has_stored = stored_age_s is not None
        if self._mode is _HELD_CLOSED:
            return self._forward(route, key, has_stored)
        if self._mode is _HELD_OPEN:
            if has_stored:
                return self._turn_away(self._forced_open, route, key, has_stored)
            return self._decide_without_stored(now, route, key, self._forced_open)
        if self.state is _OPEN:
            return self._decide_open(now, route, key, has_stored)
        if route.is_open:
            return self._decide_route_open(now, route, key, has_stored)
        if self.state is _CLOSED:
            self._fire(now, Signal.NO_PERMITS)
        if stored_age_s is None:
            return self._decide_without_stored(now, route, key, self._queue_full)
        return self._decide_with_stored(now, route, key, stored_age_s)

    def _decide_paused(
        self, now: float, until: float, is_get: bool, route: Route, key: bytes,
        stored_age_s: float | None,
    ) -> Permit | Shed:
        if stored_age_s is not None:
            shed = self._paused.stored
        elif self._room.held < constants.HELD_MAX:
            permit = Permit(_ADMITTED, _IS_ADMITTED, is_get, route, key, False)
            self._room.hold(permit, now + constants.HELD_S_MAX)     # at most: see resume
            return permit
        else:
            shed = self._paused.reject
            shed.retry_after_s = max(1.0, until - now)
        shed.count += 1
        return shed

    def _decide_open(
        self, now: float, route: Route, key: bytes, has_stored: bool
    ) -> Permit | Shed:
        if self._recovery.probe_due(now):
            self._recovery.issue_probe(now)
            return self._probe(CIRCUIT_PROBE, route, key, has_stored)
        if has_stored:
            return self._turn_away(self._open, route, key, has_stored)
        return self._decide_without_stored(now, route, key, self._open)

    def _decide_route_open(
        self, now: float, route: Route, key: bytes, has_stored: bool
    ) -> Permit | Shed:
        if now >= route.probe_at:
            self._route_probes += 1
            permit = self._probe(ROUTE_PROBE, route, key, has_stored)
            route.issue_probe(now, permit)
            return permit
        return self._turn_away(self._route_open, route, key, has_stored)

    def _decide_with_stored(
        self, now: float, route: Route, key: bytes, stored_age_s: float
    ) -> Permit | Shed:
        load, cap = self._limit.load, self._cap
        waiting = self._waiting_or_would(self._room.waiting)
        if stored_age_s < self._settings.fresh_for_s:
            return self._turn_away(self._fresh_enough, route, key, True)
        if (waiting or load >= constants.SINGLE_FLIGHT_SHARE * cap) and key in self._flight.keys:
            return self._turn_away(self._single_flight, route, key, True)
        if load < cap and not waiting:
            return self._forward(route, key, True)
        baseline_s = self._baseline.mean_s
        wait_s = max(constants.STORED_WAIT_S, constants.STORED_WAIT_BASELINES * baseline_s)
        if (waiting + 1) * baseline_s <= wait_s * max(1.0, self._limit.work_rate):
            return self._enqueue(now, route, key, True, constants.STORED_WAIT_PATIENCE * wait_s)
        self._shed_at = now
        refusal = self._half_open if self.state is _HALF_OPEN else self._full
        return self._turn_away(refusal, route, key, True)

    def _decide_without_stored(
        self, now: float, route: Route, key: bytes, refusal: Refusal
    ) -> Permit | Shed:
        wait_s = self._settings.queue_wait_s
        waiting = self._waiting_or_would(self._room.waiting_without_stored)
        if self._limit.load < self._cap and not waiting:
            return self._forward(route, key, False)
        self._shed_at = now
        work_in_time_s = constants.QUEUE_SHARE * wait_s * max(1.0, self._limit.work_rate)
        if waiting < constants.QUEUE_MIN or waiting * self._baseline.mean_s < work_in_time_s:
            return self._enqueue(now, route, key, False, wait_s)
        return self._turn_away(refusal, route, key, False)

    def _waiting_or_would(self, waiting: int) -> int:
        """How many wait; when observing nobody does: those above the cap stand for them."""
        if self._mode is _OBSERVE:
            return max(0, int(self._limit.load - self._cap))
        return waiting

    def _forward(self, route: Route, key: bytes, has_stored: bool) -> Permit:
        return Permit(_ADMITTED, _IS_ADMITTED, True, route, key, has_stored)

    def _probe(self, probe: int, route: Route, key: bytes, has_stored: bool) -> Permit:
        permit = Permit(_ADMITTED, _IS_PROBE, True, route, key, has_stored)
        permit.probe = probe
        return permit

    def _enqueue(
        self, now: float, route: Route, key: bytes, has_stored: bool, wait_s: float
    ) -> Permit:
        permit = Permit(_ADMITTED, _IS_ADMITTED, True, route, key, has_stored)
        if self._mode is _OBSERVE:
            self._would_queue += 1
        else:
            self._queued += 1
            self._room.add(permit, now + wait_s)
        return permit

    def _turn_away(
        self, refusal: Refusal, route: Route, key: bytes, has_stored: bool
    ) -> Permit | Shed:
        if self._mode is _OBSERVE:
            if has_stored:
                self._would_shed += 1
            else:
                self._would_reject += 1
            return self._forward(route, key, has_stored)
        shed = refusal.stored if has_stored else refusal.reject
        shed.count += 1
        return shed

    # --- the life of a permit ---

    def started(self, now: float, permit: Permit) -> None:
        """The request goes upstream: its connection is attempted or its head written."""
        assert permit.phase is _ADMITTED, f"{permit} cannot start"
        limit = self._limit
        permit.phase = _IN_FLIGHT
        permit.started_at = now
        permit.generation = self.generation
        limit.enter(now)
        rank = permit.rank = limit.in_flight
        # The first one alone is uncongested whatever the limit.
        permit.uncongested = rank <= constants.UNCONGESTED_RATIO * limit.limit or rank == 1
        cold = self._baseline.cold
        if cold is None or rank > self._settings.limit_start:
            permit.is_cold = False
        else:
            permit.is_cold = True
            cold.enter(now)
        self._flight.enter(permit)

    def first_byte(self, now: float, permit: Permit) -> None:
        """The first byte of the answer is here: its patience is not needed any more."""
        permit.first_byte_at = now
        self._first_bytes.add(now - permit.started_at)
        if permit.is_old and permit.phase is _IN_FLIGHT:
            self._flight.look_at(permit, now + constants.BODY_MAX_S)

    def finished(self, now: float, permit: Permit, outcome: Outcome) -> None:
        """The answer is complete, or there will be none. Exactly once for every started permit."""
        if permit.phase is _DETACHED:
            permit.phase = _DONE
            return
        assert permit.phase is _IN_FLIGHT, f"{permit} cannot finish"
        permit.phase = _DONE
        self._leave(now, permit, completed=outcome is _OK)
        if outcome is _OK:
            self._succeeded(now, permit)
        elif outcome is _NEUTRAL:
            self._give_probe_back(permit)
        else:
            self._failed(now, permit, outcome)

    def detach(self, now: float, permit: Permit) -> None:
        """A tunnel or a stream: from now on it says nothing about the application's load.

        Nothing happens if the tick has detached it already.
        """
        if permit.phase is _DETACHED:
            return
        assert permit.phase is _IN_FLIGHT, f"{permit} cannot be detached"
        permit.phase = _DETACHED
        self._leave(now, permit, completed=False)
        self._give_probe_back(permit)

    def cancel(self, now: float, permit: Permit) -> None:
        """The client left before its request went upstream."""
        if permit.phase is _QUEUED or permit.phase is _HELD:
            self._room.cancel(permit)
            return
        assert permit.phase is _ADMITTED, f"{permit} cannot be cancelled"
        permit.phase = _DONE
        permit.generation = self.generation
        self._give_probe_back(permit)

    def take_ready(self, now: float) -> list[Permit]:
        """Return those who waited long enough: there is a place, and they start at once."""
        room = self._room
        if self.paused_until is not None:
            return []
        ready = room.take_released()
        cap = inf if self._mode is _OBSERVE else self._cap
        while room.waiting and self._limit.load + len(ready) < cap:
            permit = room.next()
            assert permit is not None
            ready.append(permit)
        return ready

    def _leave(self, now: float, permit: Permit, *, completed: bool) -> None:
        self._limit.leave(now, discounted=permit.is_slow and not permit.is_get)
        self._flight.leave(permit)
        if permit.is_cold:
            self._baseline.cold_leave(now, completed=completed)

    # --- what an outcome teaches ---

    def _succeeded(self, now: float, permit: Permit) -> None:
        took_s = now - permit.started_at
        route = permit.route
        limit = self._limit
        # With every answer, so its parts are here and not a call away: a twentieth of the whole.
        baseline = route.baseline
        known = baseline.samples >= constants.ROUTE_SAMPLES_MIN
        expected_s = baseline.mean_s if known else self._baseline.mean_s
        latency = route.latency
        latency.counts[bisect_left(LATENCY_BOUNDS_S, took_s)] += 1    # Histogram.add, for less
        latency.total += took_s
        if permit.first_byte_at >= 0:
            self._in_pieces.add(took_s)
        limit.completions += 1
        limit.work_s += expected_s
        self._passed_at = route.passed_at = now
        route.excess_s += constants.ROUTE_EXCESS_WEIGHT * (took_s - expected_s - route.excess_s)
        if permit.uncongested:
            self._learn(now, route, took_s)
        if permit.probe or route.is_open:
            self._probe_passed(now, permit)
        elif permit.generation == self.generation:
            self._failures_in_a_row = self._refusals_in_a_row = 0
            self._outcomes.record_success()
            route.outcomes.record_success()
            if self.state is _HALF_OPEN:
                self._climb(now)
            elif self.state is _OPEN and not permit.is_get:
                self._fire(now, Signal.PROBE_PASSED)

    def _expected_s(self, route: Route) -> float:
        """b(route): what an answer of this route takes without a queue."""
        baseline = route.baseline
        if baseline.samples >= constants.ROUTE_SAMPLES_MIN:
            return baseline.mean_s
        return self._baseline.mean_s

    def _learn(self, now: float, route: Route, took_s: float) -> None:
        limiting = self.state is _LIMITING
        weight = constants.BASELINE_WEIGHT_LIMITING if limiting else constants.BASELINE_WEIGHT
        route.baseline.add(took_s, weight)
        self._baseline.learn(took_s, weight)
        if limiting and self._dips.sample(now, self._baseline.mean_s):
            self._limit.restart_window(now)
            self._set_cap()

    def _climb(self, now: float) -> None:
        """Half-open: every success makes room for one more, so the ramp doubles a round trip."""
        over = self._recovery.climb()
        self._set_cap()
        if over:
            self._fire(now, Signal.TRIALS_PASSED)

    def _failed(self, now: float, permit: Permit, outcome: Outcome) -> None:
        route = permit.route
        route.errors += 1
        refused = outcome is Outcome.REFUSED
        if permit.probe or route.is_open:
            self._probe_failed(now, permit, refused=refused)
            return
        if permit.generation != self.generation:
            return
        self._failures_in_a_row += 1
        self._refusals_in_a_row = self._refusals_in_a_row + 1 if refused else 0
        self._outcomes.record_failure()
        route.outcomes.record_failure()
        if self.state is _HALF_OPEN:
            self._fire(now, Signal.TRIAL_FAILED)
        elif self.state is not _OPEN:
            self._judge_failure(now, permit, outcome)

    def _judge_failure(self, now: float, permit: Permit, outcome: Outcome) -> None:
        outcomes, settings = self._outcomes, self._settings
        if self._refusals_in_a_row >= constants.REFUSALS_IN_A_ROW:
            self._fire(now, Signal.FAILING)
            return
        if permit.is_get and self._routes.fails_alone(permit.route, outcomes):
            permit.route.open(now, settings.open_min_s)
            return
        if outcomes.failing(volume=settings.failure_volume, ratio=settings.failure_ratio) or (
            self._failures_in_a_row >= constants.FAILURES_IN_A_ROW and not outcomes.passed
        ):
            self._fire(now, Signal.FAILING)
            return
        if outcome is not Outcome.ERROR or (
            outcomes.failed >= constants.CEILING_ERRORS_MIN
            and outcomes.failed >= constants.CEILING_ERROR_RATIO * outcomes.outcomes
        ):
            self._hit_ceiling(now, permit.rank)

    def _hit_ceiling(self, now: float, rank: int) -> None:
        if self._limit.lower_ceiling(now, rank):
            self._set_cap()
            if self.state is _CLOSED:
                self._fire(now, Signal.OVERLOADED)

    # --- probes ---

    def _is_current_probe(self, permit: Permit) -> bool:
        return permit.probe == CIRCUIT_PROBE and permit.generation == self.generation

    def _give_probe_back(self, permit: Permit) -> None:
        if self._is_current_probe(permit) and not permit.is_slow:
            self._recovery.give_probe_back()
        elif permit.probe == ROUTE_PROBE and permit.route.probe is permit:
            permit.route.probe = None

    def _probe_passed(self, now: float, permit: Permit) -> None:
        if self._is_current_probe(permit):
            self._fire(now, Signal.PROBE_PASSED)
        elif permit.route.probe is permit:
            permit.route.close()

    def _probe_failed(self, now: float, permit: Permit, *, refused: bool = False) -> None:
        """A probe failed, or its patience is over: a lost one must not wedge the circuit."""
        if self._is_current_probe(permit):
            if not permit.is_slow:
                self._recovery.probe_failed(now, refused=refused)
        elif permit.route.probe is permit:
            permit.route.probe_failed(now, self._settings.open_max_s)

    # --- the tick ---

    def tick(self, now: float) -> list[Permit]:
        """Do what is due; call it every 50 ms.

        Returns the permits whose holder must answer: those that waited in vain (DONE, reason
        QUEUE_TIMEOUT or PAUSED: the stored response or 503) and those in flight whose patience is
        over (IN_FLIGHT, reason PATIENCE: the stored response; `finished` is still to come).
        """
        self._outcomes.advance(now)
        self._routes.advance(now)
        answer = self._sweep(now)
        if self._room.waiting:
            answer += self._expire_queue(now)
        if self.paused_until is not None:
            if now >= self.paused_until:
                self.resume(now)
            elif self._room.held:
                answer += self._expire_hold(now)
        window = self._limit.window_due(now, self._baseline.mean_s)
        if window:
            self._close_window(now)
        self._routes.make_room()
        if self.state is _CLOSED:
            self._check_stall(now)
        elif self.state is _LIMITING:
            self._check_dip(now)
            self._check_relief(now, window)
        return answer

    def _expire_queue(self, now: float) -> list[Permit]:
        expired = self._room.expired(now)
        if expired:
            self._shed_at = now
            self._queue_timeouts += len(expired)
            for permit in expired:
                permit.reason = Reason.QUEUE_TIMEOUT
        return expired

    def _expire_hold(self, now: float) -> list[Permit]:
        expired = self._room.held_for_too_long(now)
        for permit in expired:
            permit.reason = Reason.PAUSED
            self._paused.reject.count += 1
        return expired

    def _sweep(self, now: float) -> list[Permit]:
        flight = self._flight
        for permit in flight.grown_old(now - self._settings.patience_min_s):
            if permit.first_byte_at >= 0:
                flight.look_at(permit, permit.first_byte_at + constants.BODY_MAX_S)
            else:
                flight.look_at(permit, permit.started_at + self._patience_s(permit.route))
        return [permit for permit in flight.due(now) if self._look_at(now, permit)]

    def _patience_s(self, route: Route) -> float:
        settings = self._settings
        return min(
            settings.patience_max_s,
            max(settings.patience_min_s, constants.PATIENCE_BASELINES * self._expected_s(route)),
        )

    def _look_at(self, now: float, permit: Permit) -> bool:
        """Look at one that is due; return whether its client is to be answered now."""
        if permit.first_byte_at >= 0:
            self.detach(now, permit)
            return False
        if not permit.is_slow:
            self._outlived_patience(now, permit)
        if not permit.has_stored:
            return False                      # there is nothing else to answer with
        if not self._loses_patience(now, permit):
            self._flight.look_at(permit, now + constants.PATIENCE_AGAIN_S)
            return False
        if self._mode is _OBSERVE:
            self._would_answer_late += 1
            return False
        self._answered_late += 1
        permit.answered = True
        permit.reason = Reason.PATIENCE
        return True

    def _loses_patience(self, now: float, permit: Permit) -> bool:
        """A closed circuit waits longer: then this request is late, not the application."""
        if self.state is not _CLOSED or permit.probe or permit.route.is_open:
            return True
        return now - permit.started_at >= self._closed_patience_s(permit.route)

    def _closed_patience_s(self, route: Route) -> float:
        return max(
            self._settings.patience_closed_s,
            constants.PATIENCE_BASELINES * self._expected_s(route),
        )

    def _outlived_patience(self, now: float, permit: Permit) -> None:
        if not permit.is_get:
            permit.is_slow = True
            self._limit.discount(now)
            return
        if permit.probe:
            self._probe_failed(now, permit)
        permit.is_slow = True
        permit.route.late_calls.record_failure()
        if self.state is _HALF_OPEN and permit.generation == self.generation:
            self._fire(now, Signal.TRIAL_FAILED)

    def _close_window(self, now: float) -> None:
        limit = self._limit
        limit.close_window(now)
        self._judge_routes(now)
        trusted = self._baseline.samples >= constants.SAMPLES_TO_TRUST
        if self.state is _CLOSED:
            limit.set_limit(now, limit.closed_limit)
        elif self.state is _LIMITING and not self._dips.active and trusted:
            limit.set_limit(now, limit.target)
        self._set_cap()

    def _judge_routes(self, now: float) -> None:
        oldest_s: dict[Route, float] = {}
        for permit in self._flight.oldest_old(constants.ROUTES_MAX):
            oldest_s.setdefault(permit.route, now - permit.started_at)
        if self.state is _OPEN or self.state is _HALF_OPEN:
            return
        for route in self._routes.culprits(now, oldest_s):
            route.open(now, self._settings.open_min_s)

    def _check_stall(self, now: float) -> None:
        stall_s = max(constants.STALL_MIN_S, constants.STALL_BASELINES * self._baseline.mean_s)
        if now - self._passed_at <= stall_s:
            return
        permit = self._flight.oldest(constants.STALL_OLDEST)
        if permit is not None and now - permit.started_at > stall_s:
            self._fire(now, Signal.STALLED)

    def _check_dip(self, now: float) -> None:
        if self._dips.due(now, self._baseline.mean_s):
            self._limit.restart_window(now)
            self._set_cap()

    def _check_relief(self, now: float, window: bool) -> None:
        limit = self._limit
        relief_s = max(
            constants.RELIEF_MIN_S, constants.RELIEF_BASELINES * self._baseline.mean_s
        )
        if now - self._shed_at >= relief_s and (
            limit.load <= constants.RELIEF_SHARE * limit.limit
            or (window and limit.mean_in_flight < limit.queueing_in_flight)
        ):
            self._fire(now, Signal.RELIEVED)

    # --- states ---

    def _fire(self, now: float, signal: Signal) -> None:
        """Change the state, unless an operator holds it."""
        if self._mode is Mode.AUTO or self._mode is _OBSERVE:
            self._move(now, signal)

    def _move(self, now: float, signal: Signal) -> None:
        before, after = self.state, next_state(self.state, signal)
        self.state = after
        self._transitions += 1
        failures, successes = self._outcomes.failed, self._outcomes.passed
        self._enter(now, before, signal)
        self._set_cap()
        if self._on_transition is not None:
            self._on_transition(self._transition(now, before, signal, failures, successes))

    def _enter(self, now: float, before: State, signal: Signal) -> None:
        """Set up what belongs to the new state, and nothing else."""
        limit = self._limit
        self._dips.stop()
        if self.state is _CLOSED:
            limit.set_limit(now, limit.closed_limit)
        elif self.state is _LIMITING:
            self._shed_at = now
            self._dips.start_waiting(now)
            if before is _HALF_OPEN:
                limit.set_limit(now, float(self._recovery.ramp))
            elif signal is Signal.STALLED:
                limit.set_limit(now, constants.SPARE + 1)
            else:
                limit.set_limit(now, limit.entry_limit)
        elif self.state is _OPEN:
            self._recovery.open(now, relapse=before is _HALF_OPEN)
            self._begin_generation()
            self._routes.close_all()
        else:
            self._recovery.begin_ramp()
            self._begin_generation()

    def _begin_generation(self) -> None:
        """What was sent before says nothing about what is the case now."""
        self.generation += 1
        self._failures_in_a_row = self._refusals_in_a_row = 0
        self._outcomes.clear()

    def _set_cap(self) -> None:
        """Set the number of places for GETs, and whether a GET may pass straight."""
        self._straight = self.state is _CLOSED and self.paused_until is None
        if self._mode is _HELD_CLOSED:
            self._cap = inf
        else:
            self._cap = min(self._places(), self._settings.max_in_flight or inf)

    def _places(self) -> float:
        limit = self._limit
        if self.state is _CLOSED:
            return min(constants.BURST * limit.limit, limit.ceiling)
        if self.state is _HALF_OPEN:
            return float(self._recovery.ramp)
        if self.state is _OPEN and self._mode is not _HELD_OPEN:
            return 0.0
        places = min(limit.limit, limit.ceiling)
        if self._dips.active:
            # Rounded down, so that who takes the last place is uncongested too.
            return max(1.0, floor(constants.UNCONGESTED_RATIO * places))
        return places

    def set_mode(self, now: float, mode: Mode) -> None:
        """Follow an operator: hold the circuit open or closed, or let it decide.

        Held OPEN: GETs with a stored response get it; those without one are forwarded up to the
        limit, wait, or get 503, as while limiting. Held CLOSED: everything is forwarded; a GET
        with a stored response that is later than the closed patience is still answered with it.
        """
        before, self._mode = self._mode, mode
        if mode is before:
            return
        if mode is _HELD_OPEN:
            signal = Signal.FORCED_OPEN
        elif mode is _HELD_CLOSED:
            signal = Signal.FORCED_CLOSED
        elif before is _HELD_OPEN or before is _HELD_CLOSED:
            signal = Signal.RELEASED
        else:
            return                           # AUTO and OBSERVE decide alike
        self._begin_generation()
        self._move(now, signal)

    def pause(self, now: float, until: float) -> None:
        """Let nothing go upstream until then: an operator exchanges the application.

        GETs with a stored response get it. What else comes is held, up to HELD_MAX requests and
        HELD_S_MAX seconds each. What is upstream already is left alone.
        """
        self.paused_until = until
        self._room.hold_needy(now + constants.HELD_S_MAX)
        self._set_cap()

    def resume(self, now: float) -> int:
        """End a pause; who was held goes on in order: look at `take_ready`. Return how many."""
        self.paused_until = None
        held = self._room.held
        self._room.release(now + self._settings.queue_wait_s)
        self._set_cap()
        return held

    # --- what operators see ---

    def would(
        self, now: float, kind: Kind, route: bytes, key: bytes, stored_age_s: float | None
    ) -> Permit | Shed:
        """Return what `admit` would, and change nothing: a copy is asked.

        Copied is what `admit` may change; what is in flight is only read. Takes a tenth of a
        millisecond. The permit is good for reading alone.
        """
        twin = CircuitBreaker(self._settings, now)
        take_state(twin, self, _PARTS)
        twin._on_transition = None
        twin._room = self._room.empty_copy()
        twin._routes = self._routes.copy_of_one(route, now)
        return twin.admit(now, kind, route, key, stored_age_s)

    def patience_of(self, route: bytes) -> float:
        """Return for how many seconds a GET of that route would now be waited for."""
        known = self._routes.copy_of_one(route, 0.0).get(route, 0.0)
        if self.state is _CLOSED and not known.is_open:
            return self._closed_patience_s(known)
        return self._patience_s(known)

    def routes(self) -> Iterator[Route]:
        """Yield every route, and at last the one for all that have no place of their own."""
        yield from self._routes
        yield self._routes.other

    def latency(self) -> Histogram:
        """Return how long good answers took until they were complete."""
        latency = Histogram(LATENCY_BOUNDS_S)
        for route in self.routes():
            latency.merge(route.latency)
        return latency

    @property
    def answers_whole(self) -> int:
        """How many good answers came in one piece (without `first_byte`)."""
        return sum(self.latency().counts) - sum(self._in_pieces.counts)

    def first_byte_latency(self) -> Histogram:
        """Return how long answers took until they began: one that came whole began when it ended.

        Those that came in pieces count from their first byte, whatever becomes of them.
        """
        latency = self.latency().without(self._in_pieces)
        latency.merge(self._first_bytes)
        return latency

    def _transition(
        self, now: float, before: State, cause: Signal, failures: int, successes: int
    ) -> Transition:
        limit = self._limit
        return Transition(
            at=now,
            before=before,
            after=self.state,
            cause=cause,
            generation=self.generation,
            in_flight=limit.in_flight,
            limit=limit.limit,
            ceiling=limit.ceiling,
            work_rate=limit.work_rate,
            mean_in_flight=limit.mean_in_flight,
            baseline_s=self._baseline.mean_s,
            failures=failures,
            successes=successes,
            waiting=self._room.waiting,
        )

    def snapshot(self, now: float) -> Snapshot:
        """Return all figures as they are now."""
        limit = self._limit
        refusals = (
            self._full, self._single_flight, self._fresh_enough, self._queue_full, self._open,
            self._half_open, self._route_open, self._forced_open, self._paused,
        )
        return Snapshot(
            at=now,
            state=self.state,
            mode=self._mode,
            generation=self.generation,
            in_flight=limit.in_flight,
            load=limit.load,
            old_others=limit.old_others,
            limit=limit.limit,
            ceiling=limit.ceiling,
            cap=self._cap,
            work_rate=limit.work_rate,
            mean_in_flight=limit.mean_in_flight,
            peak_work_rate=limit.peak_work_rate,
            baseline_s=self._baseline.mean_s,
            waiting=self._room.waiting,
            waiting_without_stored=self._room.waiting_without_stored,
            held=self._room.held,
            successes=self._outcomes.passed,
            failures=self._outcomes.failed,
            routes=len(self._routes),
            routes_open=tuple(route.name for route in self._routes if route.is_open),
            shed_stored={refusal.stored.reason: refusal.stored.count for refusal in refusals},
            shed_rejected={refusal.reject.reason: refusal.reject.count for refusal in refusals},
            queued=self._queued,
            queue_timeouts=self._queue_timeouts,
            answered_late=self._answered_late,
            probes=self._recovery.issued + self._route_probes,
            dips=self._dips.begun,
            transitions=self._transitions,
            would_shed=self._would_shed,
            would_queue=self._would_queue,
            would_reject=self._would_reject,
            would_answer_late=self._would_answer_late,
        )
