"""The figures of a circuit as plain numbers, so that several processes can share one judgement.

One process judges and publishes its figures. The others take them over and decide by them, and each
of them can go on judging from them.

- `figures` are few and change often: the state, the places, the baseline.
- `tables` are many: the outcomes by rank, and the routes' service times and breakers. A route is
  told by a number (`route_number`).
"""

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from math import inf
from typing import Final

from retter.breaker.circuit import Circuit
from retter.breaker.mode import Mode
from retter.breaker.routes import Route
from retter.breaker.states import State

_STATES: Final = tuple(State)
_MODES: Final = tuple(Mode)
_NUMBER_BYTES: Final = 6  # a float holds 48 bits exactly

_ROW: Final = 4  # numbers for each row of the table
_ROUTE: Final = 8  # and for each route


def route_number(name: bytes) -> int:
    """Return the number of a route: the same in all processes, and never 0."""
    return int.from_bytes(blake2b(name, digest_size=_NUMBER_BYTES).digest(), "big") or 1


def mode_number(mode: Mode) -> int:
    """Return the number of a mode."""
    return _MODES.index(mode)


def mode_of(number: float) -> Mode:
    """Return the mode of that number."""
    return _MODES[int(number)]


# What is passed on as it is: the part of the circuit, and the name there.
_MEASURED: Final = (
    ("limit", "work_rate"), ("limit", "peak_work_rate"), ("limit", "others_rate"),
    ("table", "ceiling"), ("table", "late_from"), ("table", "trial_at"),
    ("baseline", "mean_s"), ("pulse", "stalled_at"), ("pulse", "woke_at"),
    ("dips", "_due_at"), ("dips", "_until"),
)  # fmt: skip
_COUNTED: Final = (
    ("limit", "windows"), ("limit", "crowded_windows"), ("table", "proven"), ("table", "hint"),
    ("baseline", "samples"), ("dips", "_samples"),
    ("failures", "in_a_row"), ("failures", "refused_in_a_row"),
)  # fmt: skip
_APART: Final = 10  # figures with a rule of their own
FIGURES: Final = _APART + len(_MEASURED) + len(_COUNTED)  # how many numbers `figures` returns


def figures(circuit: Circuit) -> list[float]:
    """Return the figures of the process that judges."""
    opening, recent = circuit.opening, circuit.failures.recent
    said: list[float] = [
        _STATES.index(circuit.state), _MODES.index(circuit.mode), circuit.generation,
        opening.wait_s, opening.probe_at, circuit.limit.limit, circuit.baseline.cold is not None,
        circuit.pulse.passed_at, recent.passed, recent.failed,
    ]  # fmt: skip
    said += [getattr(getattr(circuit, part), name) for part, name in _MEASURED + _COUNTED]
    return said


def take_figures(circuit: Circuit, said: Sequence[float], now: float) -> None:
    """Decide by these figures from now on.

    The mode is this process's own. While it differs from the judge's (an operator has just spoken
    to one of them), the state is not taken over.
    """
    state, mode, generation, wait_s, probe_at, limit, cold, *answers = said[:_APART]
    if _MODES[int(mode)] is circuit.mode:
        if int(generation) != circuit.generation:
            circuit.opening = circuit.new_opening(now)
            circuit.generation = int(generation)
        circuit.state = _STATES[int(state)]
        circuit.opening.wait_s, circuit.opening.probe_at = wait_s, probe_at
    for (part, name), value in zip(_MEASURED, said[_APART:], strict=False):
        setattr(getattr(circuit, part), name, value)
    for (part, name), value in zip(_COUNTED, said[_APART + len(_MEASURED) :], strict=False):
        setattr(getattr(circuit, part), name, int(value))
    if not cold:
        circuit.baseline.cold = None
    pulse, recent = circuit.pulse, circuit.failures.recent
    pulse.passed_at = max(pulse.passed_at, answers[0])
    recent.passed, recent.failed = int(answers[1]), int(answers[2])
    circuit.limit.set_limit(limit)
    circuit.set_cap()


def tables(circuit: Circuit) -> list[float]:
    """Return the outcomes by rank, and the routes."""
    said: list[float] = [0]
    rows = 0
    for index, row in enumerate(circuit.table.rows):
        if row.outcomes:
            said += (index, row.in_time, row.late, row.failed)
            rows += 1
    said[0] = rows
    for route in circuit.routes:
        baseline, first, opening = route.baseline, route.first_answers, route.opening
        if not (baseline.samples or first.samples or opening):
            continue
        said += (
            route_number_of(route),
            baseline.mean_s,
            baseline.samples,
            first.mean_s,
            first.samples,
            inf if opening is None else opening.probe_at,
            0.0 if opening is None else opening.wait_s,
            route.passed_at,
        )
    return said


def route_number_of(route: Route) -> int:
    """Return the number of a route, which is computed once."""
    if not route.number:
        route.number = route_number(route.name)
    return route.number


def route_numbers(said: Sequence[float]) -> Iterator[int]:
    """Yield the numbers of the routes in these tables."""
    for at in range(1 + _ROW * int(said[0]), len(said), _ROUTE):
        yield int(said[at])


def take_routes(circuit: Circuit, said: Sequence[float], now: float, lag_s: float = 0.0) -> None:
    """Take over what is known about this process's routes.

    Args:
        lag_s: How much later than told this process sends the probe of an open route.
    """
    known = {route_number_of(route): route for route in circuit.routes}
    for at in range(1 + _ROW * int(said[0]), len(said), _ROUTE):
        route = known.get(int(said[at]))
        if route is not None:
            _take_route(circuit, route, said[at + 1 : at + _ROUTE], now, lag_s)


def _take_route(
    circuit: Circuit, route: Route, said: Sequence[float], now: float, lag_s: float
) -> None:
    mean_s, samples, first_s, first_samples, probe_at, wait_s, passed_at = said
    route.baseline.mean_s, route.baseline.samples = mean_s, int(samples)
    route.first_answers.mean_s, route.first_answers.samples = first_s, int(first_samples)
    route.passed_at = max(route.passed_at, passed_at)
    if probe_at == inf:
        route.opening = None
        return
    opening = route.opening
    if opening is None:
        opening = route.opening = circuit.new_opening(now)
    opening.wait_s, opening.probe_at = wait_s, probe_at + lag_s


def take_rows(circuit: Circuit, said: Sequence[float]) -> None:
    """Take over the outcomes by rank, to judge from now on."""
    rows = circuit.table.rows
    for row in rows:
        row.in_time = row.late = row.failed = 0.0
    for at in range(1, 1 + _ROW * int(said[0]), _ROW):
        row = rows[int(said[at])]
        row.in_time, row.late, row.failed = said[at + 1 : at + _ROW]
