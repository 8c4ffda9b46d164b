"""Which client connection to close when there is no room for a new one.

The one that has waited longest for its client: for a next request, for its first, or for the rest
of a head. Nothing is kept while there is room. When there is none, one look over all connections
finds the longest waiting, and these are used up one by one: whoever has begun to wait since has
waited for a shorter time, so the order stays true without another look.
"""

from collections.abc import Iterable
from heapq import nsmallest
from math import inf
from typing import Generic, Protocol, TypeVar

# Found with one look: enough that looking (some 3 ms for 12,000 connections) costs each newcomer
# little, and few enough that those which end meanwhile hold no memory to speak of.
FOUND_MAX = 256
# When a look has found less than that, connections are not looked over again before so long: where
# all are busy, newcomers are refused at no cost.
AGAIN_S = 0.05


class Waiting(Protocol):
    """What is needed of a connection."""

    def waits_since(self) -> float:
        """Return since when it waits for its client (monotonic seconds); infinity if not."""
        ...


Item = TypeVar("Item", bound=Waiting)


class LongestWaiting(Generic[Item]):
    """Finds the connections that have waited longest, the longest first."""

    __slots__ = ("_found", "_not_before")

    def __init__(self) -> None:
        self._found: list[tuple[float, Item]] = []     # the longest waiting last
        self._not_before = -inf

    def take(self, items: Iterable[Item], now: float) -> Item | None:
        """Return the item that has waited longest, or None if none waits.

        It is not returned again, and may be one that is not among the items any more.
        """
        found = self._take_found()
        if found is None and now >= self._not_before:
            self._look(items)
            if len(self._found) < FOUND_MAX:
                self._not_before = now + AGAIN_S
            found = self._take_found()
        return found

    def _take_found(self) -> Item | None:
        while self._found:
            since, item = self._found.pop()
            if item.waits_since() == since:     # else it has had something to do
                return item
        return None

    def _look(self, items: Iterable[Item]) -> None:
        waiting = [(since, item) for item in items if (since := item.waits_since()) < inf]
        self._found = nsmallest(FOUND_MAX, waiting, key=lambda one: one[0])[::-1]
