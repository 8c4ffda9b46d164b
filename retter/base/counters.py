"""What is counted on a request's way, as cheaply as Python can count.

A count is one addition to a list of ints at an index that is known beforehand or one addition away.
Everything else (sums, shares, labels, rates) is worked out by whoever asks.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from retter.base.reason import STATUS_CLASSES, Reason

# Upper bounds of the buckets that latencies are counted in; one more bucket has no bound. About
# three to a factor of two where pages are, so that a median read from them is off by a tenth.
LATENCY_BOUNDS_S: Final = (
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3,
    0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 30.0,
)  # fmt: skip

# What RETTER itself takes is a thousand times less.
OVERHEAD_BOUNDS_S: Final = (
    0.000005, 0.00001, 0.000015, 0.00002, 0.00003, 0.00005, 0.000075, 0.0001, 0.00015, 0.0002,
    0.0003, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05,
)  # fmt: skip


class Histogram:
    """Counts by bucket, and their sum. A value on a bound belongs to the bucket below it."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def merge(self, other: "Histogram") -> None:
        """Count all that another one with the same bounds has counted."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def without(self, other: "Histogram") -> "Histogram":
        """Return what is left without what another one, a part of this, has counted."""
        left = Histogram(self.bounds)
        left.counts = [a - b for a, b in zip(self.counts, other.counts, strict=True)]
        left.total = self.total - other.total
        return left


def quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """Estimate the value that this share of the counted ones does not exceed; None without any.

    Inside a bucket the values are taken to lie evenly; above the last bound they are that bound.
    """
    wanted = share * sum(counts)
    if not wanted:
        return None
    below = 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if count >= wanted:
            return below + (bound - below) * wanted / count
        wanted -= count
        below = bound
    return below


def _by_reason_and_class() -> list[int]:
    return [0] * (len(Reason) * STATUS_CLASSES)


def cells(counts: Sequence[int]) -> Iterator[tuple[Reason, int, int]]:
    """Yield (reason, first digit of the status, count) where anything was counted."""
    for reason in Reason:
        for status_class in range(STATUS_CLASSES):
            if count := counts[reason.row + status_class]:
                yield reason, status_class, count


def by_reason(counts: Sequence[int]) -> dict[str, int]:
    """Return what was counted by reason, where anything was."""
    found: dict[str, int] = {}
    for reason, _, count in cells(counts):
        found[reason.value] = found.get(reason.value, 0) + count
    return found


class Counters:
    """What has happened since the start.

    Of the lists, `counts[reason.row + status // 100]` is how many answers of that class were given
    for that reason.
    """

    __slots__ = (
        "access_lines_dropped", "client_errors", "client_protocols", "clients_gone", "connections",
        "connections_evicted", "connections_refused", "faults", "forwarded_get", "forwarded_other",
        "memory_dropped", "memory_errors", "overhead_answer", "overhead_request", "own_get",
        "own_other", "own_unread", "refused", "requests", "retries", "stored", "tls_failed",
        "traffic", "upstream_errors",
    )  # fmt: skip

    def __init__(self) -> None:
        self.requests = 0
        self.connections = 0
        self.client_protocols = 0  # of them, made: what begins with TLS or PROXY comes later
        self.connections_refused = 0
        self.connections_evicted = 0
        self.retries = 0
        self.clients_gone = 0
        self.tls_failed = 0  # handshakes
        self.memory_errors = 0  # times that memory has run out
        self.memory_dropped = 0  # stored responses, for want of it
        self.faults = 0  # other exceptions that nobody has caught
        self.access_lines_dropped = 0  # of the access log, for want of a reader or of room
        self.forwarded_get = _by_reason_and_class()  # answers of the application
        self.forwarded_other = _by_reason_and_class()  # the same, to other methods
        self.stored = _by_reason_and_class()  # answers from the store, to GETs
        self.own_get = _by_reason_and_class()  # error answers of RETTER's own
        self.own_other = _by_reason_and_class()
        self.own_unread = _by_reason_and_class()  # to what was no request
        self.refused = dict.fromkeys(Reason, 0)
        self.client_errors = dict.fromkeys(Reason, 0)
        self.upstream_errors = dict.fromkeys(Reason, 0)  # whatever the client got then

        # How long RETTER itself worked on a request, and on its answer, measured on some of the
        # connections (sampling.py); a request that the store answers has the first alone.
        self.overhead_request = Histogram(OVERHEAD_BOUNDS_S)
        self.overhead_answer = Histogram(OVERHEAD_BOUNDS_S)
        self.traffic = [0, 0]  # octets from clients, and to them

    def count_forwarded(self, is_get: bool, reason: Reason, status: int) -> None:
        """Count an answer of the application that goes to its client."""
        counts = self.forwarded_get if is_get else self.forwarded_other
        # RFC 9110 section 15: a status that is none is to be taken for a 5xx.
        counts[reason.row + min(status // 100, STATUS_CLASSES - 1)] += 1

    def count_own(self, is_get: bool | None, reason: Reason, status: int) -> None:
        """Count an error answer of our own; `is_get` is None if the request could not be read."""
        if is_get is None:
            counts = self.own_unread
        else:
            counts = self.own_get if is_get else self.own_other
        counts[reason.row + status // 100] += 1


class Totals(NamedTuple):
    """What became of all requests that have been answered."""

    fresh: int  # answered by the application, without a fault
    stored: int  # answered from the store
    refused: int  # told to come again
    failed: int  # an error of the application's, or of RETTER's own for want of an answer


def _failed(counts: Sequence[int]) -> int:
    return sum([n for _, status_class, n in cells(counts) if status_class == 5])


def totals(counters: Counters) -> Totals:
    """Add up what has been counted since the start."""
    forwarded = counters.forwarded_get, counters.forwarded_other
    own = counters.own_get, counters.own_other
    failed = sum([_failed(counts) for counts in forwarded])
    refused = sum(counters.refused.values())
    return Totals(
        sum([sum(counts) for counts in forwarded]) - failed,
        sum(counters.stored),
        refused,
        failed + sum([_failed(counts) for counts in own]) - refused,
    )
