"""The figures of the breaker at one moment."""

from dataclasses import dataclass

from retter.base.reason import Reason
from retter.breaker.circuit import Circuit
from retter.breaker.mode import Mode
from retter.breaker.states import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All figures of the controller at one moment, for operators."""

    at: float  # monotonic seconds
    state: State
    mode: Mode
    generation: int
    in_flight: int  # n
    load: float  # m: n less the discounted share of z
    old_others: int  # z
    limit: float  # L
    proven: int  # this many in flight are answered in time
    ceiling: float  # C; infinite while failures have shown none
    cap: float  # places for GETs now
    work_rate: float  # W
    peak_work_rate: float  # Wpk
    baseline_s: float  # b0
    waiting: int
    waiting_without_stored: int
    held: int  # wait for the end of a pause
    successes: int  # in the last 2 s
    failures: int
    routes: int
    routes_open: tuple[bytes, ...]
    # Since the start:
    shed_stored: dict[Reason, int]  # answered from the store, by reason
    shed_rejected: dict[Reason, int]  # answered 503, by reason
    queued: int
    queue_timeouts: int
    answered_late: int  # patience was over: got the stored response after a wait
    probes: int
    trials: int  # requests above the ceiling, to find out whether it is still right
    dips: int
    transitions: int
    would_shed: int  # in observe mode: numbers of what AUTO would have done
    would_queue: int
    would_reject: int
    would_answer_late: int


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
        waiting=room.waiting - circuit.held,
        waiting_without_stored=room.waiting_without_stored - circuit.held,
        held=circuit.held,
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
