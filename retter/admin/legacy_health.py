"""`GET /health` in the form of the first RETTER (a program in Go): the same names and units."""

from typing import Any

from retter.admin.process_figures import rss_bytes
from retter.base.counters import Histogram
from retter.proxy.services import Services

_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


def uptime_text(seconds: float) -> str:
    """Return a time in words: `1 hour 2 seconds`."""
    left, parts = int(seconds), list[str]()
    for unit, length in _UNITS:
        count, left = divmod(left, length)
        if count:
            parts.append(f"{count} {unit}{'' if count == 1 else 's'}")
    return " ".join(parts) or "0 seconds"


def _range_s(histogram: Histogram) -> tuple[float, float]:
    """Return the bounds between which all values lie. The last bucket has no upper bound."""
    filled = [index for index, count in enumerate(histogram.counts) if count]
    if not filled:
        return 0.0, 0.0
    bounds = (0.0, *histogram.bounds, histogram.bounds[-1])
    return bounds[filled[0]], bounds[filled[-1] + 1]


def health_document(services: Services) -> dict[str, Any]:
    """Return the figures. Fastest and slowest are rounded to the bounds of the histogram."""
    latency = services.breaker.latency()
    answered = sum(latency.counts)
    fastest_s, slowest_s = _range_s(latency)
    store = services.store.stats()
    return {
        "status": "OK",
        "server-uptime": uptime_text(services.loop.time() - services.started_at),
        "cache-count": store["entries"],
        "breaker-count": 1 + services.breaker.snapshot(services.loop.time()).routes,
        "total-request-served": services.counters.requests,
        "total-response-time-ms": round(latency.total * 1000),
        "average-response-time-ms": round(latency.total * 1000 / max(1, answered), 3),
        "slowest-response-time-ms": round(slowest_s * 1000),
        "fastest-response-time-ms": round(fastest_s * 1000),
        "memory": {
            "sys-memory-byte": rss_bytes(),
            "alloc-memory-byte": store["bytes_used"],
        },
    }
