"""All figures of a process, for people and programs."""

from typing import Any

from retter.base.counters import Counters, by_reason
from retter.proxy.services import Services


def memo_lookups(services: Services) -> dict[str, tuple[int, int]]:
    """Return hits and misses of the memos of heads, by kind.

    Most hits are computed, because to count them would cost every request something. The
    numbers never fall.
    """
    counters, heads = services.counters, services.heads
    misses = sum([memo.misses for memo in heads.request_memos.values()])
    # What could not be read has mostly been a miss, and was no request.
    asked = counters.requests + sum(counters.own_unread)
    responses = heads.response_memo
    return {
        "request": (max(0, asked - misses), misses),
        "response": (responses.hits + services.breaker.answers_whole, responses.misses),
    }


def request_totals(counters: Counters) -> dict[str, Any]:
    """Return how many requests there were, and what became of them."""
    return {
        "requests": counters.requests,
        "forwarded": sum(counters.forwarded_get) + sum(counters.forwarded_other),
        "stored": by_reason(counters.stored),
        "refused": {reason.value: n for reason, n in counters.refused.items() if n},
        "client_errors": {r.value: n for r, n in counters.client_errors.items() if n},
        "upstream_errors": {r.value: n for r, n in counters.upstream_errors.items() if n},
        "retries": counters.retries,
        "clients_gone": counters.clients_gone,
    }


def stats(services: Services) -> dict[str, Any]:
    """Return all figures; those that count what is in flight are zero when nothing is."""
    now = services.loop.time()
    counters, pool, clients = services.counters, services.pool, services.clients
    return {
        "uptime_s": now - services.started_at,
        "state": services.breaker.circuit.state.value,
        **request_totals(counters),
        "tls_failed": counters.tls_failed,
        "access_lines_dropped": counters.access_lines_dropped,
        "connections": {
            "open": len(clients.connections),
            "accepted": counters.connections,
            "refused": counters.connections_refused,
            "evicted": counters.connections_evicted,
        },
        "exchanges": len(services.exchanges),
        "streams": len(services.streams),
        "upstream": {
            "open": pool.open,
            "idle": pool.idle,
            "dialling": pool.dialling,
            "held": pool.held,
            "dials": pool.dials,
            "dials_failed": pool.dials_failed,
            "resolver_failures": pool.resolver.failures,
        },
        "memo": {
            "requests": sum(len(memo) for memo in services.heads.request_memos.values()),
            "responses": len(services.heads.response_memo),
        },
        "breaker": services.breaker.snapshot(now),
        "store": services.store.stats(),
        **({} if services.disk is None else {"disk": services.disk.stats()}),
        "compression": services.compression.stats(),
        "buffers": {"bytes": services.buffers.used, "refused": services.buffers.refused},
    }
