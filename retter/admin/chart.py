"""The history that the dashboard and `retter top` show.

An hour is kept by seconds, a day by minutes, and thirty days by quarters of an hour.

A row of figures takes 25 octets, so all three together take 200 KB when they are full, and nothing
before there is something to remember.
"""

import time
from array import array
from math import isnan, nan
from typing import Any, Final

from retter.breaker import State

RATES: Final = ("fresh", "stored", "refused", "failed", "gave_up")
RECENT_S: Final = 300  # what is shown first
MINUTE: Final = 60
QUARTER: Final = 15  # minutes

# Rows kept at each step.
SECONDS_MAX: Final = 3600
MINUTES_MAX: Final = 24 * 60
QUARTERS_MAX: Final = 30 * 24 * 4

# From the best to the worst: a row has the worst state that there was in its time.
_STATES: Final = (State.CLOSED, State.LIMITING, State.HALF_OPEN, State.OPEN)

SPANS: Final = ("recent", "hour", "day", "month")


class Series:
    """Rows of figures at one step, the newest last."""

    def __init__(self, step_s: int, rows_max: int) -> None:
        self.step_s = step_s
        self._rows_max = rows_max
        self._rates = [array("f") for _ in RATES]  # answers a second, on average
        self._p99_ms = array("f")  # not a number: not known
        self._states = array("B")

    def __len__(self) -> int:
        return len(self._states)

    def add(self, rates: list[float], p99_ms: float, state: int) -> None:
        """Append a row; the oldest goes when there are too many."""
        columns = [*self._rates, self._p99_ms]
        for column, value in zip(columns, [*rates, p99_ms], strict=True):
            column.append(value)
        self._states.append(state)
        # A quarter too many at times, so that what stays is moved once in a while, not each second.
        if len(self._states) >= self._rows_max * 5 // 4:
            for column in columns:
                del column[: -self._rows_max]
            del self._states[: -self._rows_max]

    def last(self, rows: int) -> tuple[list[float], float, int]:
        """Return the last rows as one: rates on average, the worst of the rest."""
        p99s = [value for value in self._p99_ms[-rows:] if not isnan(value)]
        return (
            [sum(column[-rows:]) / rows for column in self._rates],
            max(p99s, default=nan),
            max(self._states[-rows:]),
        )

    def document(self, rows: int = 0) -> dict[str, Any]:
        """Return a list for each figure, the newest last and of the time `until`."""
        rows = min(rows or self._rows_max, self._rows_max)
        return {
            "until": round(time.time(), 3),
            "step_s": self.step_s,
            **{
                name: [round(value, 2) for value in column[-rows:]]
                for name, column in zip(RATES, self._rates, strict=True)
            },
            "p99_ms": [None if isnan(value) else round(value, 2) for value in self._p99_ms[-rows:]],
            "state": [_STATES[state].value for state in self._states[-rows:]],
        }


class Chart:
    """Records the seconds, and sums them up."""

    def __init__(self) -> None:
        self._seconds = Series(1, SECONDS_MAX)
        self._minutes = Series(MINUTE, MINUTES_MAX)
        self._quarters = Series(MINUTE * QUARTER, QUARTERS_MAX)
        self._count = 0
        self._worst = 0  # of this second so far

    def entered(self, state: State) -> None:
        """Take in a new state of the circuit, which may be over before the second is."""
        self._worst = max(self._worst, _STATES.index(state))

    def add(self, rates: dict[str, float], p99_ms: float | None, state: State) -> None:
        """Record a second that is over; `state` is the circuit's at its end."""
        self.entered(state)
        row = [rates[name] for name in RATES]
        self._seconds.add(row, nan if p99_ms is None else p99_ms, self._worst)
        self._worst = _STATES.index(state)  # the next second begins with it
        self._count += 1
        if self._count % MINUTE == 0:
            self._minutes.add(*self._seconds.last(MINUTE))
            if self._count % (MINUTE * QUARTER) == 0:
                self._quarters.add(*self._minutes.last(QUARTER))

    def document(self, span: str = "recent") -> dict[str, Any]:
        """Return the history of one of SPANS."""
        if span == "day":
            return self._minutes.document()
        if span == "month":
            return self._quarters.document()
        return self._seconds.document(RECENT_S if span == "recent" else 0)
