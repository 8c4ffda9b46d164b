"""The queue in lanes: clients that ask for little do not wait for clients that ask for much.

    known     known and not heavy
    stranger  neither known nor heavy
    heavy     all others

A place goes to the first lane in which a request waits. So no request waits for a later lane, and
an empty lane costs nothing. One place in HEAVY_TURN goes to the heavy lane, which would starve
otherwise.

Within a lane, one place in STORED_TURN goes to a request with a stored response, and the others go
to requests without one. A turn that no request can use is kept, up to TURNS_KEPT_MAX. So requests
with a stored response hardly wait if they are fewer than their share, and get no more than their
share if they are more.

fairness.py decides the lane of a request. Other methods come before all lanes (queue.py).
"""

from collections import deque
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import islice

from retter.breaker import constants
from retter.breaker.demand import DemandTable
from retter.breaker.fairness import Asker, Sorted
from retter.breaker.permit import HEAVY, KNOWN, STRANGER, UNSORTED, Permit, Phase
from retter.breaker.queue import WaitingRoom
from retter.breaker.tickets import Tickets

_LANES = (KNOWN, STRANGER, HEAVY)
_NO_PLACE_FOR_HEAVY = (KNOWN, STRANGER)
_HEAVY_FIRST = (HEAVY, KNOWN, STRANGER)


def _between() -> int:
    """Return how many requests without a stored response go between two turns of the others."""
    return constants.STORED_TURN - 1


def _queued_at(permit: Permit) -> float:
    return permit.queued_at


class Lanes(WaitingRoom):
    """A waiting room with two queues for each lane: without and with a stored response."""

    __slots__ = (
        "_by_age",
        "_demand",
        "_given",
        "_serial",
        "_tickets",
        "_waited",
        "all_counts",
        "counts",
    )

    def __init__(self, demand: DemandTable, tickets: Tickets) -> None:
        super().__init__()
        self._demand = demand
        self._tickets = tickets
        # By 2 * lane + has_stored. Permits that left a queue early are skipped later.
        self._lines: list[deque[Permit]] = [deque() for _ in range(2 * len(_LANES))]
        self.counts = [0] * (2 * len(_LANES))
        self.all_counts = self.counts  # with those who wait in other workers, if there are any
        # Permits with a ticket, oldest first. They are in their queue too, for its time limit.
        self._by_age: list[tuple[float, int, Permit]] = []
        self._serial = 0
        # By lane: places for requests without a stored response since the last turn of the others.
        self._given = [0] * len(_LANES)
        self._waited = 0  # places that went to other lanes while heavy requests waited

    # --- in ---

    def add(self, permit: Permit, now: float) -> None:
        """Queue a permit."""
        if permit.is_get:
            self._take_ticket(permit)
        super().add(permit, now)

    def _take_ticket(self, permit: Permit) -> None:
        if permit.ticket < 0:
            return
        if not self._tickets.stand(permit.ticket):
            # The same ticket is in the queue already, so this request counts as one without.
            permit.ticket = -1
            permit.lane = STRANGER
        elif permit.lane == KNOWN and not permit.has_stored:
            self._serial += 1
            heappush(self._by_age, (permit.since, self._serial, permit))

    def _line_of(self, permit: Permit) -> int:
        lane = STRANGER if permit.lane == UNSORTED else permit.lane
        return 2 * lane + permit.has_stored

    def _count(self, permit: Permit, change: int) -> None:
        super()._count(permit, change)
        if permit.is_get:
            self.counts[self._line_of(permit)] += change

    def sort(self, place_of: Callable[[Asker], Sorted], is_heavy: Callable[[Permit], bool]) -> None:
        """Examine the waiting requests again: those whose client is heavy now change their lane.

        Requests that arrived while lanes were not assigned get a lane. The tick calls this, not a
        request.

        Args:
            place_of: Finds the lane.
            is_heavy: Whether the client of a permit asks for too much.
        """
        changed: set[int] = set()
        for line in range(2 * HEAVY):
            stay: list[Permit] = []
            for permit in self._lines[line]:
                if permit.phase is not Phase.QUEUED:
                    continue
                place: Sorted | None = None
                if permit.lane == UNSORTED and isinstance(permit.who, Asker):
                    place = place_of(permit.who)
                elif permit.lane != UNSORTED and is_heavy(permit):
                    place = Sorted(HEAVY, permit.asker, permit.ticket, permit.since)
                if place is not None:
                    self._move(permit, place)
                if self._line_of(permit) == line:
                    stay.append(permit)
                else:
                    changed.add(self._line_of(permit))
                    self._lines[self._line_of(permit)].append(permit)
            self._lines[line] = deque(stay)
        for line in changed:  # by arrival: the wait of the first one expires first
            self._lines[line] = deque(sorted(self._lines[line], key=_queued_at))

    def _move(self, permit: Permit, place: Sorted) -> None:
        self._count(permit, -1)
        had = permit.ticket
        permit.lane, permit.asker, permit.ticket, permit.since = place
        permit.who = None
        if had < 0:
            self._take_ticket(permit)
        self._count(permit, 1)

    # --- the length of the queue ---

    def ahead(self, lane: int, *, has_stored: bool) -> int:
        """Return how many waiting requests go before one that arrives now."""
        counts, line = self.all_counts, 2 * lane + has_stored
        own, other = counts[line], counts[line ^ 1]
        given, between = self._given[lane], _between()
        if has_stored:
            others = max(0, (own + 1) * between - given)
        else:
            others = (own + given) // between
        return self.others + self._before(lane) + own + min(others, other)

    def in_front(self, lane: int, *, has_stored: bool) -> int:
        """Return how many wait in this lane and in those before it."""
        counts = self.counts
        here = counts[2 * lane] + counts[2 * lane + 1]
        return self.others + self._before(lane) + here

    def _before(self, lane: int) -> int:
        counts = self.all_counts
        if lane == KNOWN:
            return 0
        known = counts[2 * KNOWN] + counts[2 * KNOWN + 1]
        if lane == STRANGER:
            return known
        return known + counts[2 * STRANGER] + counts[2 * STRANGER + 1]

    def waiting_in(self, lane: int) -> int:
        """Return how many wait in a lane."""
        return self.counts[2 * lane] + self.counts[2 * lane + 1]

    def waits_behind(self, lane: int) -> bool:
        """Return whether any request waits behind one with a stored response that arrives now.

        Such requests wait in a later lane. If a turn has been kept, they may also wait in the same
        lane without a stored response.
        """
        counts = self.all_counts
        if counts[2 * lane] and self._given[lane] >= (counts[2 * lane + 1] + 1) * _between():
            return True
        return any(counts[2 * (lane + 1) :])

    def is_full(self, lane: int, waiting_max: int) -> bool:
        """Return whether this lane is full: later lanes leave room for earlier ones."""
        return self.waiting >= waiting_max * constants.LANE_SHARES[lane]

    # --- out ---

    def next_get(self) -> Permit | None:
        """Take out the GET whose turn it is; it becomes ADMITTED."""
        counts = self.counts
        heavy = counts[2 * HEAVY] + counts[2 * HEAVY + 1]
        order = _LANES
        if heavy:
            if self._waited >= constants.HEAVY_TURN - 1:
                order = _HEAVY_FIRST
        elif self._waited:
            self._waited = 0
        for lane in order:
            if counts[2 * lane] or counts[2 * lane + 1]:
                permit = self._next_of(lane)
                if permit is not None:
                    self._waited = 0 if lane == HEAVY else self._waited + (heavy > 0)
                    return permit
        return None

    def _next_of(self, lane: int) -> Permit | None:
        first = 2 * lane + (self._given[lane] >= _between())
        for line in (first, first ^ 1):
            if self.counts[line]:
                permit = self._first_in(line)
                if permit is not None:
                    self._note_turn(lane, permit)
                    return permit
        return None

    def _note_turn(self, lane: int, permit: Permit) -> None:
        between, given = _between(), self._given[lane]
        if permit.has_stored:
            self._given[lane] = max(0, given - between)
        else:
            self._given[lane] = min(given + 1, between * constants.TURNS_KEPT_MAX)

    def _first_in(self, line: int) -> Permit | None:
        if line >= 2 * HEAVY:
            return self._with_least(self._lines[line])
        if line == 2 * KNOWN and self._by_age:
            permit = self._oldest_ticket(self._lines[line])
            if permit is not None:
                return permit
        return self._first_of(self._lines[line])

    def _oldest_ticket(self, line: deque[Permit]) -> Permit | None:
        """Take out the permit with the oldest ticket.

        Return None if a permit has waited in the queue for longer than the age of that ticket.
        """
        by_age = self._by_age
        while by_age and not self._is_in_turn(by_age[0][2]):
            heappop(by_age)
        while line and line[0].phase is not Phase.QUEUED:
            line.popleft()
        if not by_age or (line and line[0].queued_at < by_age[0][0]):
            return None
        permit = heappop(by_age)[2]
        self._remove(permit, Phase.ADMITTED)
        return permit

    @staticmethod
    def _is_in_turn(permit: Permit) -> bool:
        return permit.phase is Phase.QUEUED and permit.lane == KNOWN

    def _with_least(self, line: deque[Permit]) -> Permit | None:
        """Take out, of the first few permits, the one whose client got least."""
        while line and line[0].phase is not Phase.QUEUED:
            line.popleft()
        chosen: Permit | None = None
        least = 0.0
        for permit in islice(line, constants.HEAVY_LOOKED_AT):
            if permit.phase is Phase.QUEUED:
                got = self._demand.got_by(permit.asker, permit.queued_at)
                if chosen is None or got < least:
                    chosen, least = permit, got
        if chosen is not None:
            self._remove(chosen, Phase.ADMITTED)
        return chosen

    def expired(
        self,
        now: float,
        without_stored_s: float,
        with_stored_s: Callable[[int], float],
        with_stored_max: Callable[[int], float],
    ) -> list[Permit]:
        """Take out the GETs whose wait has expired, and those that are too many: DONE."""
        over = super().expired(now, without_stored_s, with_stored_s, with_stored_max)
        self._forget_used()
        return over

    def _forget_used(self) -> None:
        """Remove permits that left the queue in another way than by their ticket's turn."""
        if len(self._by_age) > 2 * self.counts[2 * KNOWN] + constants.LEFT_MAX:
            self._by_age = [one for one in self._by_age if self._is_in_turn(one[2])]
            heapify(self._by_age)

    def _remove(self, permit: Permit, phase: Phase) -> None:
        super()._remove(permit, phase)
        if permit.is_get and permit.ticket >= 0:
            if phase is Phase.ADMITTED:
                self._tickets.spend(permit.ticket)
            else:  # a held permit leaves too, and is queued again after the pause
                self._tickets.leave(permit.ticket)
