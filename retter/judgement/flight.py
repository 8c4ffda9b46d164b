"""The requests in flight of this worker, and the oldest ones of the others.

An application that hangs is recognized by its oldest requests, and those may be in any worker.
"""

from math import inf

from retter.breaker.in_flight import Flight
from retter.breaker.permit import Permit


class SharedFlight(Flight):
    """A `Flight` whose oldest permits include those of other workers.

    Attributes:
        elsewhere: Stand-ins for the oldest requests of the other workers; for the leader.
    """

    __slots__ = ("elsewhere",)

    def __init__(self) -> None:
        super().__init__()
        self.elsewhere: list[Permit] = []

    def oldest(self, skip: int) -> Permit | None:
        """Return the oldest permit after the `skip` oldest ones; None if there are too few."""
        if not self.elsewhere:
            return super().oldest(skip)
        oldest = [*self.oldest_first(skip + 1), *self.elsewhere]
        oldest.sort(key=_started_at)
        return oldest[skip] if len(oldest) > skip else None


def _started_at(permit: Permit) -> float:
    return permit.started_at


NOTHING_OLD = inf  # in a report: the worker has no more requests in flight
