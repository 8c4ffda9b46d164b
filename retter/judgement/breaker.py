"""The breaker of one worker among several, which share one judgement.

One worker leads: worker 0, or else the lowest one that lives. Its breaker judges for all and
publishes its figures (leader.py). The others decide by those figures, count their own requests in
flight, and tell the leader what the application does. If the leader is silent for a second, the
next one goes on from what was published. Until then the others decide by the last figures. The sum
of what is in flight needs no leader, so the limit holds meanwhile.

The caller provides the memory; `memory.py` says what it must be like.
"""

from collections.abc import Callable
from math import inf
from typing import Final

from retter.base.errors import Outcome
from retter.base.shared_memory import places_of
from retter.base.worker_place import WorkerPlace
from retter.breaker import constants
from retter.breaker.breaker import CircuitBreaker
from retter.breaker.circuit import Circuit
from retter.breaker.endings import late_in_flight, leave
from retter.breaker.fairness import Asker
from retter.breaker.figures import mode_number, mode_of, take_figures, take_routes, take_rows
from retter.breaker.permit import Kind, Permit, Phase, Rejection
from retter.breaker.settings import BreakerSettings
from retter.breaker.states import State, Transition
from retter.judgement.demand import SharedDemand
from retter.judgement.events import Happened
from retter.judgement.flight import NOTHING_OLD, SharedFlight
from retter.judgement.leader import OLDEST_TOLD, Leader, tails_of
from retter.judgement.memory import (
    HEARTBEAT,
    IN_FLIGHT,
    LINES,
    LINES_WAITING,
    OLD_OTHERS,
    ORDERED_AT,
    OTHERS_WAITING,
    PROBED_AT,
    SHED_AT,
    TRIED_AT,
    WAITING,
    Memory,
)
from retter.judgement.room import SharedLanes
from retter.judgement.teller import Teller
from retter.judgement.tickets import SharedTickets

# A worker without a heartbeat for this long counts as having nothing in flight, and does not lead.
# An event loop that is blocked for a second serves nobody either.
SILENT_S: Final = 1.0
# The workers probe an open route in turn. After this wait, a worker knows whether the one before it
# has sent a probe: an event and the tables take a tick each.
PROBE_LAG_S: Final = 0.1
# A worker that is blocked for longer takes no place, so no other worker waits for it.
HELD_UP_S: Final = 0.2

NEVER_SAID: Final = -1.0  # in an order: no such time

_PASSED: Final = int(Happened.PASSED)
_FAILED: Final = int(Happened.FAILED)
_REFUSED: Final = int(Happened.REFUSED)
_OK: Final = Outcome.OK
_NEUTRAL: Final = Outcome.NEUTRAL
_CLOSED: Final = State.CLOSED
_OPEN: Final = State.OPEN

_IN_FLIGHT: Final = Phase.IN_FLIGHT
_DETACHED: Final = Phase.DETACHED
_DONE: Final = Phase.DONE

# Called directly: that costs less than `super()`, and they run for every request.
_at_once: Final = CircuitBreaker.start_at_once
_shed_at_once: Final = CircuitBreaker.shed_at_once
_admit: Final = CircuitBreaker.admit
_started: Final = CircuitBreaker.started
_finished: Final = CircuitBreaker.finished
_whole: Final = CircuitBreaker.finished_whole


def worker_breaker(
    settings: BreakerSettings,
    now: float,
    on_transition: Callable[[Transition], None],
    on_follow: Callable[[State], None],
    secret: bytes,
    place: WorkerPlace,
) -> "SharedBreaker":
    """Make the breaker of a worker; in a takeover, the workers of both RETTERs share the memory."""
    memory = Memory(place.judgement, places_of(place.workers))
    return SharedBreaker(settings, now, on_transition, on_follow, secret, memory, place.place)


class SharedBreaker(CircuitBreaker):
    """A `CircuitBreaker` that shares its judgement with those of other workers.

    Args:
        on_transition: Called for every change of state while this worker leads.
        on_follow: Called with the state whenever another worker has changed it.
        memory: Shared by all workers.
        index: The number of this worker, from 0.
    """

    __slots__ = (
        "_cold",
        "_demand",
        "_demand_at",
        "_figures_at",
        "_floats",
        "_fresh",
        "_index",
        "_leader",
        "_leader_at",
        "_memory",
        "_on_follow",
        "_ordered_at",
        "_others",
        "_others_at",
        "_others_old",
        "_own",
        "_room",
        "_serial",
        "_tables",
        "_tables_serial",
        "_teller",
        "_tickets",
        "_told",
        "_told_waiting",
        "_turn",
        "_windows",
        "_word",
        "_words",
        "others_living",
    )  # fmt: skip

    def __init__(
        self,
        settings: BreakerSettings,
        now: float,
        on_transition: Callable[[Transition], None] | None,
        on_follow: Callable[[State], None] | None,
        secret: bytes,
        memory: Memory,
        index: int,
    ) -> None:
        super().__init__(settings, now, on_transition, secret)
        circuit = self.circuit
        memory.begin(index)
        circuit.flight = SharedFlight()
        self._demand: SharedDemand | None = None
        self._demand_at = -inf  # when it was told
        self._tickets: SharedTickets | None = None
        if circuit.fairness is not None:
            self._tickets = circuit.fairness.tickets = SharedTickets(secret, memory, index)
            circuit.fairness.demand = self._demand = SharedDemand()
        circuit.room = self._room = SharedLanes(circuit.room.fairness)
        self._on_follow = on_follow
        self._memory = memory
        self._words = memory.words
        self._floats = memory.floats
        self._index = index
        self._word = memory.slots[index].word
        self._teller = Teller(memory, index, circuit.routes.other, on_follow)
        self._cold = circuit.baseline.cold
        self._own = 0  # requests in flight here
        self._others = 0  # and in the other workers
        self._others_old = 0  # of the others': other methods that outlived their patience
        self.others_living: list[int] = []  # the others that live
        self._others_at: list[int] = []  # the words with the counts in flight of living workers
        self._fresh: list[int] = []  # the first words of other workers that are not blocked
        self._leader_at = index  # who leads
        self._leader: Leader | None = None  # this worker, if it leads
        self._figures_at = 0  # the word with the serial number of the leader's figures
        self._serial = 0  # of the figures by which this worker decides
        self._tables: tuple[float, ...] = (0.0,)
        self._tables_serial = 0
        self._turn = 0  # number of living workers before this one
        self._windows = 0
        self._told = _orders_of(circuit)
        self._ordered_at = 0.0
        self._told_waiting = 0
        self._look_around(now)
        self._follow_orders(now)
        self._choose_leader(now)
        self._show_life(now)
        self._look(now)

    @property
    def leads(self) -> bool:
        """Whether this worker judges for all."""
        return self._leader is not None

    @property
    def leader_place(self) -> int:
        """The place of the worker that judges for all, as this worker knows it."""
        return self._leader_at

    @property
    def own_in_flight(self) -> int:
        """The number of requests of this worker that the application works on."""
        return self._own

    # --- the decision ---

    def start_at_once(
        self, now: float, kind: Kind, route: bytes, key: bytes, has_stored: bool, client: int
    ) -> Permit | None:
        """See `CircuitBreaker.start_at_once`."""
        self._look(now)
        permit = _at_once(self, now, kind, route, key, has_stored, client)
        if permit is not None:
            own = self._own = self._own + 1
            self._words[self._word + IN_FLIGHT] = own
        return permit

    def shed_at_once(self, now: float, kind: Kind, route: bytes) -> Rejection | None:
        """See `CircuitBreaker.shed_at_once`. What happens in the other workers does not matter."""
        if self._leader is None and self._words[self._figures_at] != self._serial:
            self._follow(now)
        return _shed_at_once(self, now, kind, route)

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
        """See `CircuitBreaker.admit`."""
        circuit = self.circuit
        self._look(now)
        self._look_at_others(now)
        state, trial_at = circuit.state, circuit.table.trial_at
        made = _admit(self, now, kind, route, key, stored_age_s, client, asker)
        if asker is not None and self._tickets is not None:
            self._tickets.settle()
        if circuit.state is _CLOSED:
            if circuit.room.waiting:
                self._tell(now, trial_at)
        elif made.__class__ is Permit or circuit.state is not state:  # else nothing has changed
            self._tell(now, trial_at)
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
        """See `CircuitBreaker.would`."""
        self._look(now)
        self._look_at_others(now)
        return super().would(now, kind, route, key, stored_age_s, client, asker)

    def probe(self, now: float, route: bytes, key: bytes) -> Permit | None:
        """See `CircuitBreaker.probe`."""
        self._look(now)
        self._look_at_others(now)
        circuit = self.circuit
        trial_at = circuit.table.trial_at
        permit = super().probe(now, route, key)
        self._tell(now, trial_at)
        return permit

    def take_ready(self, now: float) -> list[Permit]:
        """See `CircuitBreaker.take_ready`."""
        self._look(now)
        self._look_at_others(now)
        ready = super().take_ready(now)
        self._tell_waiting()
        return ready

    def cancel(self, permit: Permit) -> None:
        """See `CircuitBreaker.cancel`."""
        super().cancel(permit)
        self._tell_waiting()

    # --- the life of a permit ---

    def started(self, now: float, permit: Permit) -> None:
        """See `CircuitBreaker.started`."""
        _started(self, now, permit)
        self._own += 1
        self._words[self._word + IN_FLIGHT] = self._own

    def finished(self, now: float, permit: Permit, outcome: Outcome) -> None:
        """See `CircuitBreaker.finished`."""
        counted, leader = permit.phase is _IN_FLIGHT, self._leader
        if leader is not None:
            _finished(self, now, permit, outcome)
        else:
            self._finished_here(now, permit, outcome)
        if counted:
            self._own -= 1
            self._words[self._word + IN_FLIGHT] = self._own
        if leader is not None and not self._ended:  # else nothing that the others decide by changed
            self._serial = leader.publish_changed(self.unsettled, now) or self._serial

    def finished_whole(self, now: float, permit: Permit) -> bool:
        """See `CircuitBreaker.finished_whole`."""
        own = self._own = self._own - 1
        self._words[self._word + IN_FLIGHT] = own
        leader = self._leader
        if leader is None:
            assert permit.phase is _IN_FLIGHT, f"{permit} cannot finish"
            self._finished_here(now, permit, _OK)
        elif not _whole(self, now, permit):
            return False  # nothing of what the others decide by has changed
        elif serial := leader.publish_changed(self.unsettled, now):
            self._serial = serial
        return True

    def _finished_here(self, now: float, permit: Permit, outcome: Outcome) -> None:
        """Do the part of `finished` that is not the leader's."""
        circuit = self.unsettled
        if permit.phase is _DETACHED:
            permit.phase = _DONE
            return
        assert permit.phase is _IN_FLIGHT, f"{permit} cannot finish"
        permit.phase = _DONE
        leave(circuit, now, permit, outcome is _OK)
        if outcome is _NEUTRAL:
            return
        route, clients = permit.route, circuit.failures.clients
        if outcome is _OK:
            took_s = now - permit.started_at
            route.latency.add(took_s)
            if permit.first_byte_at >= 0:
                circuit.counts.in_pieces.add(took_s)
            clients.passed(permit.client, now)
            kind = _PASSED
        else:
            route.errors += 1
            clients.failed(permit.client, now)
            kind = _REFUSED if outcome is Outcome.REFUSED else _FAILED
        self._teller.tell(now, permit, kind, circuit.opening)

    def detach(self, now: float, permit: Permit) -> None:
        """See `CircuitBreaker.detach`."""
        super().detach(now, permit)
        self._count_own()

    def _count_own(self) -> None:
        self._own = self.unsettled.limit.in_flight - self._others
        self._words[self._word + IN_FLIGHT] = self._own

    # --- the tick ---

    def tick(self, now: float) -> list[Permit]:
        """See `CircuitBreaker.tick`."""
        circuit = self.circuit
        self._look_around(now)
        self._follow_orders(now)
        self._choose_leader(now)
        self._show_life(now)
        self._look(now)
        self._look_at_others(now)
        self._count_old()
        if self._leader is not None:
            self._leader.take_in(circuit, now)
            self._leader.sum_up(circuit, self.others_living)
        else:
            self._look_for_late(now)
        self._share_demand(now)
        trial_at = circuit.table.trial_at
        answer = super().tick(now)
        if self._told[1] != NEVER_SAID and circuit.paused_until is None:
            self._told = _orders_of(circuit)  # the pause is over; every worker knows when it ends
        self._count_own()
        self._tell(now, trial_at)
        self._report(now)
        if self._leader is not None:
            self._leader.publish_tables(circuit, self._teller)
            self._serial = self._leader.publish(circuit, now)
        return answer

    def _share_demand(self, now: float) -> None:
        """Tell the demand of this worker's clients, and hear of the others' clients."""
        demand = self._demand
        if demand is not None and now - self._demand_at >= constants.FAIR_SHARE_EVERY_S:
            self._demand_at = now
            demand.tell(self._memory, self._index, now)
            demand.hear(self._memory, self.others_living, now)

    def _count_old(self) -> None:
        """Count the slow requests of other methods in the other workers."""
        limit = self.circuit.limit
        old = sum(self._words[at - IN_FLIGHT + OLD_OTHERS] for at in self._others_at)
        if old != self._others_old:
            limit.old_others += old - self._others_old
            self._others_old = old
            limit.weigh()

    def _look_around(self, now: float) -> None:
        """Find out which workers are alive."""
        memory = self._memory
        others = [
            slot
            for slot in memory.slots
            if slot.index != self._index and memory.lives(slot.index, now, SILENT_S)
        ]
        self.others_living = [slot.index for slot in others]
        self._others_at = [slot.word + IN_FLIGHT for slot in others]
        self._turn = len([slot for slot in others if slot.index < self._index])
        self._fresh = [slot.word for slot in others if memory.lives(slot.index, now, HELD_UP_S)]
        leader_at: int = min([self._index, *self.others_living])
        if leader_at != self._leader_at:
            self._leader_at = leader_at
            self._serial = self._tables_serial = 0
        self._figures_at = memory.slots[leader_at].figures.word

    def _show_life(self, now: float) -> None:
        """Write a heartbeat. A worker that begins to lead by it publishes its figures first."""
        self._floats[self._word + HEARTBEAT] = now

    def _choose_leader(self, now: float) -> None:
        """Begin to lead if it is this worker's turn, or stop leading if it is not."""
        circuit = self.circuit
        if self._leader_at != self._index:
            if self._leader is not None:
                self._leader = None
                self._serial = self._tables_serial = 0
            circuit.elsewhere = self._teller
        elif self._leader is None or self._newest()[0] > self._leader.term:
            self._lead(now)

    def _newest(self) -> tuple[int, int]:
        """Return the highest term in which figures were published, and the worker that did so."""
        best = (0, self._index)
        for slot in self._memory.slots:
            term = self._floats[slot.figures.word + 2]  # the first number in the block
            if term > best[0]:
                best = (int(term), slot.index)
        return best

    def _lead(self, now: float) -> None:
        """Begin to lead: go on from what the leader before has published."""
        circuit = self.circuit
        term, index = self._newest()
        tails: list[int] | None = None
        published = self._memory.slots[index].figures.read() if term else None
        if published is not None:
            take_figures(circuit, published[1][2:], now)
            if self._on_follow is not None:
                self._on_follow(circuit.state)
            tails = tails_of(published[1])
            told = self._memory.slots[index].tables.read()
            if told is not None:
                self._tables = told[1]
        circuit.elsewhere = None
        self._leader = Leader(circuit, self._memory, self._index, term + 1, tails)
        if term:
            take_rows(circuit, self._tables)
            self._leader.take_routes(circuit, self._tables, now)
        circuit.limit.restart_window(now)
        self._serial = self._leader.publish(circuit, now)

    def _look_for_late(self, now: float) -> None:
        """Tell which requests in flight are late, as often as the leader examines its own."""
        circuit = self.circuit
        windows = circuit.limit.windows
        if windows == self._windows and not (circuit.state is _CLOSED and circuit.crowded):
            return
        self._windows = windows
        for permit in late_in_flight(circuit, now):
            self._teller.late(now, permit)

    def _report(self, now: float) -> None:
        """Write what the leader needs once a tick."""
        circuit = self.circuit
        self._words[self._word + OLD_OTHERS] = circuit.limit.old_others - self._others_old
        self._floats[self._word + SHED_AT] = circuit.limit.shed_at
        if self._leader is not None:
            return
        cold = self._cold
        said: list[float] = [0, 0] if cold is None else [cold.spent_s, cold.completions]
        for permit in circuit.flight.oldest_first(OLDEST_TOLD):
            said += (permit.started_at, self._teller.number_of(permit.route))
        said += [NOTHING_OLD, 0] * (OLDEST_TOLD - (len(said) - 2) // 2)
        self._memory.slots[self._index].report.write(said)

    # --- what the others do ---

    def _look(self, now: float) -> None:
        """Count what is in flight elsewhere, and take over new figures of the leader."""
        words = self._words
        others = 0
        for at in self._others_at:
            others += words[at]
        if others != self._others:
            limit = self.unsettled.limit
            limit.in_flight += others - self._others
            self._others = others
            limit.weigh()
        if words[self._figures_at] != self._serial and self._leader is None:
            self._follow(now)

    def _follow(self, now: float) -> None:
        """Take over the leader's figures."""
        circuit = self.circuit
        slot = self._memory.slots[self._leader_at]
        published = slot.figures.read()
        if published is not None:
            self._serial = published[0]
            before = circuit.state
            take_figures(circuit, published[1][2:], now)
            if circuit.state is not before and self._on_follow is not None:
                self._on_follow(circuit.state)
        if slot.tables.serial != self._tables_serial:
            told = slot.tables.read()
            if told is not None:
                self._tables_serial, self._tables = told
                take_routes(circuit, self._tables, now, self._turn * PROBE_LAG_S)
        self._look_at_claims()

    def _look_at_others(self, now: float) -> None:
        """Count the requests that wait elsewhere, and look for probes and trials of others."""
        words, circuit = self._words, self.circuit
        waiting = 0
        for at in self._fresh:
            waiting += words[at + WAITING]
        if waiting or circuit.waiting_elsewhere:
            circuit.waiting_elsewhere = waiting
            others, lines = 0, [0] * LINES
            for at in self._fresh:
                others += words[at + OTHERS_WAITING]
                for line in range(LINES):
                    lines[line] += words[at + LINES_WAITING + line]
            self._room.note(others, lines)
        # Before that, this worker would send none.
        if (circuit.table.ceiling < inf and now >= circuit.table.trial_at) or (
            circuit.state is _OPEN and now >= circuit.opening.probe_at
        ):
            self._look_at_claims()

    def _look_at_claims(self) -> None:
        """Note when others sent a probe or a trial: one by any worker is enough."""
        circuit, floats = self.circuit, self._floats
        opening, table = circuit.opening, circuit.table
        for at in self._fresh:
            probed_at = floats[at + PROBED_AT]
            if probed_at >= opening.probe_at:
                opening.probe_at = probed_at + opening.wait_s
            tried_at = floats[at + TRIED_AT]
            if tried_at >= table.trial_at:
                table.trial_at = tried_at + constants.TRIAL_S

    # --- what the others see ---

    def _tell(self, now: float, trial_at: float) -> None:
        """Tell the others what changed; `trial_at` is when a trial was due before."""
        table = self.circuit.table
        if self._leader is not None:
            self._publish_changed(now)
        elif table.trial_at != trial_at:
            self._floats[self._word + TRIED_AT] = now
        self._tell_waiting()

    def _publish_changed(self, now: float) -> None:
        assert self._leader is not None
        self._serial = self._leader.publish_changed(self.circuit, now) or self._serial

    def _tell_waiting(self) -> None:
        room, words, word = self._room, self._words, self._word
        if room.waiting or self._told_waiting:
            self._told_waiting = words[word + WAITING] = room.waiting
            words[word + OTHERS_WAITING] = room.others
            for line, count in enumerate(room.told()):
                words[word + LINES_WAITING + line] = count

    # --- operators ---

    def _follow_orders(self, now: float) -> None:
        """Carry out the last order that an operator gave to any worker."""
        circuit, memory = self.circuit, self._memory
        orders = _orders_of(circuit)
        if orders != self._told:
            self._told = orders
            memory.slots[self._index].order.write(list(orders))
            self._ordered_at = self._floats[self._word + ORDERED_AT] = now
            return
        for slot in memory.slots:
            ordered_at = self._floats[slot.word + ORDERED_AT]
            if ordered_at > self._ordered_at and (order := slot.order.read()) is not None:
                self._ordered_at = ordered_at
                self._obey(now, *order[1])

    def _obey(self, now: float, mode: float, paused_until: float, forced_until: float) -> None:
        circuit = self.circuit
        circuit.set_mode(now, mode_of(mode))
        circuit.forced_until = None if forced_until == NEVER_SAID else forced_until
        if paused_until != NEVER_SAID:
            circuit.pause(now, paused_until)
        elif circuit.paused_until is not None:
            circuit.resume(now)
        self._told = _orders_of(circuit)


def _orders_of(circuit: Circuit) -> tuple[float, float, float]:
    """Return what operators have ordered: the mode, and the ends of the pause and of the mode."""
    paused_until, forced_until = circuit.paused_until, circuit.forced_until
    return (
        mode_number(circuit.mode),
        NEVER_SAID if paused_until is None else paused_until,
        NEVER_SAID if forced_until is None else forced_until,
    )
