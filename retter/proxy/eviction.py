"""Which client connection to close when there is no room for a new one.

The one that has waited longest for its client: for a next request, for its first, for the rest of a
head or of a body, or for an answer to be taken. Before all others come those of an address that has
more than its share, a crowd: what they wait for, they have brought about themselves.

Nothing is kept while there is room. When there is none, one look over all connections finds those
that are to go, and these are used up one by one: whoever has begun to wait since has waited for a
shorter time, so the order stays true without another look. Only a crowd may have grown meanwhile,
and so it is looked for again when those found of it are used up, and once a second.
"""

from collections.abc import Callable, Collection
from heapq import nsmallest
from math import inf
from operator import itemgetter
from typing import Generic, Protocol, TypeVar

# Found with one look: enough that looking (some 4 ms for 12,000 connections) costs each newcomer
# little, and few enough that those which end meanwhile hold no memory to speak of.
FOUND_MAX = 256
# When a look has found less than that, connections are not looked over again before so long, for
# each of them. Looking takes 0.4 us a connection: where all are busy, or almost all of a crowd are,
# it takes a twentieth of the time at most, and newcomers are refused at no cost.
AGAIN_S_PER_ITEM = 8e-6
# What has been found longer ago does not tell who is a crowd now.
FRESH_S = 1.0


class Waiting(Protocol):
    """The part of a connection that is used here."""

    @property
    def peer(self) -> str:
        """The client's address."""
        ...

    def waits_since(self) -> float:
        """Return since when it waits for its client (monotonic seconds); infinity if not."""
        ...


Item = TypeVar("Item", bound=Waiting)

_Found = tuple[float, Item]  # since when it waits
_SINCE = itemgetter(0)


class LongestWaiting(Generic[Item]):
    """Finds the connections that are to give way."""

    __slots__ = ("_crowd", "_is_crowded", "_looked_at", "_not_before", "_others")

    def __init__(self) -> None:
        # The longest waiting last.
        self._crowd: list[_Found[Item]] = []
        self._others: list[_Found[Item]] = []
        self._is_crowded = False  # when it was looked last
        self._looked_at = -inf
        self._not_before = -inf  # is there another look

    def take(
        self, items: Collection[Item], now: float, crowd: Callable[[], Collection[str]]
    ) -> Item | None:
        """Return the item that is to give way, or None if none waits.

        It is not returned again, and may be one that is not among the items any more.

        Args:
            crowd: Called for each look, returns the addresses that have more than their share.
        """
        if now - self._looked_at >= FRESH_S:
            self._look(items, now, crowd())
        found = self._take_from(self._crowd)
        if found is None and not self._is_crowded:
            found = self._take_from(self._others)
        if found is None and now >= self._not_before:
            self._look(items, now, crowd())
            found = self._take_from(self._crowd)
        return found if found is not None else self._take_from(self._others)

    def _take_from(self, found: list[_Found[Item]]) -> Item | None:
        while found:
            since, item = found.pop()
            if item.waits_since() == since:  # else it has had something to do
                return item
        return None

    def _look(self, items: Collection[Item], now: float, crowded: Collection[str]) -> None:
        crowd: list[_Found[Item]] = []
        others: list[_Found[Item]] = []
        for item in items:
            since = item.waits_since()
            if since < inf:
                (crowd if item.peer in crowded else others).append((since, item))
        self._is_crowded = bool(crowd)
        self._crowd, self._others = _first_of(crowd), _first_of(others)
        self._looked_at = now
        self._not_before = now
        if len(self._crowd or self._others) < FOUND_MAX:
            self._not_before += AGAIN_S_PER_ITEM * len(items)


def _first_of(found: list[_Found[Item]]) -> list[_Found[Item]]:
    return nsmallest(FOUND_MAX, found, key=_SINCE)[::-1]
