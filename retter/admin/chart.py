"""The last five minutes, second by second: the history that the dashboard and `retter top` show
first.
"""

import time
from collections import deque
from typing import Any

from retter.breaker import State

CHART_S = 300  # kept: some 60 KB
RATES = ("fresh", "stored", "refused", "failed")

Second = tuple[float, float, float, float, float | None, State]
"""Responses of one second by kind, as in RATES; the p99 in milliseconds; the circuit's state."""


class Chart:
    """Records the last seconds."""

    def __init__(self) -> None:
        self._seconds: deque[Second] = deque(maxlen=CHART_S)

    def add(self, rates: dict[str, float], p99_ms: float | None, state: State) -> None:
        """Record the figures of one second."""
        fresh, stored, refused, failed = [rates[name] for name in RATES]
        self._seconds.append((fresh, stored, refused, failed, p99_ms, state))

    def document(self) -> dict[str, Any]:
        """Return a list for each figure. The newest value is the last one, of the time `until`."""
        columns = list(zip(*self._seconds, strict=True)) or [()] * (len(RATES) + 2)
        *rates, p99_ms, states = columns
        return {
            "until": round(time.time(), 3),
            **{name: list(column) for name, column in zip(RATES, rates, strict=True)},
            "p99_ms": list(p99_ms),
            "state": [state.value for state in states],
        }
