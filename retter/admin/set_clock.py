"""The times of day that operators are told, on a machine whose clock is set while RETTER runs.

A machine without a battery begins in 1970. When it learns the time, what has happened before gets
the right time too.
"""

import time
from collections.abc import Callable
from typing import Final

from retter.base.steady_clock import since_boot

SET_S: Final = 1.0  # a smaller difference comes of a clock that is slowed down or hurried


class SetClock:
    """The system's clock, and by how much it is set.

    Attributes:
        on_set: Called with the seconds by which all times before are to be moved.
    """

    def __init__(self) -> None:
        self.on_set: list[Callable[[float], None]] = []
        self._began_at = time.time() - since_boot()

    def now(self) -> float:
        """Return the time of day, as it would be if the clock had not been set since `look`."""
        return self._began_at + since_boot()

    def look(self) -> None:
        """Look whether the clock was set. Called once a second."""
        moved_s = time.time() - self.now()
        if abs(moved_s) >= SET_S:
            self._began_at += moved_s
            for callback in self.on_set:
                callback(moved_s)
