"""The JSON document of the state, for the dashboard, the commands and programs."""

import os
from typing import TYPE_CHECKING, Any

from retter._version import VERSION
from retter.admin.history import MINUTE_S
from retter.admin.process_figures import anonymous_bytes, mapped_bytes, rss_bytes
from retter.admin.turns import turns_document
from retter.base.counters import spared
from retter.proxy.figures import request_totals
from retter.proxy.services import Services

if TYPE_CHECKING:
    from retter.admin.controls import Controls
    from retter.admin.history import History
    from retter.admin.transitions import TransitionHistory
    from retter.admin.watch import Watch


def own_parts(services: Services, history: "History") -> dict[str, Any]:
    """Return the parts of the state that belong to one process, also beside others."""
    breaker = services.breaker.snapshot(services.loop.time())
    store, pool = services.store.stats(), services.pool
    return {
        "held": breaker.held,
        "queue": breaker.waiting,
        "upstream": {
            "address": services.settings.upstream,
            "fault": pool.fault,
            "connections_idle": pool.idle,
            "connections_busy": pool.open - pool.idle,
        },
        "connections": len(services.clients.connections),
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
        "memory": {
            "rss_bytes": rss_bytes(),
            "anonymous_bytes": anonymous_bytes(),
            "mapped_bytes": mapped_bytes(),
        },
        "loop_lag_ms": round(history.loop_lag_s * 1000, 1),
        **({} if services.far is None else {"shared": services.far.stats()}),
        **({} if services.disk is None else {"disk": services.disk.stats()}),
    }


def totals(services: Services, transitions: "TransitionHistory") -> dict[str, Any]:
    """Return the counts since the start."""
    counters = services.counters
    return {
        "transitions": sum(transitions.by_cause.values()),
        **request_totals(counters),
        "gave_up": counters.gave_up_get + counters.gave_up_other,
        "spared": spared(counters),
        "connections": counters.connections,
        "connections_refused": counters.connections_refused,
    }


def state_document(
    services: Services, watch: "Watch", transitions: "TransitionHistory", controls: "Controls"
) -> dict[str, Any]:
    """Return the present state."""
    now = services.loop.time()
    history = watch.history
    breaker = services.breaker.snapshot(now)
    forced, forced_remaining_s = controls.forced(now)
    paused, pause_remaining_s = controls.paused(now)
    return {
        "version": VERSION,
        "pid": os.getpid(),
        "uptime_s": round(now - services.started_at, 1),
        "state": breaker.state.value,
        "situation": watch.document(now),
        "forced": forced,
        "forced_remaining_s": forced_remaining_s,
        "paused": paused,
        "pause_remaining_s": pause_remaining_s,
        "draining": services.draining,
        "in_flight": breaker.in_flight,
        "limit": round(breaker.limit, 1),
        **own_parts(services, history),
        "rates": history.rates(),
        "second": history.last_second(),
        "minute": history.answers(MINUTE_S),
        "latency_ms": history.latency_ms(),
        "overhead_us": history.overhead_us(),
        "incidents": watch.incidents.recent(),
        "routes": history.slowest_routes(),
        "busiest": watch.busiest.document(
            [page for told in history.others_lately() for page in told["busiest"]]
        ),
        "turns": turns_document(services, history),
        "events": transitions.events(),
        "hints": list(services.hints.given.values()),
        "totals": totals(services, transitions),
    }
