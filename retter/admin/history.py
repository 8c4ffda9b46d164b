"""The figures of the last minute: once a second the counters are copied, some hundred numbers.

Rates and latencies that are shown are those of the last ten seconds: the difference of two copies.
The routes' figures are of the last ten to twenty seconds: they are copied every ten seconds.
"""

from collections import deque
from collections.abc import Callable
from math import inf
from typing import Any, Final, NamedTuple

from retter.admin.chart import RATES
from retter.admin.situation import LATELY_S
from retter.base.counters import (
    LATENCY_BOUNDS_S,
    OVERHEAD_BOUNDS_S,
    Answers,
    Histogram,
    answers_to_gets,
    answers_to_others,
    estimate,
    quantile,
    server_errors,
    spared,
)
from retter.base.reason import STATUS_CLASSES, Reason
from retter.breaker.fairness import Fairness
from retter.breaker.permit import HEAVY, KNOWN, STRANGER
from retter.proxy.services import Services
from retter.proxy.ticker import Ticker
from retter.telemetry.log import lines_dropped

MINUTE_S = 60  # kept second by second here, some 60 KB
ROUTES_SHOWN = 10  # the slowest
ROUTES_TOLD = 48  # to the worker that answers operators, those with the most requests: 12 KB


_UPSTREAM_STATUS: Final = list(Reason).index(Reason.UPSTREAM_STATUS)


class Sample(NamedTuple):
    """The counters at one moment."""

    at: float
    gets: Answers
    others: Answers
    requests: int
    answered: int  # by the application, well or not, in time for the client
    spared: int
    errors: tuple[int, ...]  # of the application, in the order of Reason
    would_shed: int
    evicted: int
    turned_away: int
    log_lost: int
    memory_errors: int
    commit_failures: int  # of the store on disk
    sorted: tuple[int, int, int, int]  # visitors' requests and places, then those of heavy clients
    loop_lag_s: float  # worst in the second before
    latency: list[int]  # by LATENCY_BOUNDS_S
    overhead: tuple[list[int], list[int]]  # by OVERHEAD_BOUNDS_S: of requests, of answers


class RouteSample(NamedTuple):
    """One route's counters at one moment."""

    latency: list[int]
    errors: int


class History:
    """The figures of the last seconds."""

    def __init__(self, services: Services, ticker: Ticker) -> None:
        self._services = services
        self._ticker = ticker
        self._samples: deque[Sample] = deque(maxlen=MINUTE_S + 1)
        self._seconds = 0
        # Adds the counters of other workers to those of this one.
        self.add_others: Callable[[Sample], Sample] = lambda sample: sample
        # Adds the requests and the places of each lane of other workers.
        self.add_lanes: Callable[[list[int], list[int]], tuple[list[int], list[int]]] = (
            lambda asked, got: (asked, got)
        )
        # Returns the figures that other workers have reported for the last seconds (lately.py).
        self.others_lately: Callable[[], list[dict[str, Any]]] = list
        self._routes_before: dict[bytes, RouteSample] = {}
        self._routes: dict[bytes, RouteSample] = {}
        self.sample(services.loop.time())

    def sample(self, now: float) -> None:
        """Record the second that is over."""
        self._samples.append(self.now(now, whole=True))
        self._ticker.loop_lag_s = 0.0
        if self._seconds % LATELY_S == 0:
            self._routes_before, self._routes = (
                self._routes,
                {
                    route.name: RouteSample(route.latency.counts.copy(), route.errors)
                    for route in self._services.breaker.all_routes()
                },
            )
        self._seconds += 1

    def begin_again(self, now: float) -> None:
        """Forget all seconds: from now on, other counters are added."""
        self._samples.clear()
        self.sample(now)

    def now(self, now: float, *, whole: bool = False) -> Sample:
        """Return the counters at this moment; the latencies, a histogram a route, if `whole`."""
        return self.add_others(self.own(now, whole=whole))

    def own(self, now: float, *, whole: bool = False) -> Sample:
        """Return the counters of this process."""
        services, counters = self._services, self._services.counters
        breaker = services.breaker
        figures = breaker.snapshot(now)
        # Nobody counts answers with a 5xx status by themselves: they were passed on, or the stored
        # response was sent instead.
        hidden = _of_reason(counters.stored, Reason.UPSTREAM_STATUS)
        errors = list(counters.upstream_errors.values())
        errors[_UPSTREAM_STATUS] += hidden + server_errors(counters)
        return Sample(
            at=now,
            gets=answers_to_gets(counters),
            others=answers_to_others(counters),
            requests=counters.requests,
            answered=sum(counters.forwarded_get) + sum(counters.forwarded_other) + hidden,
            spared=spared(counters),
            errors=tuple(errors),
            would_shed=figures.would_shed + figures.would_reject + figures.would_queue,
            evicted=services.store.crowding()[0],
            turned_away=counters.connections_refused + counters.connections_evicted,
            log_lost=counters.access_lines_dropped + lines_dropped(),
            memory_errors=counters.memory_errors,
            commit_failures=0 if services.disk is None else services.disk.figures.commit_failures,
            sorted=_sorted(breaker.circuit.fairness),
            loop_lag_s=self._ticker.loop_lag_s,
            latency=breaker.latency().counts if whole else [],
            overhead=(
                counters.overhead_request.counts.copy(),
                counters.overhead_answer.counts.copy(),
            ),
        )

    def before(self, seconds: int = LATELY_S) -> Sample:
        """Return the counters as they were `seconds` ago, or at the start."""
        return self._samples[max(0, len(self._samples) - 1 - seconds)]

    def rates(self) -> dict[str, float]:
        """Return answers a second by where they came from."""
        now, then = self.now(self._services.loop.time()), self.before()
        return _rates(now, then, max(now.at - then.at, 1.0), 2)

    def place_shares(self) -> tuple[float | None, float | None]:
        """Return the shares of the visitors' requests, and of the heavy ones', that got a place.

        None if there were no requests of that kind.
        """
        now, then = self.now(self._services.loop.time()).sorted, self.before().sorted
        asked, got, heavy_asked, heavy_got = [b - a for a, b in zip(then, now, strict=True)]
        return _part(got, asked), _part(heavy_got, heavy_asked)

    def answers(self, seconds: int) -> dict[str, dict[str, int]]:
        """Return the results of the requests of the last `seconds`, GETs and others apart."""
        now, then = self.now(self._services.loop.time()), self.before(seconds)
        return {
            "gets": now.gets.since(then.gets)._asdict(),
            "others": now.others.since(then.others)._asdict(),
        }

    def last_second(self) -> dict[str, float]:
        """Return the answers of the last whole second, by where they came from."""
        if len(self._samples) < 2:
            return dict.fromkeys(RATES, 0)
        then, now = self._samples[-2], self._samples[-1]
        return _rates(now, then, max(now.at - then.at, 0.1), 1)

    def latency_ms(self) -> dict[str, float | None]:
        """Return what the application takes for a good answer until it is complete."""
        latest = self.now(self._services.loop.time(), whole=True)
        counts = _since(self.before().latency, latest.latency)
        return _percentiles(LATENCY_BOUNDS_S, counts, 1000)

    def overhead_us(self) -> dict[str, float | None]:
        """Return what RETTER itself takes for a request and its answer: the sum of the two."""
        latest = self.now(self._services.loop.time())
        parts = [
            _percentiles(OVERHEAD_BOUNDS_S, _since(then, now), 1_000_000)
            for then, now in zip(self.before().overhead, latest.overhead, strict=True)
        ]
        return {
            name: round(sum([part[name] or 0.0 for part in parts]), 1)
            if parts[0][name] is not None
            else None
            for name in ("p50", "p99")
        }

    def _routes_lately(self) -> dict[str, RouteSample]:
        """Return the routes that were requested of this process lately."""
        found: dict[str, RouteSample] = {}
        nothing = RouteSample(Histogram(LATENCY_BOUNDS_S).counts, 0)
        for route in self._services.breaker.all_routes():
            then = self._routes_before.get(route.name, nothing)
            counts = _since(then.latency, route.latency.counts)
            errors = max(0, route.errors - then.errors)
            if errors or any(counts):
                found[route.name.decode("latin-1")] = RouteSample(counts, errors)
        return found

    def told_routes(self) -> list[tuple[str, list[int], int]]:
        """Return the routes that were requested most, for the worker that answers operators."""
        rows = [(name, one.latency, one.errors) for name, one in self._routes_lately().items()]
        rows.sort(key=lambda row: -sum(row[1]) - row[2])
        return rows[:ROUTES_TOLD]

    def slowest_routes(self) -> list[dict[str, Any]]:
        """Return the slowest of the routes that were requested lately."""
        routes = self._routes_lately()
        for told in self.others_lately():
            for name, counts, errors in told["routes"]:
                own = routes.get(name, RouteSample([0] * len(counts), 0))
                both = [a + b for a, b in zip(own.latency, counts, strict=True)]
                routes[name] = RouteSample(both, own.errors + errors)
        known = self._services.breaker.all_routes()
        is_open = {route.name.decode("latin-1") for route in known if route.opening}
        found: list[tuple[float, dict[str, Any]]] = []
        for name, (counts, errors) in routes.items():
            latency = _percentiles(LATENCY_BOUNDS_S, counts, 1000)
            median_s = estimate(LATENCY_BOUNDS_S, counts, 0.5)
            found.append(
                (
                    inf
                    if median_s is None
                    else median_s,  # without a good answer it takes for ever
                    {
                        "route": name,
                        "state": "OPEN" if name in is_open else "CLOSED",
                        "requests": sum(counts) + errors,
                        "errors": errors,
                        "p50_ms": latency["p50"],
                        "p99_ms": latency["p99"],
                    },
                )
            )
        found.sort(key=lambda one: -one[0])
        return [route for _, route in found[:ROUTES_SHOWN]]

    @property
    def loop_lag_s(self) -> float:
        """The longest delay of a callback."""
        recent = list(self._samples)[-LATELY_S:]
        return max([self._ticker.loop_lag_s, *[sample.loop_lag_s for sample in recent]])


def _sorted(fairness: Fairness | None) -> tuple[int, int, int, int]:
    if fairness is None:
        return 0, 0, 0, 0
    asked = [asked - left for asked, left in zip(fairness.asked, fairness.left, strict=True)]
    got = fairness.got
    return (asked[KNOWN] + asked[STRANGER], got[KNOWN] + got[STRANGER], asked[HEAVY], got[HEAVY])


def _part(count: int, of: int) -> float | None:
    return round(min(1.0, max(0, count) / of), 3) if of > 0 else None


def _rates(now: Sample, then: Sample, seconds: float, digits: int) -> dict[str, float]:
    answers = now.gets.plus(now.others).since(then.gets.plus(then.others))
    return {name: round(getattr(answers, name) / seconds, digits) for name in RATES}


def _of_reason(counts: list[int], reason: Reason) -> int:
    return sum(counts[reason.row : reason.row + STATUS_CLASSES])


def _since(then: list[int], now: list[int]) -> list[int]:
    # A route that was forgotten and came again begins at zero.
    return [max(0, b - a) for a, b in zip(then, now, strict=True)]


def _percentiles(
    bounds: tuple[float, ...], counts: list[int], unit: float
) -> dict[str, float | None]:
    found = {"p50": quantile(bounds, counts, 0.5), "p99": quantile(bounds, counts, 0.99)}
    return {
        name: None if value is None else round(value * unit, 2) for name, value in found.items()
    }
