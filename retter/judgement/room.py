"""The requests that wait in this worker, together with those that wait in others.

Each worker has its own queue, and the first worker that sees a free place takes it. Two rules keep
the order over all workers:

- The expected wait counts the requests that wait elsewhere, too.
- A request does not take a place while a request in an earlier lane waits elsewhere. Since the
  lanes have one order, no two workers ever wait for each other.
"""

from typing import Final

from retter.breaker import constants
from retter.breaker.fairness import Fairness
from retter.breaker.lanes import Lanes
from retter.breaker.permit import HEAVY, Permit
from retter.judgement.memory import LINES

_HEAVY_WAITS_FOR: Final = constants.HEAVY_TURN - 1


class SharedLanes(Lanes):
    """The waiting room of a worker."""

    __slots__ = ("_elsewhere",)

    def __init__(self, fairness: Fairness | None) -> None:
        super().__init__(fairness)
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
