"""Rules of the controller that can be switched off, to see what each is worth."""

from collections.abc import Callable
from typing import Any

from retter.breaker import baseline, constants
from retter.breaker.circuit import CircuitBreaker
from retter.breaker.flight import Flight
from retter.breaker.limit import WorkRateLimit


def _constant(name: str, value: float) -> Callable[[], None]:
    return lambda: set_constant(name, value)


def set_constant(name: str, value: float) -> None:
    """Try another number: for this process, until its end."""
    if not hasattr(constants, name):
        raise ValueError(f"no constant {name} in retter/breaker/constants.py")
    setattr(constants, name, type(getattr(constants, name))(value))


def _method(owner: type[Any], name: str, replacement: Callable[..., Any]) -> Callable[[], None]:
    assert hasattr(owner, name), f"{owner.__name__} has no {name} any more"
    return lambda: setattr(owner, name, replacement)


def _plain_cold_mean(self: Any, took_s: float, weight_min: float) -> None:
    self.cold = None
    self._running.add(took_s, weight_min)
    self.mean_s = self._running.mean_s


def _enter_without_key(self: Any, permit: Any) -> None:
    self._young[permit] = None
    unique = permit.key = object()      # nobody else asks for it
    self.keys[unique] = 1


def _set(**values: float) -> Callable[[], None]:
    def apply() -> None:
        for name, value in values.items():
            set_constant(name, value)

    return apply


RULES: dict[str, Callable[[], None]] = {
    "patience": _method(CircuitBreaker, "_loses_patience", lambda *_: False),
    "stall": _method(CircuitBreaker, "_check_stall", lambda *_: None),
    "relief-by-work": _constant("QUEUEING", 0.0),
    "ceiling": _method(WorkRateLimit, "lower_ceiling", lambda *_: False),
    "dips": _method(baseline.Dips, "due", lambda *_: False),
    "stored-wait": _constant("STORED_WAIT_S", 0.0),
    "queue-without-stored": _set(QUEUE_SHARE=0.0, QUEUE_MIN=0),
    "single-flight": _method(Flight, "enter", _enter_without_key),
    "discount": _method(WorkRateLimit, "_weigh", lambda s: setattr(s, "load", s.in_flight)),
    "route-breaker": _set(ROUTE_FAILURES_MIN=10**9, ROUTE_SLOW_CALLS_MIN=10**9),
    "route-failures": _set(ROUTE_FAILURES_MIN=10**9),
    "route-slowness": _set(ROUTE_SLOW_CALLS_MIN=10**9),
    "error-breaker": _method(CircuitBreaker, "_judge_failure", lambda *_: None),
    "route-baselines": _set(ROUTE_SAMPLES_MIN=10**9),
    "cold-start": _method(baseline.ApplicationBaseline, "learn", _plain_cold_mean),
    "peak": _constant("PEAK_HALF_LIFE_S", 1e-3),
}
