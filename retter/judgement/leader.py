"""The leader's part: it judges for all workers, by the events and figures that they write.

The breaker of the leader is the same as that of a process alone. It sees every answer as if the
application had given it here, the requests in flight of all workers, and those who wait anywhere.
"""

from collections.abc import Sequence
from operator import attrgetter
from typing import Final

from retter.base.counters import LATENCY_BOUNDS_S, Histogram
from retter.base.reason import Reason
from retter.breaker.circuit import Circuit
from retter.breaker.endings import failed, outlived_patience, succeeded
from retter.breaker.figures import FIGURES, figures, route_numbers, tables, take_routes
from retter.breaker.opening import Opening
from retter.breaker.permit import Permit, Phase
from retter.breaker.routes import Route
from retter.breaker.states import Signal, State
from retter.judgement.events import (
    IS_GET,
    IS_JUDGED,
    IS_SLOW,
    PROBES_CIRCUIT,
    PROBES_ROUTE,
    UNCONGESTED,
    Event,
    Happened,
    Ring,
)
from retter.judgement.flight import NOTHING_OLD, SharedFlight
from retter.judgement.memory import FAILED, PASSED, SHED_AT, Memory
from retter.judgement.names import name_of
from retter.judgement.teller import Teller

# Events of one worker that are processed on one tick. So a burst costs 3 ms; of older events only
# the number is used.
EVENTS_A_TICK_MAX: Final = 1024
TABLES_EVERY: Final = 4  # ticks: the service times of routes change slowly
OLDEST_TOLD: Final = 3  # a stall is seen by the third-oldest request in flight (pulse.py)
_ROUTES_KNOWN_MAX: Final = 1024
_BY_TIME: Final = attrgetter("at")

# Plain numbers: a look at an attribute of an enumeration costs as much as a call.
_PASSED: Final = int(Happened.PASSED)
_REFUSED: Final = int(Happened.REFUSED)
_SLOW: Final = int(Happened.SLOW)
_LATE: Final = int(Happened.LATE)
_PROBED: Final = int(Happened.PROBED)
_NO_PLACE: Final = int(Happened.NO_PLACE)


class Leader:
    """Processes the events of the other workers, and publishes the judgement.

    Args:
        term: Higher than that of any leader before.
        tails: How far the events of each worker have been read by the leader before.
    """

    __slots__ = (
        "_ghost", "_histogram", "_index", "_memory", "_names", "_opened", "_published", "_rings",
        "_seen", "_tables_in", "_tails", "term",
    )  # fmt: skip

    def __init__(
        self, circuit: Circuit, memory: Memory, index: int, term: int, tails: list[int] | None
    ) -> None:
        self.term = term
        self._memory = memory
        self._index = index
        self._rings = [Ring(memory, one) for one in range(memory.workers)]
        self._tails = [ring.head for ring in self._rings] if tails is None else tails
        # By worker: good answers, failures, cold seconds and cold answers, as taken in so far.
        self._seen = [
            [float(memory.words[slot.word + PASSED]), float(memory.words[slot.word + FAILED]), 0, 0]
            for slot in memory.slots
        ]
        if tails is not None:
            self._forget_unread()
        self._names: dict[int, bytes] = {}
        self._ghost = Permit(
            Phase.IN_FLIGHT, Reason.ADMITTED, True, circuit.routes.other, b"", False, 0
        )
        self._histogram = Histogram(LATENCY_BOUNDS_S)
        self._tables_in: int = 0
        self._opened: float = 0.0  # the sum of the times of the next probes
        self._published: tuple[object, ...] = ()

    def _forget_unread(self) -> None:
        """Count the events since the tails as not processed yet."""
        for ring, tail, seen in zip(self._rings, self._tails, self._seen, strict=True):
            for event in ring.read(tail, EVENTS_A_TICK_MAX)[0]:
                if event.kind == _PASSED:
                    seen[0] -= 1
                elif event.kind <= _REFUSED:
                    seen[1] -= 1

    # --- what happened elsewhere ---

    def take_in(self, circuit: Circuit, now: float) -> None:
        """Process all events since the last time, in the order in which they happened."""
        events: list[Event] = []
        for index, ring in enumerate(self._rings):
            tail = self._tails[index]
            if ring.head == tail:
                continue
            found, self._tails[index], lost = ring.read(tail, EVENTS_A_TICK_MAX)
            seen = self._seen[index]
            for event in found:
                if event.kind == _PASSED:
                    seen[0] += 1
                elif event.kind <= _REFUSED:
                    seen[1] += 1
            if lost:
                self._count_lost(circuit, index, lost)
            events += found
        if events:
            events.sort(key=_BY_TIME)
            for event in events:
                self._take(circuit, event, now)

    def _count_lost(self, circuit: Circuit, index: int, lost: int) -> None:
        """Count events that were overwritten: the number of good answers among them is known."""
        word, seen = self._memory.slots[index].word, self._seen[index]
        passed = max(0, min(lost, int(self._memory.words[word + PASSED] - seen[0])))
        failures = max(0, min(lost - passed, int(self._memory.words[word + FAILED] - seen[1])))
        seen[0] += passed
        seen[1] += failures
        limit, recent = circuit.limit, circuit.failures.recent
        limit.completions += passed
        limit.work_s += passed * circuit.baseline.mean_s
        recent.passed += passed
        recent.failed += failures

    def _take(self, circuit: Circuit, event: Event, now: float) -> None:
        at = min(now, event.at)
        kind = event.kind
        if kind == _NO_PLACE:
            if circuit.state is State.CLOSED:
                circuit.fire(at, Signal.NO_PERMITS)
            return
        route = self._route_of(circuit, event.route, now)
        if kind == _PROBED:
            if route.opening is not None:
                route.opening.send(at)
            return
        permit = self._stand_in(circuit, event, route)
        if kind == _PASSED:
            # The worker that served it has counted how long it took.
            own, route.latency = route.latency, self._histogram
            succeeded(circuit, at, permit)
            route.latency = own
        elif kind == _LATE:
            if event.started_at >= circuit.pulse.woke_at:
                permit.row.late += 1
        elif kind == _SLOW:
            outlived_patience(circuit, at, permit)
        else:
            errors = route.errors
            failed(circuit, at, permit, refused=kind == _REFUSED)
            route.errors = errors

    def _stand_in(self, circuit: Circuit, event: Event, route: Route) -> Permit:
        """Return a permit with all that is known of the request, valid until the next call."""
        permit, flags, by_rank = self._ghost, event.flags, circuit.table.by_rank
        permit.route = route
        permit.client = event.client
        permit.started_at = event.started_at
        permit.generation = event.generation
        permit.rank = event.rank
        permit.row = by_rank[min(event.rank, len(by_rank) - 1)]
        permit.is_get = bool(flags & IS_GET)
        permit.uncongested = bool(flags & UNCONGESTED)
        permit.is_judged = bool(flags & IS_JUDGED)
        permit.is_slow = bool(flags & IS_SLOW)
        permit.probe = None
        if flags & PROBES_CIRCUIT:
            current = event.generation == circuit.generation
            permit.probe = circuit.opening if current else _ENDED
        elif flags & PROBES_ROUTE:
            permit.probe = _ENDED if route.opening is None else route.opening
        return permit

    def _route_of(self, circuit: Circuit, number: int, now: float) -> Route:
        if not number:
            return circuit.routes.other
        name = self._names.get(number)
        if name is None:
            found = name_of(self._memory, number)
            if found is None:
                return circuit.routes.other
            if len(self._names) >= _ROUTES_KNOWN_MAX:
                self._names.clear()
            name = self._names[number] = found
        return circuit.routes.get(name, now)

    # --- the state of the other workers ---

    def sum_up(self, circuit: Circuit, others: list[int]) -> None:
        """Add up the figures of the other workers that live, given by their indices."""
        memory = self._memory
        oldest: list[Permit] = []
        for index in others:
            slot = memory.slots[index]
            circuit.limit.shed_at = max(circuit.limit.shed_at, memory.floats[slot.word + SHED_AT])
            read = slot.report.read()
            if read is None:
                continue
            spent_s, completions, *old = read[1]
            self._take_cold(circuit, index, spent_s, int(completions))
            oldest += [
                self._old(circuit, started_at, int(number))
                for started_at, number in zip(old[::2], old[1::2], strict=True)
                if started_at != NOTHING_OLD
            ]
        flight = circuit.flight
        assert isinstance(flight, SharedFlight)
        flight.elsewhere = oldest

    def _take_cold(self, circuit: Circuit, index: int, spent_s: float, completions: int) -> None:
        seen = self._seen[index]
        if completions < seen[3]:  # another process of this worker
            seen[2] = seen[3] = 0
        if completions > seen[3] or spent_s > seen[2]:
            circuit.baseline.cold_elsewhere(spent_s - seen[2], completions - int(seen[3]))
            seen[2], seen[3] = spent_s, completions

    def _old(self, circuit: Circuit, started_at: float, number: int) -> Permit:
        name = self._names.get(number, b"")
        route = circuit.routes.peek(name, 0.0) if name else circuit.routes.other
        permit = Permit(Phase.IN_FLIGHT, Reason.ADMITTED, True, route, b"", False, 0)
        permit.started_at = started_at
        return permit

    # --- the judgement ---

    def take_routes(self, circuit: Circuit, said: Sequence[float], now: float) -> None:
        """Take over all routes of the previous leader, also those that are unknown here."""
        for number in route_numbers(said):
            self._route_of(circuit, number, now)
        take_routes(circuit, said, now)

    def publish(self, circuit: Circuit, now: float) -> int:
        """Publish the figures; return the serial number of their block."""
        slot = self._memory.slots[self._index]
        self._published = _in_short(circuit)
        return slot.figures.write([self.term, now, *figures(circuit), *self._tails])

    def publish_changed(self, circuit: Circuit, now: float) -> int:
        """Publish the figures if the others would decide differently; return the serial, or 0."""
        return self.publish(circuit, now) if _in_short(circuit) != self._published else 0

    def publish_tables(self, circuit: Circuit, teller: Teller) -> None:
        """Publish the tables on every fourth tick, or at once if an open route has changed."""
        opened: float = sum([one.opening.probe_at for one in circuit.routes if one.opening])
        self._tables_in -= 1
        if self._tables_in > 0 and opened == self._opened:
            return
        self._tables_in, self._opened = TABLES_EVERY, opened
        for route in circuit.routes:
            teller.number_of(route)
        self._memory.slots[self._index].tables.write(tables(circuit))


def _in_short(circuit: Circuit) -> tuple[object, ...]:
    return (
        circuit.state, circuit.generation, circuit.cap, circuit.opening.probe_at,
        circuit.table.trial_at,
    )  # fmt: skip


def tails_of(published: tuple[float, ...]) -> list[int]:
    """Return how far the events had been read when these figures were published."""
    return [int(tail) for tail in published[2 + FIGURES :]]


# Used for an opening that is over: the answer to its probe changes nothing.
_ENDED: Final = Opening(0.0, 1.0, 1.0)
