"""Counters on the path of a request, as cheap as Python can make them.

To count is one addition to a list of ints, at an index that is known or one addition away.
Everything else (sums, shares, labels, rates) is computed by the reader.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from retter.base.reason import STATUS_CLASSES, Reason

# Upper bounds of the buckets for latencies, in seconds; one more bucket has no bound. About three
# buckets per factor of two in the range of pages, so that a median estimated from them is off by a
# tenth. The type is declared: compiled code takes a tuple of 26 floats apart, and puts it together
# again, at each use (3,900 of 40,000 instructions of the processor).
LATENCY_BOUNDS_S: Final[tuple[float, ...]] = (
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3,
    0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 30.0,
)  # fmt: skip

# RETTER's own time is a thousand times shorter.
OVERHEAD_BOUNDS_S: Final[tuple[float, ...]] = (
    0.000005, 0.00001, 0.000015, 0.00002, 0.00003, 0.00005, 0.000075, 0.0001, 0.00015, 0.0002,
    0.0003, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05,
)  # fmt: skip


class Histogram:
    """Counts by bucket, and the sum of the values. A value on a bound belongs to the bucket below
    it.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add_all(self, values: list[float]) -> None:
        """Count many values; the list is sorted then."""
        values.sort()
        below = 0
        for number, bound in enumerate(self.bounds):
            until = bisect_right(values, bound)
            self.counts[number] += until - below
            below = until
        self.counts[-1] += len(values) - below
        self.total += sum(values)

    def merge(self, other: "Histogram") -> None:
        """Add the counts of another histogram with the same bounds."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def without(self, other: "Histogram") -> "Histogram":
        """Return this histogram minus another one that is a part of it."""
        left = Histogram(self.bounds)
        left.counts = [a - b for a, b in zip(self.counts, other.counts, strict=True)]
        left.total = self.total - other.total
        return left


MEDIAN_SAMPLES_MIN: Final = 5  # of fewer, no value stands for the others


def quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """Estimate a quantile; None if too little was counted to tell.

    That is fewer than five values, or so few that not one of them is expected beyond the quantile:
    the slowest of ten answers is no slowest one per cent.

    Args:
        share: From 0 to 1: the share of values that are not larger than the result.
    """
    total = sum(counts)
    if total < MEDIAN_SAMPLES_MIN or total * min(share, 1.0 - share) < 1.0 - 1e-9:
        return None
    return estimate(bounds, counts, share)


def estimate(bounds: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """Estimate a quantile, however little was counted; None if nothing was.

    Inside a bucket the values are assumed to be evenly distributed; above the last bound they count
    as that bound.
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


# What each number in such a list counts, in its order.
_CELLS: Final = tuple([(reason, digit) for reason in Reason for digit in range(STATUS_CLASSES)])


def cells(counts: Sequence[int]) -> Iterator[tuple[Reason, int, int]]:
    """Yield (reason, first digit of the status, count) where anything was counted."""
    # Every second, with the admin interface, and most of the hundreds of counts are zero.
    for (reason, status_class), count in zip(_CELLS, counts, strict=True):
        if count:
            yield reason, status_class, count


def by_reason(counts: Sequence[int]) -> dict[str, int]:
    """Return the counts by reason, without zeros."""
    totals: dict[str, int] = {}
    for reason, _, count in cells(counts):
        totals[reason.value] = totals.get(reason.value, 0) + count
    return totals


class Counters:
    """Totals since the start.

    In the lists, `counts[reason.row + status // 100]` is the number of responses of that class that
    were sent for that reason.
    """

    __slots__ = (
        "access_lines_dropped", "client_errors", "client_protocols", "clients_gone", "connections",
        "connections_evicted", "connections_refused", "faults", "forwarded_get", "forwarded_other",
        "gave_up_get", "gave_up_other", "memory_dropped", "memory_errors", "overhead_answer",
        "overhead_request", "own_get", "own_other", "own_unread", "received", "refused", "requests",
        "retries", "sent", "stored", "tls_failed", "upstream_errors",
    )  # fmt: skip

    def __init__(self) -> None:
        self.requests = 0
        self.connections = 0
        # Protocol objects made so far: with TLS or a PROXY header, they are made after these.
        self.client_protocols = 0
        self.connections_refused = 0
        self.connections_evicted = 0
        self.retries = 0
        self.clients_gone = 0
        self.gave_up_get = 0  # clients that left before they got anything, streams aside
        self.gave_up_other = 0
        self.tls_failed = 0  # handshakes
        self.memory_errors = 0  # times that memory ran out
        self.memory_dropped = 0  # stored responses that were dropped because of it
        self.faults = 0  # other exceptions that were not caught
        # Lines of the access log, because of a slow reader or a full disk.
        self.access_lines_dropped = 0
        self.forwarded_get = _by_reason_and_class()  # answers of the application
        self.forwarded_other = _by_reason_and_class()  # the same, to other methods
        self.stored = _by_reason_and_class()  # answers from the store, to GETs
        self.own_get = _by_reason_and_class()  # RETTER's own error responses
        self.own_other = _by_reason_and_class()
        self.own_unread = _by_reason_and_class()  # responses to bytes that were not a request
        self.refused = dict.fromkeys(Reason, 0)
        self.client_errors = dict.fromkeys(Reason, 0)
        self.upstream_errors = dict.fromkeys(Reason, 0)  # also if the client got a stored response

        # RETTER's own time for a request and for its response, measured on some of the connections
        # (sampling.py). A request that the store answers counts only in the first.
        self.overhead_request = Histogram(OVERHEAD_BOUNDS_S)
        self.overhead_answer = Histogram(OVERHEAD_BOUNDS_S)
        # Octets from clients, and to them. In a list, each would take three instructions more.
        self.received = 0
        self.sent = 0

    def count_forwarded(self, is_get: bool, reason: Reason, status: int) -> None:
        """Count a response of the application that goes to its client."""
        counts = self.forwarded_get if is_get else self.forwarded_other
        # RFC 9110 section 15: an invalid status code is treated as a 5xx.
        counts[reason.row + min(status // 100, STATUS_CLASSES - 1)] += 1

    def count_given_up(self, is_get: bool) -> None:
        """Count a client that has left before it got anything of its answer."""
        if is_get:
            self.gave_up_get += 1
        else:
            self.gave_up_other += 1

    def count_own(self, is_get: bool | None, reason: Reason, status: int) -> None:
        """Count one of RETTER's own error responses; `is_get` is None if the request could not be
        read.
        """
        if is_get is None:
            counts = self.own_unread
        else:
            counts = self.own_get if is_get else self.own_other
        counts[reason.row + status // 100] += 1


class Totals(NamedTuple):
    """The outcomes of all answered requests."""

    fresh: int  # answered by the application without a failure
    stored: int  # answered from the store
    refused: int  # refused with a 503
    failed: int  # errors of the application, and RETTER's own errors other than refusals


def _failed(counts: Sequence[int]) -> int:
    return sum([n for _, status_class, n in cells(counts) if status_class == 5])


def totals(counters: Counters) -> Totals:
    """Return the totals since the start."""
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


class Answers(NamedTuple):
    """The results of the requests of one kind."""

    fresh: int = 0  # answered by the application without a failure
    stored: int = 0  # answered from the store
    refused: int = 0  # a 503 of RETTER's
    failed: int = 0  # an error of the application's, or of RETTER's in its place
    gave_up: int = 0  # the client left before it got anything

    @property
    def good(self) -> int:
        """The requests that got a good answer, fresh or stored."""
        return self.fresh + self.stored

    @property
    def all(self) -> int:
        """All requests that ended."""
        return self.fresh + self.stored + self.refused + self.failed + self.gave_up

    def since(self, before: "Answers") -> "Answers":
        """Return the difference from an earlier count."""
        return Answers(*[now - then for now, then in zip(self, before, strict=True)])

    def plus(self, other: "Answers") -> "Answers":
        """Return the sum of both."""
        return Answers(*[one + two for one, two in zip(self, other, strict=True)])


NO_ANSWERS: Final = Answers()

# Reasons to refuse a request. RETTER's other errors stand in for an error of the application.
_REFUSALS: Final = (
    Reason.LIMIT, Reason.SINGLE_FLIGHT, Reason.FRESH_ENOUGH, Reason.QUEUE_FULL, Reason.FAIR_SHARE,
    Reason.QUEUE_TIMEOUT, Reason.OPEN, Reason.HALF_OPEN, Reason.ROUTE_OPEN, Reason.PATIENCE,
    Reason.FORCED_OPEN, Reason.PAUSED,
)  # fmt: skip


def answers_to_gets(counters: Counters) -> Answers:
    """Return the results of all GETs since the start."""
    stored = sum(counters.stored)
    return _answers(counters.forwarded_get, counters.own_get, stored, counters.gave_up_get)


def answers_to_others(counters: Counters) -> Answers:
    """Return the results of all requests with other methods since the start."""
    return _answers(counters.forwarded_other, counters.own_other, 0, counters.gave_up_other)


def _answers(forwarded: Sequence[int], own: Sequence[int], stored: int, gave_up: int) -> Answers:
    failed = _failed(forwarded)
    refused = sum([own[reason.row + 5] for reason in _REFUSALS])
    return Answers(
        sum(forwarded) - failed, stored, refused, failed + _failed(own) - refused, gave_up
    )


def server_errors(counters: Counters) -> int:
    """Return how many responses of the application with a 5xx status were passed on."""
    return _failed(counters.forwarded_get) + _failed(counters.forwarded_other)


def spared(counters: Counters) -> int:
    """Return how many answers were good only because of RETTER.

    These are all answers from the store: the application did not answer, or would have been
    overloaded. Answers that an operator has ordered (`forced-open`) are not counted: the
    application might have answered.
    """
    ordered = Reason.FORCED_OPEN.row
    return sum(counters.stored) - sum(counters.stored[ordered : ordered + STATUS_CLASSES])
