"""Rules of the controller that can be switched off, to see what each is worth."""

from collections.abc import Callable
from typing import Any

from retter.breaker import baseline, constants, decide, sweep
from retter.breaker.breaker import CircuitBreaker
from retter.breaker.circuit import Circuit
from retter.breaker.in_flight import Flight
from retter.breaker.limit import WorkRateLimit
from retter.breaker.table import ConcurrencyTable


def _constant(name: str, value: float) -> Callable[[], None]:
    return lambda: set_constant(name, value)


def set_constant(name: str, value: float) -> None:
    """Try another number: for this process, until its end."""
    if not hasattr(constants, name):
        raise ValueError(f"no constant {name} in retter/breaker/constants.py")
    setattr(constants, name, type(getattr(constants, name))(value))


def _method(owner: Any, name: str, replacement: Any) -> Callable[[], None]:
    assert hasattr(owner, name), f"{owner.__name__} has no {name} any more"
    return lambda: setattr(owner, name, replacement)


def _no_cold_start(self: Any, now: float, **_: Any) -> None:
    self.cold = None


def _enter_without_key(self: Any, permit: Any) -> None:
    self._young[permit] = None
    unique = permit.key = object()  # nobody else asks for it
    self.keys[unique] = 1


def _shed_at_once(circuit: Circuit, refusal: decide.Decision) -> decide.Decision:
    return decide.FORWARD if circuit.limit.load < circuit.cap else refusal


def _set(**values: float) -> Callable[[], None]:
    def apply() -> None:
        for name, value in values.items():
            set_constant(name, value)

    return apply


RULES: dict[str, Callable[[], None]] = {
    "patience": _method(sweep, "loses_patience", lambda *_: False),
    "stall": _method(sweep, "stalled", lambda *_: False),
    "hung-is-not-busy": _method(Circuit, "hung", property(lambda _: False)),
    "saturation": _method(ConcurrencyTable, "read_edge", lambda *_: False),
    "late-in-flight": _method(sweep, "_count_late", lambda *_: None),
    "silence": _set(SILENCE_MIN_S=1e9),
    "pace": _constant("PACE", 1e9),
    "pace-by-proof": _method(ConcurrencyTable, "read_proven", lambda *_: None),
    "pace-wait": _set(PACE_WAIT_S=0.0, PACE_WAIT_BASELINES=0.0, FIRST_S=0.0),
    "ceiling": _method(ConcurrencyTable, "read_ceiling", lambda *_: False),
    "trials": _constant("TRIAL_S", 1e9),
    "chance": _set(CHANCE=1e9, LATE_CHANCE=1e9),
    "write-wait": _method(decide, "_decide_other", lambda _: decide.FORWARD),
    "begin-anew": _method(WorkRateLimit, "begin_anew", lambda *_: None),
    "dips": _method(baseline.Dips, "due", lambda *_: False),
    "stored-wait": _constant("STORED_WAIT_S", 0.0),
    "queue-without-stored": _method(decide, "_without_stored", _shed_at_once),
    "count-of-the-line": _constant("CROWDED_WINDOWS", 10**9),
    "single-flight": _method(Flight, "enter", _enter_without_key),
    "discount": _constant("OLD_OTHERS_SHARE", 1e9),
    "route-breaker": _set(ROUTE_FAILURES_MIN=10**9, ROUTE_SLOW_CALLS_MIN=10**9),
    "route-failures": _set(ROUTE_FAILURES_MIN=10**9),
    "route-slowness": _set(ROUTE_SLOW_CALLS_MIN=10**9),
    "error-breaker": _method(CircuitBreaker, "_judge_failures", lambda *_: None),
    "route-baselines": _set(ROUTE_SAMPLES_MIN=10**9),
    "cold-start": _method(baseline.ApplicationBaseline, "cold_leave", _no_cold_start),
    "peak": _constant("PEAK_HALF_LIFE_S", 1e-3),
}
