"""GETs that wait for a place: first those with nothing else to answer with, then the rest."""

from collections import deque

from retter.breaker.permit import Permit, Phase


class WaitingRoom:
    """Two first-in first-out queues. Who leaves early is skipped when its turn comes."""

    __slots__ = ("_needy", "_patient", "waiting", "waiting_without_stored")

    def __init__(self) -> None:
        self._needy: deque[Permit] = deque()      # no stored response
        self._patient: deque[Permit] = deque()    # has one, and prefers a fresh one
        self.waiting = 0
        self.waiting_without_stored = 0

    def add(self, permit: Permit, deadline: float) -> None:
        """Queue it until `deadline`."""
        permit.phase = Phase.QUEUED
        permit.deadline = deadline
        self.waiting += 1
        if permit.has_stored:
            self._patient.append(permit)
        else:
            self.waiting_without_stored += 1
            self._needy.append(permit)

    def next(self) -> Permit | None:
        """Take out whose turn it is: ADMITTED."""
        for queue in (self._needy, self._patient):
            while queue:
                permit = queue.popleft()
                if permit.phase is Phase.QUEUED:
                    self._remove(permit, Phase.ADMITTED)
                    return permit
        return None

    def cancel(self, permit: Permit) -> None:
        """Its client left: DONE."""
        self._remove(permit, Phase.DONE)

    def expired(self, now: float) -> list[Permit]:
        """Take out those whose deadline has passed: DONE.

        The wait is the same for all of one queue, or nearly so: the first in line is the first
        to give up.
        """
        over: list[Permit] = []
        for queue in (self._needy, self._patient):
            while queue and (queue[0].phase is not Phase.QUEUED or queue[0].deadline <= now):
                permit = queue.popleft()
                if permit.phase is Phase.QUEUED:
                    self._remove(permit, Phase.DONE)
                    over.append(permit)
        return over

    def _remove(self, permit: Permit, phase: Phase) -> None:
        permit.phase = phase
        self.waiting -= 1
        if not permit.has_stored:
            self.waiting_without_stored -= 1
