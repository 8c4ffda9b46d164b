"""The controller: for every GET, forward it now, let it wait, or answer without the application.

decide.py makes the decision. This module carries it out and records the result of the request.
`admit`, `started`, `first_byte` and `finished` take constant time. Work that has to examine many
requests happens on the `tick` (sweep.py).
"""

from collections.abc import Callable, Iterator
from math import inf
from typing import Final

from retter.base.counters import Histogram
from retter.base.errors import Outcome
from retter.base.reason import Reason
from retter.breaker import constants, endings, sweep
from retter.breaker.circuit import Circuit
from retter.breaker.decide import (
    FORWARD,
    SHED_HELD_OPEN,
    SHED_OPEN,
    SINGLE_FLIGHT,
    Action,
    Decision,
    decide,
)
from retter.breaker.demand import NOBODY
from retter.breaker.endings import failed, learn, leave, succeeded
from retter.breaker.fairness import NOT_SORTED, Asker, Sorted
from retter.breaker.mode import AUTO, HELD_OPEN, OBSERVE
from retter.breaker.opening import Opening
from retter.breaker.permit import (
    UNSORTED,
    Kind,
    Permit,
    Phase,
    Rejection,
)
from retter.breaker.routes import Route
from retter.breaker.settings import BreakerSettings
from retter.breaker.snapshot import Snapshot, snapshot
from retter.breaker.states import CLOSED, OPEN, Signal, Transition

# Members of an enum, looked up once: the functions below run for every request.
_OTHER: Final = Kind.OTHER
_QUEUED: Final = Phase.QUEUED
_ADMITTED: Final = Phase.ADMITTED
_IN_FLIGHT: Final = Phase.IN_FLIGHT
_DETACHED: Final = Phase.DETACHED
_DONE: Final = Phase.DONE
_OK: Final = Outcome.OK
_NEUTRAL: Final = Outcome.NEUTRAL
_IS_ADMITTED: Final = Reason.ADMITTED
_SHED: Final = Action.REJECT

# Permits that are kept to be used again. More are in flight at once only while the application is
# slow, and then their cost does not matter.
SPARE_MAX: Final = 64


def _permit(
    decision: Decision,
    is_get: bool,
    route: Route,
    key: bytes,
    has_stored: bool,
    client: int,
    place: Sorted,
) -> Permit:
    """Make the permit of a decision. What observe mode does not shed is an ordinary request."""
    reason = decision.reason
    if decision.action is _SHED:
        reason, place = _IS_ADMITTED, NOT_SORTED
    permit = Permit(_ADMITTED, reason, is_get, route, key, has_stored, client)
    if place is not NOT_SORTED:
        permit.lane, permit.asker, permit.ticket, permit.since = place
    return permit


class CircuitBreaker:
    """Decides about every request; see `retter.breaker` for the rules of its use.

    For each permit, the caller calls `started` at once when it is ADMITTED (`start_at_once` has
    done so already), `first_byte` if a first byte arrives, and `finished` exactly once. After every
    `finished`, `detach` and `tick`, it calls `take_ready` and starts the permits that it gets.
    """

    def __init__(
        self,
        settings: BreakerSettings,
        now: float,
        on_transition: Callable[[Transition], None] | None = None,
        secret: bytes = b"",
    ) -> None:
        self.unsettled = Circuit(settings, now, on_transition, secret)
        self._spare: list[Permit] = []  # permits to be used again
        self._ended: list[Permit] = []  # of usual answers that the circuit does not know of yet
        self._kept = False  # whether some of these are not to be used again

    @property
    def circuit(self) -> Circuit:
        """The circuit, which knows of all answers."""
        if self._ended:
            self.settle()
        return self.unsettled

    def settle(self) -> None:
        """Let the circuit learn from the usual answers that have come since the last call.

        `unsettled` is the circuit without them: what is in flight, and what was decided, is always
        up to date there. Nothing else is decided before they are known.
        """
        ended = self._ended
        if ended:
            self._ended = []
            learn(self.unsettled, ended)
            if self._kept:
                self._kept = False
                ended = [permit for permit in ended if permit.is_reusable]
            self._spare += ended[: SPARE_MAX - len(self._spare)]

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

        `stored_age_s` is the age of the stored response that may be used to shed the request, None
        if there is none. `client` is a number that identifies the client, 0 if the client is not
        known. `asker` describes the client further; it is needed if `wants_asker` returns True. A
        returned permit is ADMITTED or QUEUED. The caller starts an ADMITTED one at once.
        """
        if self._ended:
            self.settle()
        circuit = self.unsettled
        its_route = circuit.routes.by_name.get(route)
        if its_route is None:
            its_route = circuit.routes.get(route, now)
        else:
            its_route.used_at = now
        is_get, has_stored = kind is not _OTHER, stored_age_s is not None
        place = NOT_SORTED if asker is None else self._sort(now, asker, its_route)
        decision = decide(
            circuit, now, is_get, its_route, key, stored_age_s, client,
            circuit.room.lane_of(place.lane),
        )  # fmt: skip
        if decision.limits:
            circuit.fire(now, Signal.NO_PERMITS)
        if decision.action is _SHED:
            if decision.for_lack_of_a_place:
                circuit.limit.shed_at = now
            if circuit.mode is not OBSERVE or self._holds_back:
                rejections = circuit.rejections
                shed = (rejections.stored if has_stored else rejections.rejects)[decision.rejection]
                shed.count += 1
                if circuit.paused_until is not None:
                    shed.retry_after_s = max(1.0, circuit.paused_until - now)
                return shed
            if has_stored:
                circuit.counts.would_shed += 1
            else:
                circuit.counts.would_reject += 1
        made = _permit(decision, is_get, its_route, key, has_stored, client, place)
        if decision is not FORWARD:
            if decision.action is Action.PROBE:
                circuit.send_probe(now, made, self._probed(its_route))
            elif decision.action is Action.TRIAL:
                circuit.counts.trials += 1
                circuit.table.trial_at = now + constants.TRIAL_S
            elif decision.action is Action.WAIT:
                self._enqueue(now, made)
        if asker is not None and place.lane == UNSORTED:
            made.who = asker
        return made

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
        """Return what `admit` would return, and change nothing. The permit is only for reading."""
        circuit = self.circuit
        its_route = circuit.routes.peek(route, now)
        place = NOT_SORTED
        if asker is not None and circuit.fairness is not None and circuit.state is not CLOSED:
            place = circuit.fairness.place_of(asker, now, its_route.expected_s)
        is_get, has_stored = kind is not _OTHER, stored_age_s is not None
        lane = circuit.room.lane_of(place.lane)
        decision = decide(circuit, now, is_get, its_route, key, stored_age_s, client, lane)
        if decision.action is _SHED and self._holds_back:
            rejections = circuit.rejections
            return (rejections.stored if has_stored else rejections.rejects)[decision.rejection]
        made = _permit(decision, is_get, its_route, key, has_stored, client, place)
        if decision.action is Action.PROBE:
            made.probe = self._probed(its_route)
        elif decision.action is Action.WAIT and self._holds_back:
            made.phase = _QUEUED
        return made

    @property
    def _holds_back(self) -> bool:
        """Whether requests wait and are rejected: not in observe mode, except for a pause."""
        circuit = self.unsettled
        return circuit.mode is not OBSERVE or circuit.paused_until is not None

    def start_at_once(
        self, now: float, kind: Kind, route: bytes, key: bytes, has_stored: bool, client: int
    ) -> Permit | None:
        """Do the work of `admit` and `started` while the application has little to do.

        The circuit is closed then. If this returns None, `admit` decides. So the caller
        identifies the client only when the decision depends on it.

        One step instead of two (and no calls for the route and the flight) saves 4,000 of the
        84,000 instructions of the processor that a forwarded request takes, a permit that is used
        again 2,500. A test compares the results.
        """
        circuit = self.unsettled
        limit = circuit.limit
        its_route = circuit.routes.by_name.get(route)
        if its_route is None:
            its_route = circuit.routes.get(route, now)
        else:
            its_route.used_at = now
        load = limit.load
        if load >= circuit.calm or its_route.opening is not None:
            self.settle()
            return None
        if not self._spare and len(self._ended) >= SPARE_MAX:
            self.settle()
        if self._spare:
            permit = self._spare.pop()
            permit.phase = _IN_FLIGHT
            permit.is_get = kind is not _OTHER
            permit.route = its_route
            permit.key = key
            permit.has_stored = has_stored
            permit.client = client
        else:
            permit = Permit(
                _IN_FLIGHT, _IS_ADMITTED, kind is not _OTHER, its_route, key, has_stored, client
            )
            permit.is_reusable = True
        permit.started_at = now
        permit.generation = circuit.generation
        limit.load = load + 1
        rank = permit.rank = limit.in_flight = limit.in_flight + 1
        by_rank = circuit.table.by_rank
        permit.row = by_rank[rank] if rank < len(by_rank) else by_rank[-1]
        permit.uncongested = rank <= constants.UNCONGESTED_RATIO * limit.limit or rank == 1
        if circuit.baseline.cold is None:
            permit.is_cold = False
        else:
            self._start_cold(now, permit)
        if circuit.flight.counted is None:
            circuit.flight.young[permit] = None
        else:
            circuit.flight.enter(permit)
        return permit

    def shed_at_once(self, now: float, kind: Kind, route: bytes) -> Rejection | None:
        """Do the work of `wants_asker` and `admit` for a request that has a stored response.

        While the circuit is OPEN and no probe is due, it is answered from the store, whoever asks.
        If this returns None, `admit` decides. No other function has to be called: 116 of 693
        instructions of the interpreter less for an answer from the store. A test compares the
        results.
        """
        if self._ended:
            self.settle()
        circuit = self.unsettled
        if circuit.state is not OPEN or kind is _OTHER or circuit.paused_until is not None:
            return None
        if circuit.mode is HELD_OPEN:
            at = SHED_HELD_OPEN.rejection
        elif circuit.mode is AUTO and now < circuit.opening.probe_at:
            at = SHED_OPEN.rejection
        else:
            return None
        its_route = circuit.routes.by_name.get(route)
        if its_route is None:
            circuit.routes.get(route, now)
        else:
            its_route.used_at = now
        circuit.limit.shed_at = now
        shed = circuit.rejections.stored[at]
        shed.count += 1
        return shed

    def expected_wait_s(self, lane: int) -> float:
        """Return how long a GET without a stored response would wait in that lane."""
        circuit = self.circuit
        ahead = circuit.room.ahead(lane, has_stored=False)
        return ahead * circuit.baseline.mean_s / circuit.limit.gets_rate

    def wants_asker(self, has_stored: bool) -> bool:
        """Return whether the decision depends on the client.

        It does not while the application has little to do. It does not either for a request with a
        stored response while the circuit is OPEN: there are no places to share, and to identify the
        client would make the stored response cost half as much again (1,235 instructions instead
        of 841).
        """
        circuit = self.unsettled
        if has_stored and circuit.state is OPEN:
            return False
        return circuit.limit.load >= circuit.calm

    def _sort(self, now: float, asker: Asker, route: Route) -> Sorted:
        circuit = self.unsettled
        fairness = circuit.fairness
        if fairness is None or circuit.limit.load < circuit.calm:
            return NOT_SORTED
        if circuit.state is CLOSED:
            return fairness.note(asker, route.expected_s, now)
        return fairness.sort(asker, route.expected_s, now)

    def probe(self, now: float, route: bytes, key: bytes) -> Permit | None:
        """Admit a probe of RETTER's own, if `probe_wanted`: a GET without a client."""
        circuit = self.circuit
        if not circuit.probe_wanted(now):
            return None
        its_route = circuit.routes.get(route, now)
        permit = Permit(_ADMITTED, Reason.PROBE, True, its_route, key, False, 0)
        if circuit.state is OPEN:
            circuit.send_probe(now, permit, circuit.opening)
        else:
            circuit.was_asked(now)
        return permit

    def _probed(self, route: Route) -> Opening:
        """Return the opening (of the circuit or of the route) that the probe may end."""
        circuit = self.circuit
        return circuit.opening if circuit.state is OPEN or route.opening is None else route.opening

    def _enqueue(self, now: float, permit: Permit) -> None:
        circuit = self.circuit
        paused = circuit.paused_until is not None
        if not (paused or circuit.state is CLOSED or permit.has_stored):
            circuit.limit.shed_at = now
        if self._holds_back:
            circuit.counts.queued += not paused
            circuit.room.add(permit, now)
        else:
            circuit.counts.would_queue += 1

    def take_ready(self, now: float) -> list[Permit]:
        """Return the waiting permits that may go upstream now; the caller starts them at once."""
        circuit = self.circuit
        room = circuit.room
        if circuit.paused_until is not None:
            return []
        ready = room.take_released()
        limit = circuit.limit
        if room.others:
            full_at = inf if circuit.mode is OBSERVE else circuit.full_at
            while limit.in_flight + len(ready) < full_at:
                if (permit := room.next_other()) is None:
                    break
                ready.append(permit)
        cap = inf if circuit.mode is OBSERVE else circuit.cap
        while limit.load + len(ready) < cap and (permit := room.next_get()) is not None:
            ready.append(permit)
        return ready

    def decide_again(
        self, now: float, permit: Permit, is_stored: Callable[[], bool]
    ) -> Reason | None:
        """Decide again about a permit of `take_ready`; None: start it.

        Otherwise its holder answers, and its place is for the next one. This is so for a GET
        without a stored response, if others wait behind it: either its response was stored while it
        waited (`is_stored`), or the application's would come after `queue_wait_s`.
        """
        circuit = self.circuit
        if (
            not permit.is_get
            or permit.has_stored
            or permit.probe is not None
            or circuit.state is CLOSED
            or not circuit.room.waiting
        ):
            return None
        if is_stored():
            circuit.rejections.stored[SINGLE_FLIGHT.rejection].count += 1
            reason = Reason.SINGLE_FLIGHT
        elif now - permit.queued_at > circuit.last_start_s:
            circuit.counts.queue_timeouts += 1
            reason = Reason.QUEUE_TIMEOUT
        else:
            return None
        self.cancel(permit)
        return reason

    def cancel(self, permit: Permit) -> None:
        """Record that the client left before its request went upstream."""
        circuit = self.circuit
        if permit.phase is _QUEUED:
            circuit.room.cancel(permit)
            return
        assert permit.phase is _ADMITTED, f"{permit} cannot be cancelled"
        permit.phase = _DONE

    # --- the life of a permit ---

    def started(self, now: float, permit: Permit) -> None:
        """Record that the request goes upstream: RETTER connects, or writes the request head."""
        circuit = self.unsettled  # what has been learnt matters to the cold start only
        assert permit.phase is _ADMITTED, f"{permit} cannot start"
        limit = circuit.limit
        permit.phase = _IN_FLIGHT
        permit.started_at = now
        permit.generation = circuit.generation
        limit.load += 1
        rank = permit.rank = limit.in_flight = limit.in_flight + 1
        by_rank = circuit.table.by_rank
        permit.row = by_rank[rank] if rank < len(by_rank) else by_rank[-1]
        # A request alone in flight is uncongested, whatever the limit is.
        permit.uncongested = rank <= constants.UNCONGESTED_RATIO * limit.limit or rank == 1
        if circuit.baseline.cold is None:
            permit.is_cold = False
        else:
            self._start_cold(now, permit)
        circuit.flight.enter(permit)
        if circuit.fairness is not None and (permit.lane != UNSORTED or permit.asker != NOBODY):
            circuit.fairness.admitted(permit, permit.route.expected_s, now)

    def _start_cold(self, now: float, permit: Permit) -> None:
        """Note whether the request shows, during the cold start, what an answer takes.

        It does if it does not wait in the application: few are in flight, or no more than are
        proven and nobody waits. (A wide application always has more than a few in flight.)
        """
        circuit = self.circuit
        cold = circuit.baseline.cold
        permit.is_cold = cold is not None and (
            permit.rank <= constants.SMALL
            or (
                permit.rank <= circuit.table.proven
                and circuit.state is CLOSED
                and not circuit.waiting
            )
        )
        if cold is not None and permit.is_cold:
            cold.enter(now)

    def first_byte(self, now: float, permit: Permit) -> None:
        """Record the first byte of the answer: patience does not apply to it any more."""
        circuit = self.unsettled
        permit.first_byte_at = now
        circuit.counts.first_bytes.add(now - permit.started_at)
        if permit.is_old and permit.phase is _IN_FLIGHT:
            circuit.flight.look_at(permit, now + constants.BODY_MAX_S)

    def finished(self, now: float, permit: Permit, outcome: Outcome) -> None:
        """Record that the answer is complete, or that none will come.

        Called exactly once for every started permit.
        """
        circuit = self.unsettled
        if permit.phase is _DETACHED:
            permit.phase = _DONE
            return
        if outcome is _OK:
            if permit.first_byte_at >= 0:
                circuit.counts.in_pieces.add(now - permit.started_at)
            permit.is_reusable = False  # the caller may still read it
            CircuitBreaker.finished_whole(self, now, permit)
            return
        assert permit.phase is _IN_FLIGHT, f"{permit} cannot finish"
        permit.phase = _DONE
        self.settle()
        leave(circuit, now, permit, False)
        if outcome is not _NEUTRAL:
            failed(circuit, now, permit, refused=outcome is Outcome.REFUSED)

    def finished_whole(self, now: float, permit: Permit) -> bool:
        """Do the work of `finished` for a good answer that came in one piece.

        The caller must not use the permit any more: it may be another request's next.

        Nearly always it is a usual answer, of which the circuit learns later, with the others since
        the last tick (`settle`): to learn of one takes 260 instructions of the interpreter, of
        several 160 each.

        Returns:
            Whether the circuit has learnt of it already. Otherwise no decision depends on it.
        """
        circuit = self.unsettled
        assert permit.phase is _IN_FLIGHT, f"{permit} cannot finish"
        permit.phase = _DONE
        limit, flight = circuit.limit, circuit.flight
        if (
            circuit.calm  # so it is closed
            and permit.probe is None
            and not (permit.is_cold or permit.is_old or permit.is_judged or limit.old_others)
            and flight.counted is None
            and permit.route.opening is None
            and permit.generation == circuit.generation
            and permit.rank <= circuit.table.ceiling
            and not circuit.room.waiting
        ):
            limit.in_flight -= 1
            limit.load -= 1
            del flight.young[permit]
            permit.ended_at = now
            self._ended.append(permit)
            if not permit.is_reusable:
                self._kept = True
            return False
        self.settle()
        leave(circuit, now, permit, True)
        succeeded(circuit, now, permit)
        spare = self._spare
        if (
            permit.is_reusable
            and not (permit.is_old or permit.is_judged)
            and len(spare) < SPARE_MAX
        ):
            spare.append(permit)
        return True

    def detach(self, now: float, permit: Permit) -> None:
        """Stop counting a tunnel or a stream: it no longer shows the application's load."""
        endings.detach(self.circuit, now, permit)

    # --- the tick ---

    def tick(self, now: float) -> list[Permit]:
        """Do the work that is due; called every 50 ms.

        Returns the permits whose holder must answer the client without the application:

        - Its wait has expired (DONE; `reason` says why): with the stored response or 503.
        - It is in flight and its patience is over (IN_FLIGHT, reason PATIENCE): with the stored
          response. `finished` is still called later.
        """
        return sweep.tick(self.circuit, now)

    # --- what operators see ---

    @property
    def waiting(self) -> int:
        """Number of queued requests. If it is 0, `take_ready` need not be called."""
        return self.unsettled.room.waiting

    def all_waiting(self) -> list[Permit]:
        """Return the permits of all requests that are queued."""
        return self.circuit.room.all_waiting()

    def patience_of(self, route: bytes) -> float:
        """Return how many seconds a GET of that route may take now: its patience."""
        circuit = self.circuit
        known = circuit.routes.peek(route, 0.0)
        if circuit.state is CLOSED and known.opening is None:
            return circuit.settings.patience_while_closed_s(known.expected_s)
        return circuit.settings.patience_s(known.expected_s)

    def all_routes(self) -> Iterator[Route]:
        """Yield every route, and last the one that all routes outside the table share."""
        return self.circuit.routes.all()

    def latency(self) -> Histogram:
        """Return how long good answers took until they were complete."""
        return self.circuit.routes.latency()

    @property
    def answers_whole(self) -> int:
        """Number of good answers that came in one piece (without `first_byte`)."""
        circuit = self.circuit
        return sum(self.latency().counts) - sum(circuit.counts.in_pieces.counts)

    def first_byte_latency(self) -> Histogram:
        """Return how long answers took until their first byte.

        For an answer in one piece, that is the time of its end. Answers in pieces are counted at
        their first byte, even if they fail later.
        """
        counts = self.circuit.counts
        begun = self.latency().without(counts.in_pieces)
        begun.merge(counts.first_bytes)
        return begun

    def snapshot(self, now: float) -> Snapshot:
        """Return all figures as they are now."""
        return snapshot(self.circuit, now)
