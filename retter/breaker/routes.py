"""Routes: the service time of each, and a circuit breaker for a single slow or failing route.

A request that takes longer than its patience counts as a failure of its route. A route's breaker
opens when half of its requests fail while the other routes work. Queueing in the application delays
all routes alike, but a quick route's requests are out of patience first. So in an overload only
those count that did not queue, and overload opens none of these breakers.
"""

import re
from collections.abc import Iterator
from math import inf
from typing import Final

from retter.base.counters import LATENCY_BOUNDS_S, Histogram
from retter.breaker import constants
from retter.breaker.baseline import Baseline
from retter.breaker.opening import Opening
from retter.breaker.table import Row
from retter.breaker.window import RollingWindow
from retter.http.message import SEMICOLON

# Digits, UUIDs and other hexadecimal numbers of 8 digits or more are identifiers. They do not name
# a part of the program.
_IDENTIFIER: Final = re.compile(rb"[0-9]++|[0-9a-fA-F]{8,}+|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4,12}){4}")


def route_of(method: bytes, target: bytes) -> bytes:
    """Return the name of the part of the application that serves a request.

    It is the method class and the first path segments, with identifiers replaced by `*` and without
    the query.
    """
    path = target.partition(b"?")[0]
    segments = path.split(b"/", _PIECES)[1:_PIECES]
    if SEMICOLON in path:  # a parameter (;jsessionid=...) names no part, and may be a secret
        segments = [segment.partition(b";")[0] for segment in segments]
    name = b"/".join(
        [b"*" if one.isdigit() else _places.get(one) or _place(one) for one in segments]
    )
    return (b"GET /" if method == b"GET" else b"OTHER /") + name


_PIECES: Final = constants.ROUTE_SEGMENTS + 1  # of a path, with the one before its first slash

# Segments that are no identifiers, by themselves. A hit costs a third of examining the octets.
# Identifiers are not remembered, because most of them never come again.
_places: Final[dict[bytes, bytes]] = {}
PLACES_MAX: Final = 2048  # at most ROUTE_SEGMENT_BYTES_MAX each


def _place(segment: bytes) -> bytes:
    if len(segment) > constants.ROUTE_SEGMENT_BYTES_MAX or _IDENTIFIER.fullmatch(segment):
        return b"*"
    if len(_places) >= PLACES_MAX:
        _places.clear()
    _places[segment] = segment
    return segment


class Route:
    """One route's baseline, its recent outcomes and its breaker."""

    def __init__(self, name: bytes, now: float, application: Baseline) -> None:
        self.name = name
        self.number = 0  # its number in the memory of several workers (figures.py); 0: not known
        self._application = application  # used while this route has few samples
        self.used_at = now
        self.baseline = Baseline()
        self.first_answers = Baseline()  # used while no answer came without queueing
        # Of these, the ones that were counted as in time before anything was known: row, seconds.
        self.unjudged: list[tuple[Row, float]] = []
        self.latency = Histogram(LATENCY_BOUNDS_S)  # of good answers, until they were complete
        self.errors = 0  # requests with no answer or a bad one
        self.outcomes = RollingWindow(
            now, buckets=constants.FAILURE_BUCKETS, bucket_s=constants.FAILURE_BUCKET_S
        )
        self.passed_at = -inf  # time of the last success
        # Set while the route is open: then only probes go upstream, of its GETs.
        self.opening: Opening | None = None

    @property
    def expected_s(self) -> float:
        """b(route): the mean service time of this route, without queueing."""
        baseline = self.baseline
        if baseline.samples >= constants.ROUTE_SAMPLES_MIN:
            return baseline.mean_s
        return self._application.mean_s

    @property
    def late_after_s(self) -> float:
        """An answer of this route is late after this many seconds; never if nothing is known.

        If no answer of the route came without queueing, its first answers stand for its baseline.
        """
        usual_s = self.baseline.mean_s
        if self.baseline.samples < constants.ROUTE_SAMPLES_MIN:
            if self.first_answers.samples < constants.ROUTE_SAMPLES_MIN:
                return inf
            usual_s = max(self.first_answers.mean_s, self._application.mean_s)
        return constants.LATE_BASELINES * usual_s + constants.LATE_SLACK_S

    def add_first_answer(self, took_s: float) -> None:
        """Record one of the first answers. The last of them judges those before it.

        Until then all count as in time. If that stayed so, answers with few in flight would be in
        time only because they came first, and later ones would look late beside them.
        """
        self.first_answers.add(took_s, 0.0)
        if self.first_answers.samples < constants.ROUTE_SAMPLES_MIN:
            return
        late_after_s = self.late_after_s
        for row, its_s in self.unjudged:
            if its_s > late_after_s:
                moved = min(1.0, row.in_time)  # less if the row has faded
                row.in_time -= moved
                row.late += moved
        self.unjudged.clear()

    def close(self) -> None:
        """Forward again, and forget the outcomes."""
        self.opening = None
        self.outcomes.clear()


class RouteTable:
    """At most ROUTES_MAX routes by name; all others share one route, which never opens.

    Attributes:
        by_name: The routes; the hot path looks for one here before it calls `get`.
        other: The route of all others.
    """

    def __init__(self, now: float, application: Baseline) -> None:
        self._application = application
        self.by_name: dict[bytes, Route] = {}
        self._crowded = False
        self.other = Route(b"other", now, application)

    def __len__(self) -> int:
        return len(self.by_name)

    def __iter__(self) -> Iterator[Route]:
        return iter(self.by_name.values())

    def all(self) -> Iterator[Route]:
        """Yield every route, and last the one that all others share."""
        yield from self
        yield self.other

    def latency(self) -> Histogram:
        """Return how long good answers took until they were complete."""
        whole = Histogram(LATENCY_BOUNDS_S)
        for route in self.all():
            whole.merge(route.latency)
        return whole

    def get(self, name: bytes, now: float) -> Route:
        """Return the route of that name, new if there is room for it."""
        route = self.by_name.get(name)
        if route is None:
            if len(self.by_name) >= constants.ROUTES_MAX:
                self._crowded = True  # the tick makes room, because this is the hot path
                return self.other
            route = self.by_name[name] = Route(name, now, self._application)
        route.used_at = now
        return route

    def peek(self, name: bytes, now: float) -> Route:
        """Return the route that `get` would return, and change nothing."""
        known = self.by_name.get(name)
        if known is not None:
            return known
        if len(self.by_name) >= constants.ROUTES_MAX:
            return self.other
        return Route(name, now, self._application)

    def make_room(self) -> None:
        """Remove the least recently used route if another route needed a place."""
        if self._crowded:
            self._crowded = False
            leaving = min(self.by_name.values(), key=lambda route: route.used_at)
            self.other.latency.merge(leaving.latency)
            self.other.errors += leaving.errors
            del self.by_name[leaving.name]

    def fails_alone(self, route: Route) -> bool:
        """Return whether half of a route's requests fail while the other routes work."""
        own = route.outcomes
        if route is self.other or not own.failing(
            volume=constants.ROUTE_FAILURES_MIN, ratio=constants.ROUTE_FAILURE_RATIO
        ):
            return False
        others = [one.outcomes for one in self.all() if one is not route]
        passed: int = sum(outcomes.passed for outcomes in others)
        failed: int = sum(outcomes.failed for outcomes in others)
        return failed < constants.ROUTE_WITNESS_RATIO * (passed + failed)

    def another_works(self, route: Route, now: float) -> bool:
        """Return whether any other route had a good answer lately."""
        return any(
            other is not route and now - other.passed_at < constants.ROUTE_WITNESS_S
            for other in self.by_name.values()
        )

    def close_all(self) -> None:
        """Close every route's breaker: the circuit judges the whole application instead."""
        for route in self.by_name.values():
            route.close()

    def advance(self, now: float) -> None:
        """Forget old outcomes."""
        for route in self.by_name.values():
            route.outcomes.advance(now)
