"""Routes: what each takes, and a breaker for the single one that is slow or failing.

An answer that outlives its patience counts as a failure of its route. Queueing in the application
delays all routes alike, so overload opens none of these breakers: a route opens when half of its
requests fail and the others work.
"""

import re
from collections.abc import Iterator
from math import inf
from typing import Final

from retter.base.counters import LATENCY_BOUNDS_S, Histogram
from retter.breaker import constants
from retter.breaker.baseline import Baseline
from retter.breaker.opening import Opening
from retter.breaker.window import RollingWindow
from retter.http.message import SEMICOLON

# Digits, UUIDs and other hexadecimal from 8 digits up: an identifier, not a place in the program.
_IDENTIFIER: Final = re.compile(rb"[0-9]++|[0-9a-fA-F]{8,}+|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4,12}){4}")


def route_of(method: bytes, target: bytes) -> bytes:
    """Return the name of the part of the application that serves such requests.

    The method class and the first path segments, with identifiers replaced by `*`; no query.
    """
    path = target.partition(b"?")[0]
    segments = path.split(b"/", _PIECES)[1:_PIECES]
    if SEMICOLON in path:  # a segment's parameter (;jsessionid=...) is no place, maybe a secret
        segments = [segment.partition(b";")[0] for segment in segments]
    name = b"/".join([_places.get(segment) or _place(segment) for segment in segments])
    return (b"GET /" if method == b"GET" else b"OTHER /") + name


_PIECES: Final = constants.ROUTE_SEGMENTS + 1  # of a path; what stands before its first slash too

# Segments that are known to be places, by themselves: a hit takes a third of a look at the octets.
# Identifiers are not remembered: most never come again.
_places: Final[dict[bytes, bytes]] = {}
PLACES_MAX: Final = 2048  # at most ROUTE_SEGMENT_BYTES_MAX each


def _place(segment: bytes) -> bytes:
    if (
        segment.isdigit()
        or len(segment) > constants.ROUTE_SEGMENT_BYTES_MAX
        or _IDENTIFIER.fullmatch(segment)
    ):
        return b"*"
    if len(_places) >= PLACES_MAX:
        _places.clear()
    _places[segment] = segment
    return segment


class Route:
    """One route's baseline, its recent outcomes and its breaker."""

    __slots__ = (
        "_application",
        "baseline",
        "errors",
        "first_answers",
        "latency",
        "name",
        "opening",
        "outcomes",
        "passed_at",
        "used_at",
    )

    def __init__(self, name: bytes, now: float, application: Baseline) -> None:
        self.name = name
        self._application = application  # stands in while little is known of this route
        self.used_at = now
        self.baseline = Baseline()
        self.first_answers = Baseline()  # stands in while no answer came without a queue
        self.latency = Histogram(LATENCY_BOUNDS_S)  # of good answers, until complete
        self.errors = 0  # no answer, or a bad one
        self.outcomes = RollingWindow(
            now, buckets=constants.FAILURE_BUCKETS, bucket_s=constants.FAILURE_BUCKET_S
        )
        self.passed_at = -inf  # of the last success
        self.opening: Opening | None = None  # while GETs get no further, but for probes

    @property
    def expected_s(self) -> float:
        """b(route): what an answer of this route takes without a queue."""
        baseline = self.baseline
        if baseline.samples >= constants.ROUTE_SAMPLES_MIN:
            return baseline.mean_s
        return self._application.mean_s

    @property
    def late_after_s(self) -> float:
        """After how long an answer of this route is late; never if nothing is known.

        Of a route whose first answers all met a crowd those stand for its baseline.
        """
        usual_s = self.baseline.mean_s
        if self.baseline.samples < constants.ROUTE_SAMPLES_MIN:
            if self.first_answers.samples < constants.ROUTE_SAMPLES_MIN:
                return inf
            usual_s = max(self.first_answers.mean_s, self._application.mean_s)
        return constants.LATE_BASELINES * usual_s + constants.LATE_SLACK_S

    @property
    def is_open(self) -> bool:
        """Whether GETs get no further, but for probes."""
        return self.opening is not None

    def close(self) -> None:
        """Forward again, and judge afresh."""
        self.opening = None
        self.outcomes.clear()


class RouteTable:
    """At most ROUTES_MAX routes by name; what does not fit shares one that never opens."""

    __slots__ = ("_application", "_by_name", "_crowded", "other")

    def __init__(self, now: float, application: Baseline) -> None:
        self._application = application
        self._by_name: dict[bytes, Route] = {}
        self._crowded = False
        self.other = Route(b"other", now, application)

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Route]:
        return iter(self._by_name.values())

    def get(self, name: bytes, now: float) -> Route:
        """Return the route of that name, new if there is room for it."""
        route = self._by_name.get(name)
        if route is None:
            if len(self._by_name) >= constants.ROUTES_MAX:
                self._crowded = True  # room is made on the tick: this is the hot path
                return self.other
            route = self._by_name[name] = Route(name, now, self._application)
        route.used_at = now
        return route

    def peek(self, name: bytes, now: float) -> Route:
        """Return the route that `get` would, and change nothing."""
        known = self._by_name.get(name)
        if known is not None:
            return known
        if len(self._by_name) >= constants.ROUTES_MAX:
            return self.other
        return Route(name, now, self._application)

    def make_room(self) -> None:
        """Forget the least recently used route if another asked for its place."""
        if self._crowded:
            self._crowded = False
            leaving = min(self._by_name.values(), key=lambda route: route.used_at)
            self.other.latency.merge(leaving.latency)
            self.other.errors += leaving.errors
            del self._by_name[leaving.name]

    def fails_alone(self, route: Route) -> bool:
        """Say whether half of a route's requests fail while the others work."""
        own = route.outcomes
        if route is self.other or not own.failing(
            volume=constants.ROUTE_FAILURES_MIN, ratio=constants.ROUTE_FAILURE_RATIO
        ):
            return False
        others = [one.outcomes for one in (*self, self.other) if one is not route]
        passed: int = sum(outcomes.passed for outcomes in others)
        failed: int = sum(outcomes.failed for outcomes in others)
        return failed < constants.ROUTE_WITNESS_RATIO * (passed + failed)

    def another_works(self, route: Route, now: float) -> bool:
        """Say whether any other route was answered well of late."""
        return any(
            other is not route and now - other.passed_at < constants.ROUTE_WITNESS_S
            for other in self._by_name.values()
        )

    def close_all(self) -> None:
        """Close every breaker: the whole application is judged instead."""
        for route in self._by_name.values():
            route.close()

    def advance(self, now: float) -> None:
        """Let old outcomes go."""
        for route in self._by_name.values():
            route.outcomes.advance(now)
