"""The requests that wait in this worker, together with those that wait in others.

Each worker has its own queue, and the first worker that sees a free place takes it. Two rules keep
the order over all workers:

- The expected wait counts the requests that wait elsewhere, too.
- A request does not take a place while a request in an earlier lane waits elsewhere. Since the
  lanes have one order, no two workers ever wait for each other.
"""

from typing import Final

from retter.breaker import constants
from retter.breaker.demand import DemandTable
from retter.breaker.lanes import Lanes
from retter.breaker.permit import HEAVY, Permit
from retter.breaker.queue import WaitingRoom
from retter.breaker.tickets import Tickets
from retter.judgement.memory import LINES

_HEAVY_WAITS_FOR: Final = constants.HEAVY_TURN - 1


class SharedRoom(WaitingRoom):
    """A waiting room with one queue for all."""

    __slots__ = ("elsewhere", "elsewhere_without_stored")

    def __init__(self) -> None:
        super().__init__()
        self.elsewhere = 0  # how many wait in other workers
        self.elsewhere_without_stored = 0  # of these

    def ahead(self, lane: int, *, has_stored: bool) -> int:
        """Return how many go before a request that arrives now, in all workers."""
        if has_stored:
            return self.waiting + self.elsewhere
        return self.waiting_without_stored + self.elsewhere_without_stored

    def told(self) -> list[int]:
        """Return how many wait here, by lane; without lanes all are strangers."""
        without = self.waiting_without_stored - self.others
        return [0, 0, without, self.waiting - self.waiting_without_stored, 0, 0]

    def note(self, others: int, lines: list[int]) -> None:
        """Take in how many wait elsewhere: other methods, and GETs by lane."""
        self.elsewhere_without_stored = others + sum(lines[::2])
        self.elsewhere = others + sum(lines)


class SharedLanes(Lanes):
    """A waiting room with lanes."""

    __slots__ = ("_elsewhere",)

    def __init__(self, demand: DemandTable, tickets: Tickets) -> None:
        super().__init__(demand, tickets)
        self._elsewhere = [0] * LINES
        self.all_counts = [0] * LINES  # before this, the same list as `counts`

    def _count(self, permit: Permit, change: int) -> None:
        super()._count(permit, change)
        if permit.is_get:
            self.all_counts[self._line_of(permit)] += change

    def told(self) -> list[int]:
        """Return how many wait here, by lane."""
        return self.counts

    def note(self, others: int, lines: list[int]) -> None:
        """Take in how many wait elsewhere: other methods, and GETs by lane."""
        if lines != self._elsewhere:
            self._elsewhere = lines
            for line in range(LINES):
                self.all_counts[line] = self.counts[line] + lines[line]

    def next_get(self) -> Permit | None:
        """Take out the GET whose turn it is, unless an earlier lane waits in another worker."""
        elsewhere, counts = self._elsewhere, self.counts
        for lane in range(HEAVY):
            if counts[2 * lane] or counts[2 * lane + 1]:
                break
            if elsewhere[2 * lane] or elsewhere[2 * lane + 1]:
                heavy = counts[2 * HEAVY] + counts[2 * HEAVY + 1]
                if not heavy or self._waited < _HEAVY_WAITS_FOR:
                    self._waited += heavy > 0
                    return None
        return super().next_get()
