"""Requests that wait for a place: other methods first, then GETs without a stored response, then
GETs with one.

Requests without a stored response also wait here for the end of a pause, in their order.
"""

from collections import deque
from collections.abc import Callable
from itertools import islice

from retter.breaker import constants
from retter.breaker.clients import Clients
from retter.breaker.permit import Permit, Phase

# Entries of permits that left early may remain in the queue of held permits: this many, and one for
# each held permit. Then the queue is cleaned. So each permit that leaves costs two steps at most.
HELD_LEFT_MAX = 64


class WaitingRoom:
    """First-in first-out queues. A permit that left early is skipped when its turn comes."""

    __slots__ = (
        "_held",
        "_lines",
        "_others",
        "_released",
        "held",
        "others",
        "waiting",
        "waiting_without_stored",
    )

    def __init__(self) -> None:
        self._others: deque[Permit] = deque()  # other methods: never rejected
        # GETs without a stored response, and GETs that have one and wait for a fresh one.
        self._lines: list[deque[Permit]] = [deque(), deque()]
        self._held: deque[Permit] = deque()  # until the end of a pause
        self._released: deque[Permit] = deque()  # go upstream, even without a place
        self.held = 0  # not counted in `waiting`
        self.waiting: int = 0
        self.waiting_without_stored: int = 0  # of `waiting`; includes other methods
        self.others = 0  # other methods; part of `waiting_without_stored`

    def ahead(self, lane: int, *, has_stored: bool) -> int:
        """Return how many go before a request that arrives now. There is one lane for all here."""
        return self.waiting if has_stored else self.waiting_without_stored

    def in_front(self, lane: int, *, has_stored: bool) -> int:
        """Return how many wait that a request which arrives now must not overtake."""
        return self.waiting if has_stored else self.waiting_without_stored

    def waiting_in(self, lane: int) -> int:
        """Return how many wait in a lane. There are no lanes here."""
        return 0

    def waits_behind(self, lane: int) -> bool:
        """Return whether any request waits in a later lane. There are no lanes here."""
        return False

    def is_full(self, lane: int, waiting_max: int) -> bool:
        """Return whether no more requests may wait."""
        return self.waiting >= waiting_max

    def add(self, permit: Permit, now: float) -> None:
        """Queue a permit."""
        permit.phase = Phase.QUEUED
        permit.queued_at = now
        self._count(permit, 1)
        queue = self._lines[self._line_of(permit)] if permit.is_get else self._others
        queue.append(permit)

    def _line_of(self, permit: Permit) -> int:
        """Return the index of a queue of GETs: 2 * lane + has_stored, if there are lanes."""
        return int(permit.has_stored)

    def _count(self, permit: Permit, change: int) -> None:
        self.waiting += change
        if not permit.has_stored:
            self.waiting_without_stored += change
        if not permit.is_get:
            self.others += change

    def next_other(self) -> Permit | None:
        """Take out the request with another method whose turn it is; it becomes ADMITTED."""
        return self._first_of(self._others)

    def next_get(self) -> Permit | None:
        """Take out the GET whose turn it is; it becomes ADMITTED."""
        return self._first_of(self._lines[False]) or self._first_of(self._lines[True])

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

    def expired(
        self,
        now: float,
        without_stored_s: float,
        with_stored_s: Callable[[int], float],
        with_stored_max: Callable[[int], float],
    ) -> list[Permit]:
        """Take out the GETs whose wait has expired, and those that are too many: DONE.

        All GETs of one queue may wait for the same time. So the wait of the first one expires
        first. If there are too many, the last ones are taken out.
        """
        over: list[Permit] = []
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
        return over

    def _take_older(self, queue: deque[Permit], since: float, over: list[Permit]) -> None:
        while queue and (queue[0].phase is not Phase.QUEUED or queue[0].queued_at <= since):
            permit = queue.popleft()
            if permit.phase is Phase.QUEUED:
                self._remove(permit, Phase.DONE)
                over.append(permit)

    def release_others(self, now: float, wait_s: float) -> None:
        """Let other methods that have waited for `wait_s` go upstream."""
        self._release_older(self._others, now - wait_s)

    def release_gets(self, now: float, wait_s: float) -> None:
        """Let GETs that have waited for `wait_s` go upstream."""
        for line in self._lines:
            self._release_older(line, now - wait_s)

    def _release_older(self, queue: deque[Permit], since: float) -> None:
        while queue and (queue[0].phase is not Phase.QUEUED or queue[0].queued_at <= since):
            permit = queue.popleft()
            if permit.phase is Phase.QUEUED:
                self._released.append(permit)

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
            self._hold_all(queue, now)

    def _hold_all(self, queue: deque[Permit], now: float) -> None:
        while queue:
            permit = queue.popleft()
            if permit.phase is Phase.QUEUED:
                self._remove(permit, Phase.HELD)
                self.hold(permit, now)

    def held_for_too_long(self, now: float, longest_s: float) -> list[Permit]:
        """Take out the permits that have been held for `longest_s`; they become DONE."""
        over: list[Permit] = []
        held = self._held
        while held and (held[0].phase is not Phase.HELD or held[0].queued_at <= now - longest_s):
            permit = held.popleft()
            if permit.phase is Phase.HELD:
                self._leave_hold(permit, Phase.DONE)
                over.append(permit)
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
