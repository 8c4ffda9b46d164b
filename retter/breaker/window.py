"""A sliding window: outcomes counted over the last few seconds, forgetting in small steps.

Recording is one addition, because it happens for every request. Forgetting is the caller's tick:
`advance(now)` drops the buckets that have become too old, whether time went on by one bucket or by
an hour.
"""

from typing import Final


class RollingWindow:
    """Counts of successes and failures over the last `buckets` x `bucket_s` seconds.

    To record one is to add one to `passed` or `failed`. What was added since the last `advance`
    belongs to the newest bucket.
    """

    __slots__ = (
        "_bucket_s",
        "_buckets",
        "_newest",
        "_old_failed",
        "_old_passed",
        "failed",
        "passed",
    )

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
        """Say whether at least `volume` outcomes were seen and `ratio` of them failed."""
        outcomes = self.passed + self.failed
        return outcomes >= volume and self.failed >= ratio * outcomes

    def advance(self, now: float) -> None:
        """Forget what is older than the window. Time that stands still or goes back is ignored."""
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
    """Close the newest bucket and `steps` - 1 empty ones; return the sum of those that fell out."""
    old += [total - sum(old), *[0] * (steps - 1)]
    gone = sum(old[:steps])
    del old[:steps]
    return gone
