"""The requests in flight, in the order in which they started.

Young requests (younger than any patience) are only counted in and out. Old requests are swept: each
one is examined when it is due, so that ten thousand hanging requests cost nothing while none of
them is due.
"""

from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import chain, islice
from math import inf

from retter.breaker.permit import Permit, Phase


class Flight:
    """Permits in flight, the keys that they fetch, and the time when each old one is due."""

    __slots__ = ("_due", "_old", "_serial", "_young", "keys")

    def __init__(self) -> None:
        self._young: dict[Permit, None] = {}
        self._old: dict[Permit, None] = {}
        self._due: list[tuple[float, int, Permit]] = []
        self._serial = 0
        self.keys: dict[bytes, int] = {}  # GETs in flight by key; never 0

    def enter(self, permit: Permit) -> None:
        """Add a permit that goes upstream."""
        self._young[permit] = None
        if permit.is_get:
            key = permit.key
            self.keys[key] = self.keys.get(key, 0) + 1

    def leave(self, permit: Permit) -> None:
        """Remove a permit: it is answered, aborted or detached."""
        if permit.is_old:
            del self._old[permit]
        else:
            del self._young[permit]
        if permit.is_get:
            key = permit.key
            left = self.keys[key] - 1
            if left:
                self.keys[key] = left
            else:
                del self.keys[key]

    def grown_old(self, started_before: float) -> list[Permit]:
        """Move permits that started before that time to the old ones, and return them."""
        grown: list[Permit] = []
        for permit in self._young:
            if permit.started_at > started_before:
                break
            grown.append(permit)
        for permit in grown:
            del self._young[permit]
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
        return islice(chain(self._old, self._young), count)

    def oldest(self, skip: int) -> Permit | None:
        """Return the oldest permit after skipping `skip`, or None if there are not so many."""
        return next(islice(chain(self._old, self._young), skip, None), None)
