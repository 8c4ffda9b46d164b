"""`GET /health` in the form of the first RETTER (a program in Go): the same names and units."""

from typing import TYPE_CHECKING, Any

from retter.admin.process_figures import rss_bytes
from retter.base.counters import LATENCY_BOUNDS_S, Histogram
from retter.proxy.services import Services

if TYPE_CHECKING:
    from retter.admin.worker_sum import Whole

_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


def uptime_text(seconds: float) -> str:
    """Return a time in words: `1 hour 2 seconds`."""
    left, parts = int(seconds), list[str]()
    for unit, length in _UNITS:
        count, left = divmod(left, length)
        if count:
            parts.append(f"{count} {unit}{'' if count == 1 else 's'}")
    return " ".join(parts) or "0 seconds"


def _range_s(counts: list[int]) -> tuple[float, float]:
    """Return the bounds between which all values lie. The last bucket has no upper bound."""
    filled = [index for index, count in enumerate(counts) if count]
    if not filled:
        return 0.0, 0.0
    bounds = (0.0, *LATENCY_BOUNDS_S, LATENCY_BOUNDS_S[-1])
    return bounds[filled[0]], bounds[filled[-1] + 1]


def health_figures(services: Services) -> dict[str, Any]:
    """Return the figures of this process: counts, and amounts."""
    latency: Histogram = services.breaker.latency()
    store = services.store.stats()
    return {
        "requests": services.counters.requests,
        "latency": latency.counts,
        "latency_s": latency.total,
        "amounts": {"rss": rss_bytes(), "entries": store["entries"], "bytes": store["bytes_used"]},
    }


def health_document(services: Services, whole: "Whole | None" = None) -> dict[str, Any]:
    """Return the figures. Fastest and slowest are rounded to the bounds of the histogram.

    Args:
        whole: The figures of other workers.
    """
    figures = health_figures(services)
    uptime_s = services.loop.time() - services.started_at
    if whole is not None:
        figures, uptime_s = whole.add_health(figures), whole.uptime_s
    answered, amounts = sum(figures["latency"]), figures["amounts"]
    fastest_s, slowest_s = _range_s(figures["latency"])
    took_ms = figures["latency_s"] * 1000
    return {
        "status": "OK",
        "server-uptime": uptime_text(uptime_s),
        "cache-count": amounts["entries"],
        "breaker-count": 1 + services.breaker.snapshot(services.loop.time()).routes,
        "total-request-served": figures["requests"],
        "total-response-time-ms": round(took_ms),
        "average-response-time-ms": round(took_ms / max(1, answered), 3),
        "slowest-response-time-ms": round(slowest_s * 1000),
        "fastest-response-time-ms": round(fastest_s * 1000),
        "memory": {
            "sys-memory-byte": amounts["rss"],
            "alloc-memory-byte": amounts["bytes"],
        },
    }
