"""Coarse deadlines for very many connections: no timer object a request, none a connection.

A connection keeps its deadline in an attribute and changes it freely. The wheel holds each one in
the bucket of one second, looks when that second comes, and moves it on if the deadline has moved.
Only a deadline that comes *nearer* has to be told (`watch`).
"""

from collections.abc import Iterator
from math import inf
from typing import Generic, Protocol, TypeVar

# An item whose deadline is infinite for now (its request is being worked on) is looked at again
# after so many seconds. It bounds how late the deadline that it gets afterwards can be noticed.
HORIZON_S = 2

# Looking at an item that has moved on costs so much less than what is done to one that has not.
LOOKS_PER_PASSED = 16


class Watched(Protocol):
    """The part of an item that the wheel uses."""

    deadline: float  # monotonic seconds, or infinity
    bucket: int  # the wheel's own; -1 while not watched


Item = TypeVar("Item", bound=Watched)


class DeadlineWheel(Generic[Item]):
    """Items in buckets of one second, in the order of their deadlines."""

    __slots__ = ("_buckets", "_passing", "_second")

    def __init__(self, now: float) -> None:
        self._buckets: dict[int, set[Item]] = {}
        self._passing: set[Item] = set()  # of the second before, not yet looked at
        self._second = int(now)

    def watch(self, item: Item, now: float) -> None:
        """File an item, or move it to an earlier second if its deadline came nearer."""
        deadline = item.deadline if item.deadline < inf else now + HORIZON_S
        second = max(self._second, int(deadline) + 1)
        if item.bucket >= 0:
            if item.bucket <= second:
                return
            self.forget(item)
        item.bucket = second
        bucket = self._buckets.get(second)
        if bucket is None:
            bucket = self._buckets[second] = set()
        bucket.add(item)

    def forget(self, item: Item) -> None:
        """Take an item out."""
        bucket = self._buckets.get(item.bucket)
        if bucket is not None:
            bucket.discard(item)
        item.bucket = -1

    def due(self, now: float, passed_max: int = 1 << 30) -> Iterator[Item]:
        """Yield the items whose deadline has passed; each is watched again until forgotten.

        Args:
            passed_max: Yield no more than so many. The rest stays for the next call.
        """
        looks = LOOKS_PER_PASSED * passed_max
        while passed_max and looks:
            if not self._passing:
                if self._second > now:
                    return
                self._passing = self._buckets.pop(self._second, self._passing)
                self._second += 1
                continue
            looks -= 1
            item = self._passing.pop()
            if item.bucket != self._second - 1:
                continue  # forgotten since it was filed there
            item.bucket = -1
            passed = item.deadline <= now
            self.watch(item, now)
            if passed:
                passed_max -= 1
                yield item

    def behind(self, now: float) -> bool:
        """Whether there is more to look at."""
        return bool(self._passing) or self._second <= now
