"""Log lines for changes of the circuit's state: at most one a second.

The first change is written at once. Further changes within a second become one line at its end. It
has the figures of the last change, the state before the first one, and the number of times that
each state was entered.
"""

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from retter.breaker import Transition
from retter.telemetry.log import get_logger

# Between two lines, in seconds.
EVERY_S = 1.0

log = get_logger()


def _plain(transition: Transition) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for field in fields(transition):
        value = getattr(transition, field.name)
        if field.name == "at":
            continue
        if isinstance(value, float):
            value = round(value, 3) if math.isfinite(value) else None
        record[field.name] = getattr(value, "value", value)
    return record


class TransitionLog:
    """Called for every change of state, and once a second with the time."""

    def __init__(self) -> None:
        # Returns the sentences about the situation. The program sets it.
        self.sentences: Callable[[float], dict[str, Any]] = lambda _: {}
        self._written_at = -math.inf
        # Whether this process judges for all workers. What an operator orders, each of them does.
        self.judges: Callable[[], bool] = lambda: True
        self._last: Transition | None = None  # not written yet
        self._before = ""  # the state before the first change that is not written yet
        self._entered: dict[str, int] = {}  # by the changes not written yet

    def on_transition(self, transition: Transition) -> None:
        """Write a change of state with the figures that caused it, now or soon."""
        if not self.judges():
            return
        if self._last is None:
            self._before = transition.before.value
        self._last = transition
        after = transition.after.value
        self._entered[after] = self._entered.get(after, 0) + 1
        self.on_second(transition.at)

    def on_second(self, now: float) -> None:
        """Write the collected changes, if the last line is a second old."""
        if self._last is not None and now - self._written_at >= EVERY_S:
            self._written_at = now
            self.flush()

    def flush(self) -> None:
        """Write the collected changes."""
        last, entered = self._last, self._entered
        if last is None:
            return
        self._last, self._entered = None, {}
        record = {**_plain(last), "before": self._before}
        if (changes := sum(entered.values())) > 1:
            record |= {"changes": changes, "entered": entered}
        log.warning("circuit", **record, **self.sentences(last.at))
