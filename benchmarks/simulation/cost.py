"""What the controller costs a request, in CPU microseconds of this process.

    python -m benchmarks.simulation.cost

The fastest of many short rounds counts: whatever else runs on the machine only adds.
"""

import gc
from collections.abc import Callable
from time import perf_counter, process_time
from typing import Any

from retter.base.errors import Outcome
from retter.breaker import BreakerSettings, CircuitBreaker, Kind, Permit, Phase, Rejection, State

REQUESTS = 1_998  # whole batches
ROUNDS = 150
IN_FLIGHT = 6
STEP_S = 0.001
KEYS = [b"/page/%d" % number for number in range(REQUESTS)]
BATCHES = [KEYS[start : start + IN_FLIGHT] for start in range(0, REQUESTS, IN_FLIGHT)]


def _best(round_us: Callable[[], float]) -> float:
    return min(round_us() for _ in range(ROUNDS))


def _breaker(max_in_flight: int = 0) -> CircuitBreaker:
    settings = BreakerSettings(limit_start=2 * IN_FLIGHT, max_in_flight=max_in_flight)
    return CircuitBreaker(settings, 0.0)


def forwarding() -> dict[str, float]:
    """The common path: a closed circuit, a few in flight, all answered."""
    breaker, now = _breaker(), 0.0
    clock_us = min(_clock_us() for _ in range(ROUNDS))
    best = {"admit": 1e9, "started": 1e9, "first_byte": 1e9, "finished": 1e9, "all four": 1e9}
    for _ in range(ROUNDS):
        costs_us = {name: cost_us - clock_us for name, cost_us in _parts_us(breaker, now).items()}
        now += len(BATCHES) * STEP_S
        costs_us["all four"] = _together_us(breaker, now)
        now += len(BATCHES) * STEP_S
        breaker.tick(now)
        best = {name: min(best[name], cost_us) for name, cost_us in costs_us.items()}
    assert breaker.circuit.state is State.CLOSED
    assert breaker.circuit.baseline.samples >= REQUESTS
    return best


def _together_us(breaker: CircuitBreaker, now: float) -> float:
    """Four calls a request, as a whole: the CPU clock takes some microseconds to read."""
    admit, start = breaker.admit, breaker.started
    first_byte, finish = breaker.first_byte, breaker.finished
    began = process_time()
    for batch in BATCHES:
        permits: list[Any] = [admit(now, Kind.GET, b"GET /page", key, 1.0) for key in batch]
        for permit in permits:
            start(now, permit)
        for permit in permits:
            first_byte(now, permit)
        now += STEP_S
        for permit in permits:
            finish(now, permit, Outcome.OK)
    return 1e6 * (process_time() - began) / REQUESTS


def _parts_us(breaker: CircuitBreaker, now: float) -> dict[str, float]:
    """Each call alone, by a clock that is read once a batch."""
    sums = dict.fromkeys(("admit", "started", "first_byte", "finished"), 0.0)
    for batch in BATCHES:
        began = perf_counter()
        permits: list[Any] = [breaker.admit(now, Kind.GET, b"GET /page", key, 1.0) for key in batch]
        admitted = perf_counter()
        for permit in permits:
            breaker.started(now, permit)
        started = perf_counter()
        for permit in permits:
            breaker.first_byte(now, permit)
        answered = perf_counter()
        now += STEP_S
        for permit in permits:
            breaker.finished(now, permit, Outcome.OK)
        finished = perf_counter()
        sums["admit"] += admitted - began
        sums["started"] += started - admitted
        sums["first_byte"] += answered - started
        sums["finished"] += finished - answered
    return {name: 1e6 * spent / REQUESTS for name, spent in sums.items()}


def _clock_us() -> float:
    """A request's share of reading the clock once a batch."""
    began = perf_counter()
    for _ in BATCHES:
        perf_counter()
    return 1e6 * (perf_counter() - began) / REQUESTS


def shedding() -> dict[str, float]:
    """A full application: every GET is answered from the store."""
    breaker = _breaker(max_in_flight=2 * IN_FLIGHT)
    shed = 0
    for number in range(500):
        decision = breaker.admit(0.0, Kind.GET, b"GET /page", b"/%d" % number, 1.0)
        if isinstance(decision, Rejection):
            shed += 1
        elif decision.phase is Phase.ADMITTED:
            breaker.started(0.0, decision)
    assert breaker.circuit.state is State.LIMITING
    assert shed > 0

    def round_us(key: bytes) -> float:
        admit = breaker.admit
        began = perf_counter()
        for _ in range(REQUESTS):
            admit(0.0, Kind.GET, b"GET /page", key, 1.0)
        return 1e6 * (perf_counter() - began) / REQUESTS

    assert isinstance(breaker.admit(0.0, Kind.GET, b"GET /page", b"/other", 1.0), Rejection)
    return {
        "admit -> stored, limit": _best(lambda: round_us(b"/other")),
        "admit -> stored, single-flight": _best(lambda: round_us(b"/1")),
    }


def ticking(in_flight: int) -> float:
    """One tick with so many hanging requests in flight."""
    breaker = _breaker()
    for number in range(in_flight):
        permit = breaker.admit(0.0, Kind.OTHER, b"OTHER /page", b"/%d" % number, None)
        assert isinstance(permit, Permit)
        breaker.started(0.0, permit)
    breaker.tick(1.0)
    now = 1.0

    def round_us() -> float:
        nonlocal now
        began = perf_counter()
        for _ in range(20):
            now += 0.0001
            breaker.tick(now)
        return 1e6 * (perf_counter() - began) / 20

    return _best(round_us)


def main() -> None:
    """Print the table."""
    gc.disable()
    figures = forwarding() | shedding()
    for in_flight in (0, 10_000):
        figures[f"tick, {in_flight} hanging"] = ticking(in_flight)
    for name, cost_us in figures.items():
        print(f"{name:32}{cost_us:8.2f} us")


if __name__ == "__main__":
    main()
