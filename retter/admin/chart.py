"""The history that the dashboard and `retter top` show.

An hour is kept by seconds, a day by minutes, and thirty days by quarters of an hour.

A row of figures takes 25 octets, so all three together take 200 KB when they are full, and nothing
before there is something to remember. With `--store` they outlive the process (archive.py).
"""

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
_ABSENT: Final = len(_STATES)  # no RETTER ran then
_WORDS: Final = (*[state.value for state in _STATES], None)

SPANS: Final = ("recent", "hour", "day", "month")


class Series:
    """Rows of figures at one step, the newest last."""

    def __init__(self, step_s: int, rows_max: int) -> None:
        self.step_s = step_s
        self.rows_max = rows_max
        self._rates = [array("f") for _ in RATES]  # answers a second, on average
        self._p99_ms = array("f")  # not a number: not known
        self._states = array("B")

    def __len__(self) -> int:
        return len(self._states)

    def add(self, rates: list[float], p99_ms: float, state: int) -> None:
        """Append a row; the oldest goes when there are too many."""
        columns = self._columns()
        for column, value in zip(columns, [*rates, p99_ms], strict=True):
            column.append(value)
        self._states.append(state)
        # Up to a quarter more rows are kept, so that rows are moved now and then, not every second.
        if len(self._states) >= self.rows_max * 5 // 4:
            for column in columns:
                del column[: -self.rows_max]
            del self._states[: -self.rows_max]

    def last(self, rows: int) -> tuple[list[float], float, int]:
        """Return the last rows as one: rates on average, the worst of the rest."""
        p99s = [value for value in self._p99_ms[-rows:] if not isnan(value)]
        states = [state for state in self._states[-rows:] if state != _ABSENT]
        return (
            [sum(column[-rows:]) / rows for column in self._rates],
            max(p99s, default=nan),
            max(states, default=_ABSENT),
        )

    def document(self, until: float, rows: int = 0, before: int = 0) -> dict[str, Any]:
        """Return a list for each figure, the newest last.

        Args:
            until: When the newest row of all ended, in seconds since 1970.
            rows: How many at most; 0 is all.
            before: How many of the newest are left out.
        """
        end = max(0, len(self) - before)
        kept = max(0, len(self) - self.rows_max)
        begin = max(kept, end - rows) if rows else kept
        part = slice(min(begin, end), end)
        return {
            "until": round(until - before * self.step_s, 3),
            "step_s": self.step_s,
            **{
                name: [round(value, 2) for value in column[part]]
                for name, column in zip(RATES, self._rates, strict=True)
            },
            "p99_ms": [None if isnan(value) else round(value, 2) for value in self._p99_ms[part]],
            "state": [_WORDS[state] for state in self._states[part]],
        }

    def packed(self) -> bytes:
        """Return the rows as octets, column by column."""
        kept = slice(-self.rows_max, None)
        rates = [column[kept].tobytes() for column in self._columns()]
        return b"".join([*rates, self._states[kept].tobytes()])

    def restore(self, packed: bytes, absent: int) -> None:
        """Begin with packed rows, followed by `absent` rows in which no RETTER ran.

        Raises:
            ValueError: They are no packed rows.
        """
        rows, rest = divmod(len(packed), 4 * (len(RATES) + 1) + 1)
        if rest or rows > self.rows_max:
            raise ValueError(f"{len(packed)} octets are no rows")
        states = packed[len(packed) - rows :]
        if max(states, default=0) > _ABSENT:
            raise ValueError("a state that does not exist")
        absent = min(absent, self.rows_max)
        nothing = array("f", bytes(4 * absent))
        for number, column in enumerate(self._columns()):
            column[:] = array("f", packed[4 * rows * number : 4 * rows * (number + 1)]) + nothing
        for row in range(rows, rows + absent):
            self._p99_ms[row] = nan
        self._states[:] = array("B", states + bytes([_ABSENT]) * absent)

    def _columns(self) -> "list[array[float]]":
        return [*self._rates, self._p99_ms]


class Chart:
    """Records the seconds, and sums them up."""

    def __init__(self) -> None:
        self._seconds: Series = Series(1, SECONDS_MAX)
        self._minutes: Series = Series(MINUTE, MINUTES_MAX)
        self._quarters: Series = Series(MINUTE * QUARTER, QUARTERS_MAX)
        self._count = 0
        self._worst = 0  # of this second so far

    def entered(self, state: State) -> None:
        """Record a new state of the circuit; it may end before the second does."""
        self._worst = max(self._worst, _STATES.index(state))

    def add(self, rates: dict[str, float], p99_ms: float | None, state: State) -> None:
        """Record a second that is over; `state` is the circuit's at its end."""
        self.entered(state)
        row = [rates[name] for name in RATES]
        self._seconds.add(row, nan if p99_ms is None else p99_ms, self._worst)
        self._worst = _STATES.index(state)  # the next second begins in this state
        self._count += 1
        if self._count % MINUTE == 0:
            self._minutes.add(*self._seconds.last(MINUTE))
            if self._count % (MINUTE * QUARTER) == 0:
                self._quarters.add(*self._minutes.last(QUARTER))

    def document(self, span: str, wall: float) -> dict[str, Any]:
        """Return the history of one of SPANS up to `wall` (seconds since 1970)."""
        if span == "day":
            return self._minutes.document(self._until(self._minutes, wall))
        if span == "month":
            return self._quarters.document(self._until(self._quarters, wall))
        return self._seconds.document(wall, RECENT_S if span == "recent" else 0)

    def between(self, begin: float, end: float, wall: float) -> dict[str, Any]:
        """Return the history from `begin` to `end`, as finely as it is still kept."""
        for series in (self._seconds, self._minutes, self._quarters):
            until, step_s = self._until(series, wall), series.step_s
            if begin >= until - len(series) * step_s or len(series) < series.rows_max:
                break  # it covers the whole time, or all that there is
        before = max(0, int((until - end) // step_s))
        rows = max(1, int((until - begin) // step_s) + 1 - before)
        return series.document(until, rows, before)

    def _until(self, series: Series, wall: float) -> float:
        """Return when the last row of a series ended: a minute or a quarter goes on for a while."""
        return wall - self._count % series.step_s

    def packed(self) -> list[bytes]:
        """Return all that is kept, as octets: three parts."""
        return [one.packed() for one in (self._seconds, self._minutes, self._quarters)]

    def restore(self, parts: list[bytes], absent_s: float) -> None:
        """Continue after another process, which ended `absent_s` seconds ago.

        Raises:
            ValueError: These are no parts of a chart.
        """
        all_series = (self._seconds, self._minutes, self._quarters)
        made: list[Series] = [Series(one.step_s, one.rows_max) for one in all_series]
        for series, packed in zip(made, parts, strict=True):
            series.restore(packed, int(absent_s // series.step_s))
        self._seconds, self._minutes, self._quarters = made[0], made[1], made[2]
