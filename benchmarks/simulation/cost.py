"""What the controller costs a request, in CPU microseconds of this process.

    python -m benchmarks.simulation.cost

The fastest of many short rounds counts: whatever else runs on the machine only adds.
"""

import gc
from collections.abc import Callable
from time import perf_counter

from retter.base.errors import Outcome
from retter.breaker import BreakerSettings, CircuitBreaker, Kind, Permit, Phase, Shed, State

REQUESTS = 2_000
ROUNDS = 150
IN_FLIGHT = 6
STEP_S = 0.001


def _best(round_us: Callable[[], float]) -> float:
    return min(round_us() for _ in range(ROUNDS))


def _breaker(max_in_flight: int = 0) -> CircuitBreaker:
    settings = BreakerSettings(limit_start=2 * IN_FLIGHT, max_in_flight=max_in_flight)
    return CircuitBreaker(settings, 0.0)


def forwarding() -> dict[str, float]:
    """The common path: a closed circuit, a few in flight, all answered."""
    breaker = _breaker()
    keys = [b"/page/%d" % number for number in range(REQUESTS)]
    now = 0.0
    spent = {"admit": 1e9, "started": 1e9, "first_byte": 1e9, "finished": 1e9, "all four": 1e9}

    def one_by_one() -> None:
        """Time each call alone, over batches that stay in flight together."""
        nonlocal now
        sums = dict.fromkeys(spent, 0.0)
        for start in range(0, REQUESTS, IN_FLIGHT):
            batch = keys[start : start + IN_FLIGHT]
            began = perf_counter()
            decisions = [breaker.admit(now, Kind.GET, b"GET /page", key, 1.0) for key in batch]
            admitted = perf_counter()
            permits = [decision for decision in decisions if isinstance(decision, Permit)]
            filtered = perf_counter()
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
            sums["started"] += started - filtered
            sums["first_byte"] += answered - started
            sums["finished"] += finished - answered
            sums["all four"] += finished - began - (filtered - admitted)
        breaker.tick(now)
        for name, value in sums.items():
            spent[name] = min(spent[name], 1e6 * value / REQUESTS)

    for _ in range(ROUNDS):
        one_by_one()
    assert breaker.state is State.CLOSED
    return spent


def shedding() -> dict[str, float]:
    """A full application: every GET is answered from the store."""
    breaker = _breaker(max_in_flight=2 * IN_FLIGHT)
    shed = 0
    for number in range(500):
        decision = breaker.admit(0.0, Kind.GET, b"GET /page", b"/%d" % number, 1.0)
        if isinstance(decision, Shed):
            shed += 1
        elif decision.phase is Phase.ADMITTED:
            breaker.started(0.0, decision)
    assert breaker.state is State.LIMITING
    assert shed > 0

    def round_us(key: bytes) -> float:
        admit = breaker.admit
        began = perf_counter()
        for _ in range(REQUESTS):
            admit(0.0, Kind.GET, b"GET /page", key, 1.0)
        return 1e6 * (perf_counter() - began) / REQUESTS

    assert isinstance(breaker.admit(0.0, Kind.GET, b"GET /page", b"/other", 1.0), Shed)
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
