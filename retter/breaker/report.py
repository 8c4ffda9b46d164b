"""Figures of the breaker for operators: latencies, and all figures at one moment."""

from collections.abc import Iterator

from retter.base.counters import LATENCY_BOUNDS_S, Histogram
from retter.breaker.circuit import Circuit
from retter.breaker.routes import Route
from retter.breaker.snapshot import Snapshot


def all_routes(circuit: Circuit) -> Iterator[Route]:
    """Yield every route, and last the one that all routes outside the table share."""
    yield from circuit.routes
    yield circuit.routes.other


def latency(circuit: Circuit) -> Histogram:
    """Return how long good answers took until they were complete."""
    whole = Histogram(LATENCY_BOUNDS_S)
    for route in all_routes(circuit):
        whole.merge(route.latency)
    return whole


def first_byte_latency(circuit: Circuit) -> Histogram:
    """Return how long answers took until their first byte.

    For an answer in one piece, that is the time of its end. Answers in pieces are counted at their
    first byte, even if they fail later.
    """
    begun = latency(circuit).without(circuit.counts.in_pieces)
    begun.merge(circuit.counts.first_bytes)
    return begun


def snapshot(circuit: Circuit, now: float) -> Snapshot:
    """Return all figures as they are now."""
    limit, table, room = circuit.limit, circuit.table, circuit.room
    recent, counts = circuit.failures.recent, circuit.counts
    rejections = circuit.rejections
    return Snapshot(
        at=now,
        state=circuit.state,
        mode=circuit.mode,
        generation=circuit.generation,
        in_flight=limit.in_flight,
        load=limit.load,
        old_others=limit.old_others,
        limit=limit.limit,
        proven=table.proven,
        ceiling=table.ceiling,
        cap=circuit.cap,
        work_rate=limit.work_rate,
        peak_work_rate=limit.peak_work_rate,
        baseline_s=circuit.baseline.mean_s,
        waiting=room.waiting,
        waiting_without_stored=room.waiting_without_stored,
        held=room.held,
        successes=recent.passed,
        failures=recent.failed,
        routes=len(circuit.routes),
        routes_open=tuple(route.name for route in circuit.routes if route.opening),
        shed_stored={shed.reason: shed.count for shed in rejections.stored},
        shed_rejected={shed.reason: shed.count for shed in rejections.rejects},
        queued=counts.queued,
        queue_timeouts=counts.queue_timeouts,
        answered_late=counts.answered_late,
        probes=counts.probes,
        trials=counts.trials,
        dips=circuit.dips.begun,
        transitions=counts.transitions,
        would_shed=counts.would_shed,
        would_queue=counts.would_queue,
        would_reject=counts.would_reject,
        would_answer_late=counts.would_answer_late,
    )
