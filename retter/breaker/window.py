"""A sliding window: it counts the outcomes of the last few seconds, in small buckets of time.

To record an outcome is one addition, because it happens for every request. The caller's tick
calls `advance(now)`, which drops the buckets that are too old. It does not matter whether the time
went on by one bucket or by an hour.
"""

from typing import Final


class RollingWindow:
    """Counts of successes and failures over the last `buckets` x `bucket_s` seconds.

    To record an outcome, the caller adds one to `passed` or `failed`. Outcomes that were added
    since the last `advance` belong to the newest bucket.
    """

    def __init__(self, now: float, *, buckets: int, bucket_s: float) -> None:
        if buckets < 1 or bucket_s <= 0:
            raise ValueError("a rolling window needs at least one bucket of more than 0 s")
        self._buckets: Final = buckets
        self._bucket_s: Final = bucket_s
        self._newest = int(now / bucket_s)
        self.clear()

    @property
    def outcomes(self) -> int:
        """Successes and failures in the window."""
        return self.passed + self.failed

    def failing(self, *, volume: int, ratio: float) -> bool:
        """Return whether there are at least `volume` outcomes and `ratio` of them failed."""
        outcomes = self.passed + self.failed
        return outcomes >= volume and self.failed >= ratio * outcomes

    def advance(self, now: float) -> None:
        """Forget outcomes older than the window. If time has not gone on, nothing happens."""
        newest = int(now / self._bucket_s)
        steps = newest - self._newest
        if steps <= 0:
            return
        self._newest = newest
        if steps >= self._buckets or not self.passed + self.failed:
            self.clear()
            return
        self.passed -= _move(self._old_passed, self.passed, steps)
        self.failed -= _move(self._old_failed, self.failed, steps)

    def clear(self) -> None:
        """Forget everything."""
        self._old_passed = [0] * (self._buckets - 1)  # the buckets before the newest, oldest first
        self._old_failed = [0] * (self._buckets - 1)
        self.passed = self.failed = 0


def _move(old: list[int], total: int, steps: int) -> int:
    """Close the newest bucket and `steps` - 1 empty ones; return the sum of the dropped buckets."""
    old += [total - sum(old), *[0] * (steps - 1)]
    gone = sum(old[:steps])
    del old[:steps]
    return gone
