"""A time of day that does not jump, for ages that are kept as times of day.

A machine without a battery begins in 1970, or at the date of its image, until it has asked for the
time. Others are set back an hour. So this clock follows the system's for an hour only, and then
counts seconds, also those in which the machine is suspended. What it counts is noted for the next
process: it is never earlier than that, wherever the system's clock begins.
"""

import contextlib
import time
from collections.abc import Callable
from math import inf, isfinite
from typing import Any, Final

FOLLOWS_S: Final = 3600.0  # by then a machine has asked for the time, or does not ask
# In 2020, before RETTER was made: an earlier time was never set.
_SET_AFTER: Final = 1_600_000_000.0

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def since_boot() -> float:
    """Return the seconds since the machine has started, also those while it was suspended."""
    return time.clock_gettime(_CLOCK)


def boot_id() -> str:
    """Return the name of this start of the machine; "" if it is not known."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


class SteadyClock:
    """Seconds since 1970.

    Args:
        wall: The system's time of day.
        steady: Seconds that do not jump, since `boot`.
        boot: A name of this start of the machine; "" if it is not known.
        noted: What a clock before has noted; None if there was none.
    """

    def __init__(
        self,
        wall: Callable[[], float],
        steady: Callable[[], float] = since_boot,
        boot: str = "",
        noted: Any = None,
    ) -> None:
        self._wall = wall
        self._steady = steady
        self._boot = boot
        begun = steady()
        self._follows_until = begun + FOLLOWS_S
        self._follows = True
        self._ahead_s = 0.0  # of the system's clock
        self._least_s = -inf  # what is added to the steady seconds, at least
        with contextlib.suppress(TypeError, ValueError):  # there is no note, or it is none
            at, counted, ahead_s, where = noted
            if isfinite(at + counted + ahead_s):
                self._follows = where != boot or not boot
                self._ahead_s, self._least_s = ahead_s, at - (begun if self._follows else counted)
        self._added_s = self._least_s
        self.now()

    def now(self) -> float:
        """Return the time. Any thread may ask."""
        counted = self._steady()
        if self._follows:
            wall, least = self._wall(), counted + self._least_s
            # The time that the system's clock was ahead by may have been set right since.
            fitting = [one for one in (wall, wall + self._ahead_s) if one >= least]
            self._added_s = min(fitting, default=least) - counted
            self._follows = counted < self._follows_until or wall < _SET_AFTER
        return counted + self._added_s

    def note(self) -> Any:
        """Return what the next clock goes on from; None if the time is not sure yet."""
        now = self.now()
        return None if self._follows else [now, self._steady(), now - self._wall(), self._boot]
