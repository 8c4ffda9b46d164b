"""Rules of the controller that can be switched off, to see what each is worth."""

from collections.abc import Callable
from math import inf
from typing import Any

from retter.breaker import (
    CircuitBreaker,
    FairnessMode,
    baseline,
    constants,
    decide,
    endings,
    fairness,
    sweep,
)
from retter.breaker.circuit import Circuit
from retter.breaker.demand import DemandTable
from retter.breaker.fairness import Fairness
from retter.breaker.in_flight import Flight
from retter.breaker.lanes import Lanes
from retter.breaker.limit import WorkRateLimit
from retter.breaker.pulse import Pulse
from retter.breaker.routes import Route
from retter.breaker.table import ConcurrencyTable
from retter.breaker.tickets import Tickets


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


def _late_after_without_first_answers(self: Route) -> float:
    return constants.LATE_BASELINES * self.expected_s + constants.LATE_SLACK_S


def _enter_without_key(self: Any, permit: Any) -> None:
    self.young[permit] = None
    unique = permit.key = object()  # nobody else asks for it
    self.keys[unique] = 1


def _only_with_stored(circuit: Circuit, lane: int, has_stored: bool) -> float:
    return _line_max(circuit, lane, has_stored) if has_stored else 0.0


_line_max = decide.line_max


def _set(**values: float) -> Callable[[], None]:
    def apply() -> None:
        for name, value in values.items():
            set_constant(name, value)

    return apply


class Chosen:
    """What the runs are made with."""

    fairness = FairnessMode.ON
    workers = 1
    by_client = True  # which worker a request comes to; else by chance


def _place_without_word(self: Any, asker: Any, now: float, more_s: float = 0.0) -> Any:
    return _place_of(self, asker._replace(crawler=""), now, more_s)


_place_of = Fairness.place_of


def _twice_the_mean(_: Any, demands: list[float], now: float) -> float:
    return 2 * sum(demands) / max(1, len(demands))


def _without_stored_first(self: Any, lane: int) -> Any:
    self._given[lane] = 0
    return _next_of(self, lane)


_next_of = Lanes._next_of


def _judged_though_it_queued(circuit: Circuit, now: float, permit: Any) -> None:
    table = circuit.table
    table.late_from, edge = inf, table.late_from
    _outlived_patience(circuit, now, permit)
    table.late_from = edge


_outlived_patience = endings.outlived_patience


def _enter_without_edge(self: Circuit, *how: Any) -> None:
    self.table.late_from, edge = 1.0, self.table.late_from
    _enter(self, *how)
    self.table.late_from = edge


_enter = Circuit._enter


def _no_doubt(self: ConcurrencyTable, now: float, rank: int) -> None:
    self.trial_at = now


RULES: dict[str, Callable[[], None]] = {
    "patience": _method(sweep, "loses_patience", lambda *_: False),
    "stall": _method(Pulse, "stalls", lambda *_: False),
    "hung-is-not-busy": _method(Pulse, "hung", property(lambda _: False)),
    "saturation": _method(ConcurrencyTable, "read_edge", lambda *_: False),
    "late-in-flight": _method(endings, "count_late", lambda *_: None),
    "early-look": _method(endings, "_look_early", lambda *_: None),
    "silence": _set(SILENCE_MIN_S=1e9),
    "pace": _constant("PACE", 1e9),
    "pace-by-proof": _method(ConcurrencyTable, "read_proven", lambda *_: None),
    "proven-places": _method(Circuit, "_proven_places", property(lambda _: 0.0)),
    "pace-wait": _set(PACE_WAIT_S=0.0, PACE_WAIT_BASELINES=0.0, FIRST_S=0.0),
    "ceiling": _method(ConcurrencyTable, "read_ceiling", lambda *_: False),
    "doubts": _method(ConcurrencyTable, "passed_above_ceiling", _no_doubt),
    "trials": _constant("TRIAL_S", 1e9),
    "chance": _set(CHANCE=1e9, LATE_CHANCE=1e9),
    "write-wait": _method(decide, "_decide_other", lambda _: decide.FORWARD),
    "limit-by-edge": _method(Circuit, "_enter", _enter_without_edge),
    "begin-anew": _method(WorkRateLimit, "begin_anew", lambda *_: None),
    "dips": _method(baseline.Dips, "due", lambda *_: False),
    "stored-wait": _set(
        STORED_WAIT_S=0.0, STORED_WAIT_BASELINES=0.0, STORED_WAIT_BEFORE_BASELINES=0.0
    ),
    "queue-without-stored": _method(decide, "line_max", _only_with_stored),
    "count-of-the-line": _constant("CROWDED_WINDOWS", 10**9),
    "gets-rate": _method(
        WorkRateLimit, "gets_rate", property(lambda limit: max(1.0, limit.work_rate))
    ),
    "decide-again": _method(CircuitBreaker, "decide_again", lambda *_: None),
    "single-flight": _method(Flight, "enter", _enter_without_key),
    "discount": _constant("OLD_OTHERS_SHARE", 1e9),
    "route-breaker": _set(ROUTE_FAILURES_MIN=10**9),
    "it-queued": _method(endings, "outlived_patience", _judged_though_it_queued),
    "error-breaker": _method(endings, "_judge", lambda *_: None),
    "route-baselines": _set(ROUTE_SAMPLES_MIN=10**9),
    "cold-start": _method(baseline.ApplicationBaseline, "cold_leave", _no_cold_start),
    "peak": _constant("PEAK_HALF_LIFE_S", 1e-3),
    "first-answers": _method(Route, "late_after_s", property(_late_after_without_first_answers)),
    "fairness": _method(Chosen, "fairness", FairnessMode.OFF),
    "demand": _method(Fairness, "limit_s", property(lambda _: inf)),
    "fair-share": _method(DemandTable, "fair_share", lambda *_: 0.0),
    "fair-share: twice the mean": _method(DemandTable, "fair_share", _twice_the_mean),
    "light": _set(LIGHT_SHARE=0.0, LIGHT_ANSWERS=0.0, LIGHT_ANSWERS_FIRST=0.0),
    "light-at-first": _constant("LIGHT_ANSWERS_FIRST", constants.LIGHT_ANSWERS),
    "whose-shortage": _method(DemandTable, "explains", lambda *_: True),
    "known": _method(fairness, "ISSUED", -1),
    "tickets": _method(Tickets, "read", lambda *_: None),
    "crawlers-word": _method(Fairness, "place_of", _place_without_word),
    "heavy-turn": _constant("HEAVY_TURN", 10**9),
    "heavy-least": _constant("HEAVY_LOOKED_AT", 1),
    "turns-kept": _constant("TURNS_KEPT_MAX", 1),
    "wait-before-others": _constant("STORED_WAIT_BEFORE_BASELINES", 0.0),
    "in-turn": _method(Lanes, "_next_of", _without_stored_first),
    "learn-from-half": _constant("LEARNT_SHARE", 1.0),
}
