"""GETs that wait for a place: first those with nothing else to answer with, then the rest.

And all requests without a stored response that wait for the end of a pause, in their order.
"""

from collections import deque

from retter.breaker.permit import Permit, Phase

# Of those who left a pause, so many may still stand in the line; then it is gone through. With as
# many again as are held, each who leaves pays for two looks at most.
HELD_LEFT_MAX = 64


class WaitingRoom:
    """Two first-in first-out queues. Who leaves early is skipped when its turn comes."""

    __slots__ = (
        "_held", "_needy", "_patient", "_released", "held", "waiting", "waiting_without_stored",
    )

    def __init__(self) -> None:
        self._needy: deque[Permit] = deque()      # no stored response
        self._patient: deque[Permit] = deque()    # has one, and prefers a fresh one
        self._held: deque[Permit] = deque()       # until the end of a pause
        self._released: deque[Permit] = deque()   # of them, other methods: they need no place
        self.held = 0                             # not counted as waiting
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

    def all_waiting(self) -> list[Permit]:
        """Return all that are in here."""
        queues = (self._needy, self._patient, self._held, self._released)
        return [
            permit for queue in queues for permit in queue
            if permit.phase in (Phase.QUEUED, Phase.HELD)
        ]

    def cancel(self, permit: Permit) -> None:
        """Its client left: DONE."""
        if permit.phase is Phase.HELD:
            self._leave_hold(permit, Phase.DONE)
            self._forget_left()
        else:
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

    def empty_copy(self) -> "WaitingRoom":
        """Return a room that counts as many, and has none of them."""
        twin = WaitingRoom()
        twin.held = self.held
        twin.waiting = self.waiting
        twin.waiting_without_stored = self.waiting_without_stored
        return twin

    # --- a pause ---

    def hold(self, permit: Permit, deadline: float) -> None:
        """Hold it until `release`, or `deadline`."""
        permit.phase = Phase.HELD
        permit.deadline = deadline
        self.held += 1
        self._held.append(permit)

    def hold_needy(self, deadline: float) -> None:
        """Hold those that are queued and have nothing else to answer with."""
        while self._needy:
            permit = self._needy.popleft()
            if permit.phase is Phase.QUEUED:
                self._remove(permit, Phase.HELD)
                self.hold(permit, deadline)

    def held_for_too_long(self, now: float) -> list[Permit]:
        """Take out those that are held and whose deadline has passed: DONE."""
        over: list[Permit] = []
        held = self._held
        while held and (held[0].phase is not Phase.HELD or held[0].deadline <= now):
            permit = held.popleft()
            if permit.phase is Phase.HELD:
                self._leave_hold(permit, Phase.DONE)
                over.append(permit)
        return over

    def release(self, deadline: float) -> None:
        """The pause is over: GETs wait for a place until `deadline`, others need none."""
        held, self._held = self._held, deque()
        for permit in held:
            if permit.phase is not Phase.HELD:
                continue
            self._leave_hold(permit, Phase.QUEUED)
            if permit.is_get:
                self.add(permit, deadline)
            else:
                self.waiting += 1
                self.waiting_without_stored += 1
                self._released.append(permit)

    def take_released(self) -> list[Permit]:
        """Take out the released ones that need no place: ADMITTED."""
        taken: list[Permit] = []
        while self._released:
            permit = self._released.popleft()
            if permit.phase is Phase.QUEUED:
                self._remove(permit, Phase.ADMITTED)
                taken.append(permit)
        return taken

    def _leave_hold(self, permit: Permit, phase: Phase) -> None:
        permit.phase = phase
        self.held -= 1

    def _forget_left(self) -> None:
        """Let go of those who left: a pause is long, and who is first in line may stay for all."""
        if len(self._held) > 2 * self.held + HELD_LEFT_MAX:
            self._held = deque([one for one in self._held if one.phase is Phase.HELD])

    def _remove(self, permit: Permit, phase: Phase) -> None:
        permit.phase = phase
        self.waiting -= 1
        if not permit.has_stored:
            self.waiting_without_stored -= 1
