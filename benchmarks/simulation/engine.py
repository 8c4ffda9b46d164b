"""The virtual clock: events in the order of their time, and of their making where that is equal."""

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any


class Engine:
    """Runs callbacks at their time. `now` is seconds since the start of the run."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._serial = count()

    def at(self, when: float, callback: Callable[[Any], None], argument: Any = None) -> None:
        """Call back at that moment."""
        heappush(self._events, (when, next(self._serial), callback, argument))

    def run(self, until: float) -> None:
        """Run all events up to that moment."""
        events = self._events
        while events and events[0][0] <= until:
            self.now, _, callback, argument = heappop(events)
            callback(argument)
        self.now = until
