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

fairness.py decides the lane of a request. Other methods come before all lanes. Without fairness all
wait in the first lane, and those without a stored response go first.
"""

from collections import deque
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import Final

from retter.breaker import constants
from retter.breaker.clients import Clients
from retter.breaker.fairness import Fairness, Sorted
from retter.breaker.permit import HEAVY, KNOWN, LANES, STRANGER, UNSORTED, Permit, Phase

_HEAVY_FIRST: Final = (HEAVY, KNOWN, STRANGER)
_ALL: Final = 1 << 40  # requests, more than ever wait


def _first(queue: deque[Permit]) -> Permit | None:
    """Return the first permit that waits in a queue; remove those before it, which left it."""
    while queue and queue[0].phase is not Phase.QUEUED:
        queue.popleft()
    return queue[0] if queue else None


def _older(queue: deque[Permit], since: float) -> Iterator[Permit]:
    """Take out the permits that came until `since`."""
    while (permit := _first(queue)) is not None and permit.queued_at <= since:
        yield queue.popleft()


def _queued_at(permit: Permit) -> float:
    return permit.queued_at


class Lanes:
    """The waiting room: two queues for each lane, without and with a stored response.

    Another queue is for other methods. All are first in, first out. A permit that left early is
    skipped when its turn comes.

    Args:
        fairness: Says whose turn it is. None: all GETs wait in the first lane.
    """

    def __init__(self, fairness: Fairness | None) -> None:
        self.fairness = fairness
        self._others: deque[Permit] = deque()  # other methods: never rejected
        # GETs, by 2 * lane + has_stored.
        self._lines: list[deque[Permit]] = [deque() for _ in range(2 * len(LANES))]
        self.counts = [0] * (2 * len(LANES))  # how many wait there
        self.all_counts = self.counts  # with those who wait in other workers, if there are any
        self._released: deque[Permit] = deque()  # go upstream, even without a place
        self.waiting: int = 0
        self.others = 0  # other methods; part of `waiting`
        # Permits with a ticket, oldest first. They are in their queue too, for its time limit.
        self._by_age: list[tuple[float, int, Permit]] = []
        self._serial = 0
        # How many requests without a stored response go between two turns of the others.
        self._between: int = _ALL if fairness is None else constants.STORED_TURN - 1
        # By lane: places for requests without a stored response since the last turn of the others.
        self._given = [0] * len(LANES)
        self._waited = 0  # places that went to other lanes while heavy requests waited

    @property
    def waiting_without_stored(self) -> int:
        """The part of `waiting` without a stored response; includes other methods."""
        return self.others + sum(self.counts[::2])

    # --- in ---

    def lane_of(self, lane: int) -> int:
        """Return the lane in which a request of that lane waits here."""
        if self.fairness is None:
            return KNOWN
        return STRANGER if lane == UNSORTED else lane

    def add(self, permit: Permit, now: float) -> None:
        """Queue a permit."""
        if permit.is_get:
            self._take_ticket(permit)
        permit.phase = Phase.QUEUED
        permit.queued_at = now
        self._count(permit, 1)
        self._queue_of(permit).append(permit)

    def _queue_of(self, permit: Permit) -> deque[Permit]:
        return self._lines[self._line_of(permit)] if permit.is_get else self._others

    def wait_anew(self, now: float) -> None:
        """Let the time of all waits begin now: a pause begins or ends."""
        for permit in self.all_waiting():
            permit.queued_at = now

    def _line_of(self, permit: Permit) -> int:
        return 2 * self.lane_of(permit.lane) + permit.has_stored

    def _count(self, permit: Permit, change: int) -> None:
        self.waiting += change
        if permit.is_get:
            self.counts[self._line_of(permit)] += change
        else:
            self.others += change

    def _take_ticket(self, permit: Permit) -> None:
        if permit.ticket < 0 or self.fairness is None:
            return
        if not self.fairness.tickets.stand(permit.ticket):
            # The same ticket is in the queue already, so this request counts as one without.
            permit.ticket = -1
            permit.lane = STRANGER
        elif permit.lane == KNOWN and not permit.has_stored:
            self._serial += 1
            heappush(self._by_age, (permit.since, self._serial, permit))

    def sort(self, fairness: Fairness, now: float) -> None:
        """Examine the waiting requests again: some change their lane (`Fairness.sort_again`).

        The tick calls this, not a request.
        """
        gets = [one for line in self._lines for one in line if one.phase is Phase.QUEUED]
        moved = False
        for permit in gets:
            place = fairness.sort_again(permit, now)
            if place is not None:
                moved = True
                self._move(permit, place)
        if moved:
            for line in self._lines:
                line.clear()
            for permit in sorted(gets, key=_queued_at):  # the wait of the first one expires first
                self._queue_of(permit).append(permit)

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
        given, between = self._given[lane], self._between
        if has_stored:
            others = max(0, (own + 1) * between - given)
        else:
            others = (own + given) // between
        return self.others + self._before(lane) + own + min(others, other)

    def in_front(self, lane: int) -> int:
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
        """Return how many wait in a lane, for operators; 0 without fairness."""
        return 0 if self.fairness is None else self.counts[2 * lane] + self.counts[2 * lane + 1]

    def waits_behind(self, lane: int) -> bool:
        """Return whether any request waits behind one with a stored response that arrives now.

        Such requests wait in a later lane. If a turn has been kept, they may also wait in the same
        lane without a stored response.
        """
        counts = self.all_counts
        if counts[2 * lane] and self._given[lane] >= (counts[2 * lane + 1] + 1) * self._between:
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
        order = LANES
        if heavy:
            if self._waited >= constants.HEAVY_TURN - 1:
                order = _HEAVY_FIRST
        elif self._waited:
            self._waited = 0
        for lane in order:
            if counts[2 * lane] or counts[2 * lane + 1]:
                self._waited = 0 if lane == HEAVY else self._waited + (heavy > 0)
                return self._next_of(lane)
        return None

    def _next_of(self, lane: int) -> Permit:
        between, given = self._between, self._given[lane]
        line = 2 * lane + (given >= between)
        if not self.counts[line]:
            line ^= 1
        permit = self._next_in(line)
        if permit.has_stored:
            self._given[lane] = max(0, given - between)
        else:
            self._given[lane] = min(given + 1, between * constants.TURNS_KEPT_MAX)
        self._remove(permit, Phase.ADMITTED)
        return permit

    def _next_in(self, line: int) -> Permit:
        """Return the permit of a line whose turn it is; at least one waits there."""
        first = _first(self._lines[line])
        assert first is not None, "it is counted"
        if line >= 2 * HEAVY and self.fairness is not None:
            return self._with_least(self.fairness, self._lines[line])
        if line == 2 * KNOWN:
            by_age = self._by_age
            while by_age and not self._is_in_turn(by_age[0][2]):
                heappop(by_age)
            # Has anybody waited for longer than the age of the oldest ticket?
            if by_age and by_age[0][0] <= first.queued_at:
                return heappop(by_age)[2]
        return first

    @staticmethod
    def _is_in_turn(permit: Permit) -> bool:
        return permit.phase is Phase.QUEUED and permit.lane == KNOWN

    @staticmethod
    def _with_least(fairness: Fairness, line: deque[Permit]) -> Permit:
        """Return, of the first few permits that wait, the one whose client got least."""
        return min(
            (one for one in islice(line, constants.HEAVY_LOOKED_AT) if one.phase is Phase.QUEUED),
            key=lambda one: fairness.demand.got_by(one.asker, one.queued_at),
        )

    def next_other(self) -> Permit | None:
        """Take out the request with another method whose turn it is; it becomes ADMITTED."""
        permit = _first(self._others)
        if permit is not None:
            self._remove(permit, Phase.ADMITTED)
        return permit

    def next_believed(self, clients: Clients, now: float) -> Permit | None:
        """Take out the first GET, of those that wait longest, whose client is not in doubt."""
        for line in self._lines:
            for permit in islice(line, constants.LINE_LOOKED_AT_MAX):
                if permit.phase is Phase.QUEUED and not clients.is_doubted(permit.client, now):
                    self._remove(permit, Phase.ADMITTED)
                    return permit
        return None

    def all_waiting(self) -> list[Permit]:
        """Return all permits that are queued."""
        queues = (self._others, *self._lines, self._released)
        return [permit for queue in queues for permit in queue if permit.phase is Phase.QUEUED]

    def cancel(self, permit: Permit) -> None:
        """Record that the client left; the permit becomes DONE.

        The queue is cleaned if many left it: its first one may wait for the whole, long pause. So
        each permit that leaves costs two steps at most.
        """
        self._remove(permit, Phase.DONE)
        queue = self._queue_of(permit)
        if len(queue) > 2 * self.waiting + constants.LEFT_MAX:
            left = [one for one in queue if one.phase is Phase.QUEUED]
            queue.clear()
            queue.extend(left)

    def expired(
        self,
        now: float,
        without_stored_s: float,
        with_stored_s: Callable[[int], float],
        with_stored_max: Callable[[int], float],
        others_s: float,
    ) -> list[Permit]:
        """Take out the requests whose wait has expired, and the GETs that are too many: DONE.

        All requests of one queue may wait for the same time. So the wait of the first one expires
        first. If there are too many, the last ones are taken out.
        """
        over: list[Permit] = []
        self._take_older(self._others, now - others_s, over)
        for lane in range(len(self._lines) // 2):
            without_stored, with_stored = self._lines[2 * lane : 2 * lane + 2]
            self._take_older(without_stored, now - without_stored_s, over)
            self._take_older(with_stored, now - with_stored_s(lane), over)
            longest = with_stored_max(lane)
            while with_stored and self.ahead(lane, has_stored=True) > longest:
                permit = with_stored.pop()
                if permit.phase is Phase.QUEUED:
                    over.append(permit)
                    self._remove(permit, Phase.DONE)
        self._forget_used()
        return over

    def _forget_used(self) -> None:
        """Remove permits that left the queue in another way than by their ticket's turn."""
        if len(self._by_age) > 2 * self.counts[2 * KNOWN] + constants.LEFT_MAX:
            self._by_age = [one for one in self._by_age if self._is_in_turn(one[2])]
            heapify(self._by_age)

    def _take_older(self, queue: deque[Permit], since: float, over: list[Permit]) -> None:
        for permit in _older(queue, since):
            self._remove(permit, Phase.DONE)
            over.append(permit)

    def release_others(self, now: float, wait_s: float) -> None:
        """Let other methods that have waited for `wait_s` go upstream."""
        self._released.extend(_older(self._others, now - wait_s))

    def release_gets(self, now: float, wait_s: float) -> None:
        """Let GETs that have waited for `wait_s` go upstream."""
        for line in self._lines:
            self._released.extend(_older(line, now - wait_s))

    def release(self, permit: Permit) -> None:
        """Let a permit that has been taken out already go upstream."""
        permit.phase = Phase.QUEUED
        self._count(permit, 1)
        self._released.append(permit)

    def take_released(self) -> list[Permit]:
        """Take out the permits that need no place; they become ADMITTED."""
        taken: list[Permit] = []
        while self._released:
            permit = self._released.popleft()
            if permit.phase is Phase.QUEUED:
                self._remove(permit, Phase.ADMITTED)
                taken.append(permit)
        return taken

    def _remove(self, permit: Permit, phase: Phase) -> None:
        permit.phase = phase
        self._count(permit, -1)
        if permit.is_get and permit.ticket >= 0 and self.fairness is not None:
            if phase is Phase.ADMITTED:
                self.fairness.tickets.spend(permit.ticket)
            else:
                self.fairness.tickets.leave(permit.ticket)
