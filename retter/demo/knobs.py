"""The knobs of the demonstration application, and their legal values.

The database (database.py) reads them; the knobs page and `/knobs.json` (shop.py) change them.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Final, cast

ROUTES_MAX: Final = 64  # each page compares its path with all of them


class Model(StrEnum):
    """The distribution of the time that a query occupies its connection."""

    FIXED = "fixed"  # always the service time
    EXPONENTIAL = "exponential"  # mean is the service time
    BIMODAL = "bimodal"  # 80 % 5 ms, 20 % 800 ms, whatever the service time
    LOGNORMAL = "lognormal"  # heavy tail (sigma 1), mean is the service time
    COLLAPSE = "collapse"  # exponential, and slower with more requests in work


class Condition(StrEnum):
    """The condition of the application."""

    HEALTHY = "healthy"
    SLOW = "slow"  # every query takes `slow_factor` times as long
    FAILING = "failing"  # `failing_share` of the pages end in a `failing_status`
    HUNG = "hung"  # queries begin and do not end until the condition changes
    DEAD = "dead"  # connections reset, port closed, for `dead_for_s` seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Knobs:
    """The positions of all knobs. A change makes a new object."""

    connections: int = 8  # queries worked on at once
    service_ms: float = 20.0  # mean milliseconds of a query; see Model
    model: Model = Model.FIXED
    backlog: int | None = None  # pages that may wait for a connection; None: no limit
    overflow_status: int = 503  # the status of further pages: 500 or 503
    overflow_ms: float = 0.0  # milliseconds until that response
    condition: Condition = Condition.HEALTHY
    slow_factor: float = 10.0
    failing_share: float = 1.0
    failing_status: int = 500  # 500 or 503
    dead_for_s: float = 10.0
    slow_routes_ms: Mapping[str, float] = field(default_factory=dict[str, float])
    failing_routes: Mapping[str, float] = field(default_factory=dict[str, float])

    def changed(self, wishes: Mapping[str, Any]) -> "Knobs":
        """Return the knobs with these changes.

        Raises ValueError with a sentence for the user when a name or a value is not legal.
        """
        turned: dict[str, Any] = {}
        for name, value in wishes.items():
            if name not in READERS:
                raise ValueError(f"no knob is called {name!r}; there are {', '.join(READERS)}")
            try:
                turned[name] = READERS[name](value)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{name}: {error}") from None
        return replace(self, **turned)

    def as_json(self) -> dict[str, Any]:
        """Return the knobs in a form for `json.dumps`, which `changed` accepts."""
        return asdict(self)


def _number(low: float, high: float) -> Callable[[Any], float]:
    def read(value: Any) -> float:
        number = float(value)
        if not low <= number <= high:  # also refuses nan
            raise ValueError(f"must be from {low:,g} to {high:,.0f}, not {value!r}")
        return number

    return read


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        number = int(value)
        if not low <= number <= high:
            raise ValueError(f"must be from {low} to {high}, not {value!r}")
        return number

    return read


def _backlog(value: Any) -> int | None:
    # An empty field of the HTML form means the same as null in JSON.
    return None if value in (None, "", "null") else _whole(0, 1_000_000)(value)


def _error_status(value: Any) -> int:
    if int(value) not in (500, 503):
        raise ValueError(f"must be 500 or 503, not {value!r}")
    return int(value)


def _routes(low: float, high: float) -> Callable[[Any], dict[str, float]]:
    number = _number(low, high)

    def read(value: Any) -> dict[str, float]:
        if not isinstance(value, Mapping):
            raise ValueError("must be an object of path prefixes and numbers")
        routes = cast(Mapping[str, Any], value)
        if len(routes) > ROUTES_MAX:
            raise ValueError(f"must have at most {ROUTES_MAX} path prefixes")
        return {prefix: number(figure) for prefix, figure in routes.items()}

    return read


# Every time is at most an hour: longer than any experiment, short enough for any timer.
READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "connections": _whole(1, 10_000),
    "service_ms": _number(0.0, 3_600_000.0),
    "model": Model,
    "backlog": _backlog,
    "overflow_status": _error_status,
    "overflow_ms": _number(0.0, 3_600_000.0),
    "condition": Condition,
    "slow_factor": _number(1.0, 10_000.0),
    "failing_share": _number(0.0, 1.0),
    "failing_status": _error_status,
    "dead_for_s": _number(0.0, 3600.0),
    "slow_routes_ms": _routes(0.0, 3_600_000.0),
    "failing_routes": _routes(0.0, 1.0),
}
