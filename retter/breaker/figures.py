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
from retter.breaker.opening import Opening
from retter.breaker.routes import Route
from retter.breaker.states import State

_STATES: Final = tuple(State)
_MODES: Final = tuple(Mode)
_NUMBER_BYTES: Final = 6  # a float holds 48 bits exactly

FIGURES: Final = 32  # how many numbers `figures` returns
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


def figures(circuit: Circuit) -> list[float]:
    """Return the figures of the process that judges."""
    limit, table, baseline = circuit.limit, circuit.table, circuit.baseline
    pulse, opening, dips, failures = (
        circuit.pulse, circuit.opening, circuit.dips, circuit.failures,
    )  # fmt: skip
    return [
        _STATES.index(circuit.state), _MODES.index(circuit.mode), circuit.generation,
        limit.limit, limit.work_rate, limit.peak_work_rate, limit.windows, limit.crowded_windows,
        limit.shed_at,
        table.proven, table.ceiling, table.late_from, table.trial_at, table.hint,
        baseline.mean_s, baseline.samples, baseline.cold is not None,
        pulse.passed_at, pulse.stalled_at, pulse.woke_at,
        opening.wait_s, opening.probe_at,
        *dips.told(),
        failures.recent.passed, failures.recent.failed,
        failures.in_a_row, failures.refused_in_a_row,
        circuit.crowded, circuit.counts.transitions, limit.others_rate,
    ]  # fmt: skip


def take_figures(circuit: Circuit, said: Sequence[float], now: float) -> None:
    """Decide by these figures from now on.

    The mode is this process's own. While it differs from the judge's (an operator has just spoken
    to one of them), the state is not taken over.
    """
    limit, table, baseline = circuit.limit, circuit.table, circuit.baseline
    pulse, opening, failures = circuit.pulse, circuit.opening, circuit.failures
    state, generation = _STATES[int(said[0])], int(said[2])
    if _MODES[int(said[1])] is circuit.mode:
        if generation != circuit.generation:
            settings = circuit.settings
            opening = circuit.opening = Opening(now, settings.open_min_s, settings.open_max_s)
            circuit.generation = generation
        circuit.state = state
        opening.wait_s, opening.probe_at = said[20], said[21]
    limit.work_rate, limit.peak_work_rate = said[4], said[5]
    limit.windows, limit.crowded_windows = int(said[6]), int(said[7])
    limit.others_rate = said[31]
    table.proven = int(said[9])
    table.ceiling, table.late_from, table.trial_at = said[10], said[11], said[12]
    table.hint = int(said[13])
    baseline.mean_s, baseline.samples = said[14], int(said[15])
    if not said[16]:
        baseline.cold = None
    pulse.passed_at = max(pulse.passed_at, said[17])
    pulse.stalled_at, pulse.woke_at = said[18], said[19]
    circuit.dips.take(said[22], said[23], int(said[24]))
    failures.recent.passed, failures.recent.failed = int(said[25]), int(said[26])
    failures.in_a_row, failures.refused_in_a_row = int(said[27]), int(said[28])
    limit.set_limit(said[3])
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
        settings = circuit.settings
        opening = route.opening = Opening(now, settings.open_min_s, settings.open_max_s)
    opening.wait_s, opening.probe_at = wait_s, probe_at + lag_s


def take_rows(circuit: Circuit, said: Sequence[float]) -> None:
    """Take over the outcomes by rank, to judge from now on."""
    rows = circuit.table.rows
    for row in rows:
        row.in_time = row.late = row.failed = 0.0
    for at in range(1, 1 + _ROW * int(said[0]), _ROW):
        row = rows[int(said[at])]
        row.in_time, row.late, row.failed = said[at + 1 : at + _ROW]
