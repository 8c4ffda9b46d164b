"""Which client connection to close when there is no room for a new one.

It is the one that has waited longest for its client: for its first or next request, for the rest of
a head or body, or for the client to read. Connections of an address that has more than its share (a
crowd) come before all others, because that client has caused the shortage itself.

Nothing is recorded while there is room. When there is none, one search over all connections finds
candidates, which are closed one by one. A connection that began to wait later has waited for a
shorter time, so the order stays right without another search. Only a crowd may have grown: it is
searched for again when its candidates are used up, and once a second.
"""

from collections.abc import Callable, Collection
from heapq import nsmallest
from math import inf
from operator import itemgetter
from typing import Generic, Protocol, TypeVar

# Candidates of one search: enough that its cost (some 4 ms for 12,000 connections) is small for
# each new connection, and few enough that those which end meanwhile hold little memory.
FOUND_MAX = 256
# After a search with fewer candidates, the next search is not before this time for each connection.
# A search takes 0.4 us a connection. So if all are busy, searches take a twentieth of the time at
# most, and new connections are refused at no cost.
AGAIN_S_PER_ITEM = 8e-6
# While there is a crowd among so few connections, each new one starts a search: 0.2 ms at most.
# Otherwise an innocent client would be closed because the crowd was busy a moment ago.
CROWD_SEARCHED_MAX = 512
# An older search does not show who is a crowd now.
FRESH_S = 1.0


class Waiting(Protocol):
    """The part of a connection that is used here."""

    @property
    def group(self) -> str:
        """The client's address or network."""
        ...

    def waits_since(self) -> float:
        """Return since when it waits for its client (monotonic seconds); infinity: it does not."""
        ...


Item = TypeVar("Item", bound=Waiting)

_Found = tuple[float, Item]  # since when it waits
_SINCE = itemgetter(0)


class LongestWaiting(Generic[Item]):
    """Finds the connections to close."""

    __slots__ = ("_crowd", "_is_crowded", "_looked_at", "_not_before", "_others")

    def __init__(self) -> None:
        # The longest waiting last.
        self._crowd: list[_Found[Item]] = []
        self._others: list[_Found[Item]] = []
        self._is_crowded = False  # at the last search
        self._looked_at = -inf
        self._not_before = -inf  # the earliest time of the next search

    def take(
        self, items: Collection[Item], now: float, crowd: Callable[[], Collection[str]]
    ) -> Item | None:
        """Return the item to close, or None if none waits.

        It is not returned again. It may have left the items meanwhile.

        Args:
            crowd: Called for each search; returns the groups that have more than their share.
        """
        if now - self._looked_at >= FRESH_S:
            self._look(items, now, crowd())
        chosen = self._take_from(self._crowd)
        if chosen is None and not self._is_crowded:
            chosen = self._take_from(self._others)
        few = self._is_crowded and len(items) <= CROWD_SEARCHED_MAX
        if chosen is None and (few or now >= self._not_before):
            self._look(items, now, crowd())
            chosen = self._take_from(self._crowd)
        return chosen if chosen is not None else self._take_from(self._others)

    def _take_from(self, candidates: list[_Found[Item]]) -> Item | None:
        while candidates:
            since, item = candidates.pop()
            if item.waits_since() == since:  # otherwise it has had a request since
                return item
        return None

    def _look(self, items: Collection[Item], now: float, crowded: Collection[str]) -> None:
        crowd: list[_Found[Item]] = []
        others: list[_Found[Item]] = []
        for item in items:
            since = item.waits_since()
            if since < inf:
                (crowd if item.group in crowded else others).append((since, item))
        self._is_crowded = bool(crowd)
        self._crowd, self._others = _first_of(crowd), _first_of(others)
        self._looked_at = now
        self._not_before = now
        if len(self._crowd or self._others) < FOUND_MAX:
            self._not_before += AGAIN_S_PER_ITEM * len(items)


def _first_of(candidates: list[_Found[Item]]) -> list[_Found[Item]]:
    return nsmallest(FOUND_MAX, candidates, key=_SINCE)[::-1]
