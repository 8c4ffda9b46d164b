"""How long each callback holds the loop, in CPU time: none may for long, whatever has come."""

import time
from collections.abc import Callable
from typing import NamedTuple

# For 64 KiB of input. Most callbacks take a hundredth of it, also where a fuzzer watches each line.
CPU_S_MAX = 0.05
OCTETS = 64 * 1024


class Hold(NamedTuple):
    """One callback, with all that followed from it at once."""

    what: str
    octets: int  # that it was given
    cpu_s: float

    @property
    def is_too_long(self) -> bool:
        return self.cpu_s > CPU_S_MAX * max(1.0, self.octets / OCTETS)


class Stopwatch:
    """Notes all callbacks of a world in their order, which is the same for the same steps."""

    def __init__(self) -> None:
        self.holds: list[Hold] = []

    def run(self, what: str, octets: int, callback: Callable[[], object]) -> None:
        """Call a callback."""
        began = time.thread_time()
        try:
            callback()
        finally:
            self.holds.append(Hold(what, octets, time.thread_time() - began))


def longest(runs: list[Stopwatch]) -> Hold | None:
    """Return the longest callback that was too long in each of several runs of the same steps.

    One that is only sometimes so has met a garbage collection, or the machine was busy.
    """
    if len({len(run.holds) for run in runs}) > 1:
        return None  # they were not the same
    least = [
        min(of_each, key=lambda one: one.cpu_s)
        for of_each in zip(*[run.holds for run in runs], strict=True)
    ]
    too_long = [one for one in least if one.is_too_long]
    return max(too_long, key=lambda one: one.cpu_s, default=None)
