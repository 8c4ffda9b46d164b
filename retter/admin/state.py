"""The JSON document of the state, for the dashboard, the commands and programs.

Rates and latencies are those of the last ten seconds: once a second the counters are copied (some
hundred numbers), and the difference is shown. The routes' figures are of the last ten to twenty
seconds: they are copied every ten seconds.
"""

import os
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from retter._version import VERSION
from retter.admin.chart import RATES
from retter.admin.process_figures import anonymous_bytes, mapped_bytes, rss_bytes
from retter.admin.turns import turns_document
from retter.base.counters import (
    LATENCY_BOUNDS_S,
    OVERHEAD_BOUNDS_S,
    Histogram,
    by_reason,
    quantile,
    totals,
)
from retter.proxy.services import Services
from retter.proxy.ticker import Ticker

if TYPE_CHECKING:
    from retter.admin.controls import Controls
    from retter.admin.transitions import TransitionHistory

LATELY_S = 10  # the period of the figures, in seconds
ROUTES_SHOWN = 10  # the slowest


class Sample(NamedTuple):
    """The counters at one moment."""

    at: float
    fresh: int
    stored: int
    refused: int
    failed: int
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
        self._samples: deque[Sample] = deque(maxlen=LATELY_S + 1)
        self._seconds = 0
        self._routes_before: dict[bytes, RouteSample] = {}
        self._routes: dict[bytes, RouteSample] = {}
        self.sample(services.loop.time())

    def sample(self, now: float) -> None:
        """Record the figures of the last second."""
        self._samples.append(self._now(now))
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

    def _now(self, now: float) -> Sample:
        counters = self._services.counters
        return Sample(
            now,
            *totals(counters),
            self._ticker.loop_lag_s,
            self._services.breaker.latency().counts,
            (counters.overhead_request.counts.copy(), counters.overhead_answer.counts.copy()),
        )

    def rates(self) -> dict[str, float]:
        """Return responses per second, by source."""
        now, then = self._now(self._services.loop.time()), self._samples[0]
        seconds = max(now.at - then.at, 1.0)
        return {
            name: round((getattr(now, name) - getattr(then, name)) / seconds, 2) for name in RATES
        }

    def last_second(self) -> dict[str, float]:
        """Return the responses of the last whole second, by source."""
        if len(self._samples) < 2:
            return dict.fromkeys(RATES, 0)
        then, now = self._samples[-2], self._samples[-1]
        seconds = max(now.at - then.at, 0.1)
        return {
            name: round((getattr(now, name) - getattr(then, name)) / seconds, 1) for name in RATES
        }

    def latency_ms(self) -> dict[str, float | None]:
        """Return the application's time for a good response until it is complete."""
        counts = _since(self._samples[0].latency, self._services.breaker.latency().counts)
        return _percentiles(LATENCY_BOUNDS_S, counts, 1000)

    def overhead_us(self) -> dict[str, float | None]:
        """Return RETTER's own time for a request and its response: the sum of both."""
        counters = self._services.counters
        parts = [
            _percentiles(OVERHEAD_BOUNDS_S, _since(then, now.counts), 1_000_000)
            for then, now in zip(
                self._samples[0].overhead,
                (counters.overhead_request, counters.overhead_answer),
                strict=True,
            )
        ]
        return {
            name: round(sum([part[name] or 0.0 for part in parts]), 1)
            if parts[0][name] is not None
            else None
            for name in ("p50", "p99")
        }

    def slowest_routes(self) -> list[dict[str, Any]]:
        """Return the slowest of the routes with requests in this period."""
        found: list[dict[str, Any]] = []
        nothing = RouteSample(Histogram(LATENCY_BOUNDS_S).counts, 0)
        for route in self._services.breaker.all_routes():
            then = self._routes_before.get(route.name, nothing)
            counts = _since(then.latency, route.latency.counts)
            errors = max(0, route.errors - then.errors)
            requests = sum(counts) + errors
            if not requests:
                continue
            latency = _percentiles(LATENCY_BOUNDS_S, counts, 1000)
            found.append(
                {
                    "route": route.name.decode("latin-1"),
                    "state": "OPEN" if route.is_open else "CLOSED",
                    "requests": requests,
                    "errors": errors,
                    "p50_ms": latency["p50"],
                    "p99_ms": latency["p99"],
                }
            )
        # A route without a good response counts as infinitely slow.
        found.sort(key=lambda route: -(inf if route["p50_ms"] is None else route["p50_ms"]))
        return found[:ROUTES_SHOWN]

    @property
    def loop_lag_s(self) -> float:
        """The longest delay of a callback."""
        return max([self._ticker.loop_lag_s, *[sample.loop_lag_s for sample in self._samples]])


def _since(then: list[int], now: list[int]) -> list[int]:
    # A route that was forgotten and is used again begins at zero.
    return [max(0, b - a) for a, b in zip(then, now, strict=True)]


def _percentiles(
    bounds: tuple[float, ...], counts: list[int], unit: float
) -> dict[str, float | None]:
    found = {"p50": quantile(bounds, counts, 0.5), "p99": quantile(bounds, counts, 0.99)}
    return {
        name: None if value is None else round(value * unit, 2) for name, value in found.items()
    }


def state_document(
    services: Services, history: History, transitions: "TransitionHistory", controls: "Controls"
) -> dict[str, Any]:
    """Return the present state."""
    now = services.loop.time()
    breaker = services.breaker.snapshot(now)
    counters, store, pool = services.counters, services.store.stats(), services.pool
    forced, forced_remaining_s = controls.forced(now)
    paused, pause_remaining_s = controls.paused(now)
    return {
        "version": VERSION,
        "pid": os.getpid(),
        "uptime_s": round(now - services.started_at, 1),
        "state": breaker.state.value,
        "forced": forced,
        "forced_remaining_s": forced_remaining_s,
        "paused": paused,
        "pause_remaining_s": pause_remaining_s,
        "held": breaker.held,
        "draining": services.draining,
        "in_flight": breaker.in_flight,
        "limit": round(breaker.limit, 1),
        "queue": breaker.waiting,
        "upstream": {
            "address": services.settings.upstream,
            "fault": pool.fault,
            "connections_idle": pool.idle,
            "connections_busy": pool.open - pool.idle,
        },
        "connections": len(services.clients.connections),
        "rates": history.rates(),
        "second": history.last_second(),
        "latency_ms": history.latency_ms(),
        "overhead_us": history.overhead_us(),
        "store": {
            "entries": store["entries"],
            "bytes": store["bytes_used"],
            "bytes_max": store["bytes_max"],
            "hits": store["found_own"] + store["found_public"],
            "misses": store["not_found"],
            "evictions": (
                store["evicted_budget"] + store["evicted_share"] + store["evicted_variants"]
            ),
        },
        **({} if services.disk is None else {"disk": services.disk.stats()}),
        "routes": history.slowest_routes(),
        "turns": turns_document(services),
        "events": transitions.events(),
        "hints": list(services.hints.given.values()),
        "totals": {
            "transitions": sum(transitions.by_cause.values()),
            "requests": counters.requests,
            "forwarded": sum(counters.forwarded_get) + sum(counters.forwarded_other),
            "stored": by_reason(counters.stored),
            "refused": {reason.value: n for reason, n in counters.refused.items() if n},
            "client_errors": {r.value: n for r, n in counters.client_errors.items() if n},
            "upstream_errors": {r.value: n for r, n in counters.upstream_errors.items() if n},
            "retries": counters.retries,
            "clients_gone": counters.clients_gone,
            "connections": counters.connections,
            "connections_refused": counters.connections_refused,
        },
        "memory": {
            "rss_bytes": rss_bytes(),
            "anonymous_bytes": anonymous_bytes(),
            "mapped_bytes": mapped_bytes(),
        },
        "loop_lag_ms": round(history.loop_lag_s * 1000, 1),
    }
