"""The knowledge of a breaker about its application, for the next process.

It does not include the circuit's state: the next process finds out itself whether the application
works. It includes the number of requests that the application can work on, the baselines, and the
table of outcomes by rank. So a restart in the middle of an overload continues with the same limit.
"""

from collections.abc import Iterable
from heapq import nlargest
from math import isfinite
from typing import Any, Final

from retter.breaker import constants
from retter.breaker.circuit import Circuit
from retter.breaker.demand import NOBODY

# Upper limits of the numbers that are read back; an answer takes a year at most.
_SECONDS_MAX: Final = 365 * 86400.0
_SAMPLES_MAX: Final = 10**9


def learnt(circuit: Circuit) -> dict[str, Any]:
    """Return the knowledge worth keeping, in the types of JSON."""
    routes = nlargest(constants.ROUTES_MAX, circuit.routes, key=lambda route: route.used_at)
    return {
        "limit": circuit.limit.limit,
        "work_rate": circuit.limit.work_rate,
        "peak_work_rate": circuit.limit.peak_work_rate,
        "baseline": [circuit.baseline.mean_s, circuit.baseline.samples],
        "rows": [
            [row.first, row.in_time, row.late, row.failed]
            for row in circuit.table.rows
            if row.outcomes
        ],
        "routes": [
            [route.name.decode("latin-1"), route.baseline.mean_s, route.baseline.samples]
            for route in routes
            if route.baseline.samples
        ],
    }


def relearn(circuit: Circuit, said: Any, age_s: float, now: float) -> bool:
    """Take over the knowledge of an earlier process; return False if `said` is not valid.

    Args:
        said: The result of `learnt` in the earlier process.
        age_s: Its age: outcomes decay as if the process had gone on.
    """
    try:
        limit = _number(said["limit"], 1.0, constants.RANK_MAX)
        work_rate = _number(said["work_rate"], 0.0, constants.RANK_MAX)
        peak = _number(said["peak_work_rate"], 0.0, constants.RANK_MAX)
        mean_s, samples = _baseline(said["baseline"])
        routes = [
            (_name(name), *_baseline(rest))
            for name, *rest in said["routes"][: constants.ROUTES_MAX]
        ]
        counts = {
            int(first): [_number(one, 0.0, _SAMPLES_MAX) for one in (in_time, late, failed)]
            for first, in_time, late, failed in said["rows"]
        }
    except (KeyError, TypeError, ValueError):
        return False
    circuit.limit.set_limit(limit)
    circuit.limit.work_rate = work_rate
    circuit.limit.peak_work_rate = peak
    if samples >= constants.COLD_SAMPLES:
        circuit.baseline.mean_s, circuit.baseline.samples = mean_s, samples
        circuit.baseline.cold = None
    for name, route_mean_s, route_samples in routes:
        baseline = circuit.routes.get(name, now).baseline
        baseline.mean_s, baseline.samples = route_mean_s, route_samples
    faded = 0.5 ** (max(0.0, age_s) / constants.TABLE_HALF_LIFE_S)
    for row in circuit.table.rows:
        row.in_time, row.late, row.failed = counts.get(row.first, (0.0, 0.0, 0.0))
        if outcomes := row.outcomes:
            row.scale(min(faded, constants.ROW_OUTCOMES_MAX / outcomes))
    circuit.table.read_proven()
    circuit.table.read_ceiling()
    circuit.set_cap()
    return True


def crawlers(circuit: Circuit, now: float) -> list[list[Any]]:
    """Return the demand of each crawler and the work it got, with the crawler's name.

    Other clients are left out: a crawler has the same number in the next process, but an address
    does not.
    """
    fairness = circuit.fairness
    if fairness is None:
        return []
    rows = fairness.demand.heaviest(constants.DEMAND_CLIENTS_MAX, now)
    return [
        [client, round(asked, 3), round(got, 3), fairness.demand.name_of(client)]
        for client, asked, got in rows
        if client < NOBODY
    ]


def remember_crawlers(circuit: Circuit, said: Any, age_s: float, now: float) -> None:
    """Add the saved demand of crawlers, decayed by its age.

    Raises:
        ValueError: `said` is not a result of `crawlers`.
        TypeError: The same.
    """
    if circuit.fairness is None:
        return
    demand = circuit.fairness.demand
    faded = 0.5 ** (max(0.0, age_s) / constants.DEMAND_HALF_LIFE_S)
    for number, asked, got, name in said[: constants.DEMAND_CLIENTS_MAX]:
        client = int(number)
        if not -(2**32) <= client - NOBODY < 0:
            raise ValueError
        demand.note(client, _number(asked, 0.0, _SECONDS_MAX) * faded, now)
        demand.gave(client, _number(got, 0.0, _SECONDS_MAX) * faded, now)
        demand.call(client, str(name))


def _number(value: object, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
        raise ValueError
    return min(most, max(least, float(value)))


def _baseline(pair: Iterable[object]) -> tuple[float, int]:
    mean_s, samples = pair
    return _number(mean_s, 0.0, _SECONDS_MAX), int(_number(samples, 0, _SAMPLES_MAX))


def _name(text: object) -> bytes:
    if not isinstance(text, str):
        raise ValueError
    return text.encode("latin-1")
