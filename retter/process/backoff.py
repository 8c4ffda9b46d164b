"""The delay before a worker is started again. Pure."""

from typing import Final

# A worker that dies once is replaced at once. One that dies again and again would only take the
# CPU from the others.
DELAYS_S: Final = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)

# If a worker has lived for this long, its death has a new cause: the delays begin again.
STEADY_S: Final = 60.0


class Backoff:
    """The delays of one worker."""

    __slots__ = ("_deaths",)

    def __init__(self) -> None:
        self._deaths = 0

    def delay_s(self, lived_s: float) -> float:
        """Return the delay before a restart of a worker that died after `lived_s`."""
        if lived_s >= STEADY_S:
            self._deaths = 0
        delay_s = DELAYS_S[min(self._deaths, len(DELAYS_S) - 1)]
        self._deaths += 1
        return delay_s
