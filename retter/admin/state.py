"""The one JSON document that the page, the command line and programs look at.

Rates and latencies are those of the last ten seconds: once a second the counters are copied (some
hundred numbers), and what is shown is the difference.
"""

import os
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from retter._version import VERSION
from retter.statistics import by_reason, cells

if TYPE_CHECKING:
    from retter.admin.controls import Controls
    from retter.admin.flight import FlightRecorder
    from retter.proxy import Proxy

LATELY_S = 10       # what "lately" means, in seconds


class Sample(NamedTuple):
    """The counters at one moment."""

    at: float
    fresh: int
    stored: int
    refused: int
    failed: int
    loop_lag_s: float       # worst in the second before


def _failed(counts: list[int]) -> int:
    return sum([n for _, status_class, n in cells(counts) if status_class == 5])


class History:
    """What the last seconds looked like."""

    def __init__(self, proxy: "Proxy") -> None:
        self._proxy = proxy
        self._samples: deque[Sample] = deque(maxlen=LATELY_S + 1)
        self.sample(proxy.loop.time())

    def sample(self, now: float) -> None:
        """Take the second that is over down."""
        self._samples.append(self._now(now))
        self._proxy.loop_lag_s = 0.0

    def _now(self, now: float) -> Sample:
        counters = self._proxy.counters
        forwarded = counters.forwarded_get, counters.forwarded_other
        own = counters.own_get, counters.own_other
        failed = sum([_failed(counts) for counts in forwarded])
        refused = sum(counters.refused.values())
        return Sample(
            now,
            sum([sum(counts) for counts in forwarded]) - failed,
            sum(counters.stored),
            refused,
            failed + sum([_failed(counts) for counts in own]) - refused,
            self._proxy.loop_lag_s,
        )

    def rates(self) -> dict[str, float]:
        """Return answers a second by where they came from."""
        now, then = self._now(self._proxy.loop.time()), self._samples[0]
        seconds = max(now.at - then.at, 1.0)
        return {
            name: round((getattr(now, name) - getattr(then, name)) / seconds, 2)
            for name in ("fresh", "stored", "refused", "failed")
        }

    @property
    def loop_lag_s(self) -> float:
        """The longest that a callback had to wait for its turn."""
        return max([self._proxy.loop_lag_s, *[sample.loop_lag_s for sample in self._samples]])


def rss_bytes() -> int:
    """Return the memory of this process that is in RAM; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 2)


def state_document(
    proxy: "Proxy", history: History, flight: "FlightRecorder", controls: "Controls"
) -> dict[str, Any]:
    """Return what is the case now."""
    now = proxy.loop.time()
    breaker = proxy.breaker.snapshot(now)
    counters, store, pool = proxy.counters, proxy.store.stats(), proxy.pool
    forced, forced_remaining_s = controls.forced(now)
    return {
        "version": VERSION,
        "uptime_s": round(now - proxy.started_at, 1),
        "state": breaker.state.value,
        "forced": forced,
        "forced_remaining_s": forced_remaining_s,
        "paused": False,
        "pause_remaining_s": None,
        "draining": proxy.draining,
        "in_flight": breaker.in_flight,
        "limit": round(breaker.limit, 1),
        "queue": breaker.waiting,
        "upstream": {
            "address": proxy.settings.upstream,
            "connections_idle": pool.idle,
            "connections_busy": pool.open - pool.idle,
        },
        "connections": len(proxy.connections),
        "rates": history.rates(),
        "latency_ms": {"p50": None, "p99": None},
        "overhead_us": {"p50": None, "p99": None},
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
        "routes": [],
        "events": flight.events(),
        "totals": {
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
        "memory": {"rss_bytes": rss_bytes()},
        "loop_lag_ms": _milliseconds(history.loop_lag_s),
    }

