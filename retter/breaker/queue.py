"""Requests that wait: for a place, for the pace, or for the end of a pause.

Other methods go before all GETs. lanes.py decides the order of the GETs.
"""

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Final

from retter.breaker import constants
from retter.breaker.clients import Clients
from retter.breaker.fairness import Fairness
from retter.breaker.permit import KNOWN, LANES, STRANGER, UNSORTED, Permit, Phase

# Entries of permits that left early may remain in the queue of held permits: this many, and one for
# each held permit. Then the queue is cleaned. So each permit that leaves costs two steps at most.
HELD_LEFT_MAX: Final = 64


def _older(queue: deque[Permit], since: float, phase: Phase = Phase.QUEUED) -> Iterator[Permit]:
    """Take out the permits that came until `since`; skip those that left in another way."""
    while queue and (queue[0].phase is not phase or queue[0].queued_at <= since):
        permit = queue.popleft()
        if permit.phase is phase:
            yield permit


class WaitingRoom:
    """First-in first-out queues. A permit that left early is skipped when its turn comes.

    Args:
        fairness: Says whose turn it is. None: all GETs wait in the first lane.
    """

    def __init__(self, fairness: Fairness | None) -> None:
        self.fairness = fairness
        self._others: deque[Permit] = deque()  # other methods: never rejected
        # GETs, by 2 * lane + has_stored.
        self._lines: list[deque[Permit]] = [deque() for _ in range(2 * len(LANES))]
        self.counts = [0] * (2 * len(LANES))  # how many wait there
        self._held: deque[Permit] = deque()  # until the end of a pause
        self._released: deque[Permit] = deque()  # go upstream, even without a place
        self.held = 0  # not counted in `waiting`
        self.waiting: int = 0
        self.waiting_without_stored: int = 0  # of `waiting`; includes other methods
        self.others = 0  # other methods; part of `waiting_without_stored`

    def lane_of(self, lane: int) -> int:
        """Return the lane in which a request of that lane waits here."""
        if self.fairness is None:
            return KNOWN
        return STRANGER if lane == UNSORTED else lane

    def add(self, permit: Permit, now: float) -> None:
        """Queue a permit."""
        permit.phase = Phase.QUEUED
        permit.queued_at = now
        self._count(permit, 1)
        queue = self._lines[self._line_of(permit)] if permit.is_get else self._others
        queue.append(permit)

    def _line_of(self, permit: Permit) -> int:
        return 2 * self.lane_of(permit.lane) + permit.has_stored

    def _count(self, permit: Permit, change: int) -> None:
        self.waiting += change
        if not permit.has_stored:
            self.waiting_without_stored += change
        if permit.is_get:
            self.counts[self._line_of(permit)] += change
        else:
            self.others += change

    def next_other(self) -> Permit | None:
        """Take out the request with another method whose turn it is; it becomes ADMITTED."""
        return self._first_of(self._others)

    def next_believed(self, clients: Clients, now: float) -> Permit | None:
        """Take out the first GET, of those that wait longest, whose client is not in doubt."""
        for line in self._lines:
            for permit in islice(line, constants.LINE_LOOKED_AT_MAX):
                if permit.phase is Phase.QUEUED and not clients.is_doubted(permit.client, now):
                    self._remove(permit, Phase.ADMITTED)
                    return permit
        return None

    def _first_of(self, queue: deque[Permit]) -> Permit | None:
        while queue:
            permit = queue.popleft()
            if permit.phase is Phase.QUEUED:
                self._remove(permit, Phase.ADMITTED)
                return permit
        return None

    def all_waiting(self) -> list[Permit]:
        """Return all permits that are queued or held."""
        queues = (self._others, *self._lines, self._held, self._released)
        return [
            permit
            for queue in queues
            for permit in queue
            if permit.phase in (Phase.QUEUED, Phase.HELD)
        ]

    def cancel(self, permit: Permit) -> None:
        """Record that the client left; the permit becomes DONE."""
        if permit.phase is Phase.HELD:
            self._leave_hold(permit, Phase.DONE)
            self._forget_left()
        else:
            self._remove(permit, Phase.DONE)

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

    # --- a pause ---

    def hold(self, permit: Permit, now: float) -> None:
        """Hold a permit until `release_held`."""
        permit.phase = Phase.HELD
        permit.queued_at = now
        self.held += 1
        self._held.append(permit)

    def hold_without_stored(self, now: float) -> None:
        """Hold the queued requests that have no stored response."""
        for queue in (self._others, *self._lines[::2]):
            for permit in _older(queue, now):
                self._remove(permit, Phase.HELD)
                self.hold(permit, now)

    def held_for_too_long(self, now: float, longest_s: float) -> list[Permit]:
        """Take out the permits that have been held for `longest_s`; they become DONE."""
        over = list(_older(self._held, now - longest_s, Phase.HELD))
        for permit in over:
            self._leave_hold(permit, Phase.DONE)
        return over

    def release_held(self, now: float) -> None:
        """End the hold after a pause: GETs wait for a place now, other methods need none."""
        held, self._held = self._held, deque()
        for permit in held:
            if permit.phase is not Phase.HELD:
                continue
            self._leave_hold(permit, Phase.QUEUED)
            if permit.is_get:
                self.add(permit, now)
            else:
                self.release(permit)

    def _leave_hold(self, permit: Permit, phase: Phase) -> None:
        permit.phase = phase
        self.held -= 1

    def _forget_left(self) -> None:
        """Remove permits that left: the first one may stay for the whole, long pause."""
        if len(self._held) > 2 * self.held + HELD_LEFT_MAX:
            self._held = deque([one for one in self._held if one.phase is Phase.HELD])

    def _remove(self, permit: Permit, phase: Phase) -> None:
        permit.phase = phase
        self._count(permit, -1)
