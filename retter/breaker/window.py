"""What happened lately: outcomes counted over the last few seconds, forgetting in small steps.

Recording is one addition, because it happens for every request. Forgetting is the caller's tick:
`advance(now)` drops the buckets that have become too old, whether time went on by one bucket or by
an hour.
"""

from typing import Final


class RollingWindow:
    """Counts of successes and failures over the last `buckets` x `bucket_s` seconds."""

    __slots__ = (
        "_bucket_s",
        "_buckets",
        "_failed",
        "_index",
        "_newest",
        "_passed",
        "failed",
        "passed",
    )

    def __init__(self, now: float, *, buckets: int, bucket_s: float) -> None:
        if buckets < 1 or bucket_s <= 0:
            raise ValueError("a rolling window needs at least one bucket of more than 0 s")
        self._buckets: Final = buckets
        self._bucket_s: Final = bucket_s
        self._newest = int(now / bucket_s)
        self._index = self._newest % buckets
        self._passed = [0] * buckets
        self._failed = [0] * buckets
        self.passed = 0
        self.failed = 0

    def record_success(self) -> None:
        """Count one success in the newest bucket."""
        self._passed[self._index] += 1
        self.passed += 1

    def record_failure(self) -> None:
        """Count one failure in the newest bucket."""
        self._failed[self._index] += 1
        self.failed += 1

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
        self._index = newest % self._buckets
        if steps >= self._buckets:
            self.clear()
            return
        for step in range(steps):
            index = (newest - step) % self._buckets
            self.passed -= self._passed[index]
            self.failed -= self._failed[index]
            self._passed[index] = self._failed[index] = 0

    def clear(self) -> None:
        """Forget everything."""
        self._passed = [0] * self._buckets
        self._failed = [0] * self._buckets
        self.passed = self.failed = 0
