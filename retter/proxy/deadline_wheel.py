"""Coarse deadlines for very many connections, without a timer object for each of them.

A connection keeps its deadline in an attribute and changes it freely. The wheel has each connection
in the bucket of one second. When that second comes, it reads the deadline, and moves the connection
to a later bucket if needed. Only a deadline that becomes *earlier* must be reported (`watch`).
"""

from collections.abc import Iterator
from math import inf
from typing import Generic, Protocol, TypeVar

# An item without a deadline for now (its request is being worked on) is checked again after this
# many seconds. A deadline that it gets meanwhile is noticed at most this late.
HORIZON_S = 2

# Checking an item whose deadline has moved costs this many times less than ending one.
LOOKS_PER_PASSED = 16


class Watched(Protocol):
    """The part of an item that the wheel uses."""

    deadline: float  # monotonic seconds, or infinity
    bucket: int  # the wheel's own; -1 while not watched


Item = TypeVar("Item", bound=Watched)


class DeadlineWheel(Generic[Item]):
    """Items in buckets of one second, in the order of their deadlines."""

    __slots__ = ("_buckets", "_latest", "_passing", "_second")

    def __init__(self, now: float) -> None:
        self._buckets: dict[int, set[Item]] = {}
        self._passing: set[Item] = set()  # of the last second, not yet checked
        self._second = self._latest = int(now)

    def watch(self, item: Item, now: float) -> None:
        """Add an item, or move it to an earlier bucket if its deadline is earlier now."""
        deadline = item.deadline if item.deadline < inf else now + HORIZON_S
        second = max(self._second, int(deadline) + 1)
        if item.bucket >= 0:
            if item.bucket <= second:
                return
            self.forget(item)
        if second == self._latest:  # then all items of that second have one number: 32 octets
            second = self._latest
        self._latest = item.bucket = second
        bucket = self._buckets.get(second)
        if bucket is None:
            bucket = self._buckets[second] = set()
        bucket.add(item)

    def forget(self, item: Item) -> None:
        """Remove an item."""
        bucket = self._buckets.get(item.bucket)
        if bucket is not None:
            bucket.discard(item)
        item.bucket = -1

    def due(self, now: float, passed_max: int = 1 << 30) -> Iterator[Item]:
        """Yield the items whose deadline has passed; each is watched again until forgotten.

        Args:
            passed_max: Yield at most this many. The rest stays for the next call.
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
        """Whether there are more items to check."""
        return bool(self._passing) or self._second <= now
