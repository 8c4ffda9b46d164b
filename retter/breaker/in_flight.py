"""The requests in flight, in the order in which they started.

Young requests (younger than any patience) are only counted in and out. Old requests are swept: each
one is examined when it is due, so that ten thousand hanging requests cost nothing while none of
them is due.
"""

from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import chain, islice
from math import inf
from typing import Final

from retter.breaker.permit import Permit, Phase

# The keys in flight are counted until this many ticks (one second) after they were last needed. To
# count them always would cost 2,500 of the 84,000 instructions that forwarding takes, and they are
# not needed while there are enough places.
KEYS_COUNTED_TICKS: Final = 20


class Flight:
    """Permits in flight, the keys that they fetch, and the time when each old one is due.

    `start_at_once` and `finished_whole` of CircuitBreaker do the work of `enter` and `leave`
    themselves for a young permit while no keys are counted.

    Attributes:
        young: The young permits.
        counted: GETs in flight by key; never 0. None: not counted, since nobody has asked lately.
    """

    def __init__(self) -> None:
        self.young: dict[Permit, None] = {}
        self._old: dict[Permit, None] = {}
        self._due: list[tuple[float, int, Permit]] = []
        self._serial = 0
        self.counted: dict[bytes, int] | None = None
        self._asked_ticks = 0  # until they are no longer counted

    @property
    def keys(self) -> dict[bytes, int]:
        """The number of GETs in flight by key; never 0."""
        self._asked_ticks = KEYS_COUNTED_TICKS
        keys = self.counted
        if keys is None:
            keys = self.counted = {}
            for permit in chain(self._old, self.young):
                if permit.is_get:
                    keys[permit.key] = keys.get(permit.key, 0) + 1
        return keys

    def enter(self, permit: Permit) -> None:
        """Add a permit that goes upstream."""
        self.young[permit] = None
        keys = self.counted
        if keys is not None and permit.is_get:
            keys[permit.key] = keys.get(permit.key, 0) + 1

    def leave(self, permit: Permit) -> None:
        """Remove a permit: it is answered, aborted or detached."""
        if permit.is_old:
            del self._old[permit]
        else:
            del self.young[permit]
        keys = self.counted
        if keys is not None and permit.is_get:
            key = permit.key
            left = keys[key] - 1
            if left:
                keys[key] = left
            else:
                del keys[key]

    def grown_old(self, started_before: float) -> list[Permit]:
        """Move permits that started before that time to the old ones, and return them.

        Called with every tick.
        """
        if self._asked_ticks:
            self._asked_ticks -= 1
        else:
            self.counted = None
        grown: list[Permit] = []
        for permit in self.young:
            if permit.started_at > started_before:
                break
            grown.append(permit)
        for permit in grown:
            del self.young[permit]
            self._old[permit] = None
            permit.is_old = True
        return grown

    def look_at(self, permit: Permit, at: float) -> None:
        """Make an old permit due at that time, and at no other."""
        permit.acts_at = at
        self._serial += 1
        heappush(self._due, (at, self._serial, permit))

    def due(self, now: float) -> list[Permit]:
        """Take out the old permits that are due."""
        due: list[Permit] = []
        while self._due and self._due[0][0] <= now:
            at, _, permit = heappop(self._due)
            if permit.phase is Phase.IN_FLIGHT and permit.acts_at == at:
                permit.acts_at = inf  # once, even if it was made due twice
                due.append(permit)
        return due

    def oldest_first(self, count: int) -> Iterator[Permit]:
        """Yield the permits in flight in the order of their start, at most `count`."""
        return islice(chain(self._old, self.young), count)

    def oldest(self, skip: int) -> Permit | None:
        """Return the oldest permit after the `skip` oldest ones; None if there are too few."""
        return next(islice(chain(self._old, self.young), skip, None), None)
