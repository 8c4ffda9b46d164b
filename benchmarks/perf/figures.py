"""From windows to figures: the clean ones, their spread, and what is noise.

A shared machine changes its speed within seconds, so the mean of a long run says little. The
*clean* figure is the median over the fastest quarter of the windows: what the program costs while
the machine is undisturbed. The median and the range of all windows stand beside it.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

FASTEST_SHARE: Final = 4  # a quarter

# Below this, no difference is called real: CPU time comes in ticks of 10 ms, one in a hundred of
# a window of a second, on both sides of the comparison.
SMALLEST_DIFFERENCE: Final = 0.02

# With fewer on either side the draws hardly differ, and chance would look like certainty.
WINDOWS_TO_COMPARE: Final = 5

RESAMPLES: Final = 400
CONFIDENCE: Final = 0.9


@dataclass(frozen=True, slots=True)
class Window:
    """What one window of load has cost and brought."""

    round: int
    cpu_user_s: float
    cpu_system_s: float
    requests: int
    seconds: float
    p50_us: int
    p99_us: int
    p999_us: int
    errors: int
    calibration_ms: float
    trouble: str = ""

    @property
    def cpu_us(self) -> float:
        """CPU microseconds a request."""
        return self._each(self.cpu_user_s + self.cpu_system_s)

    @property
    def user_us(self) -> float:
        """The same outside the kernel."""
        return self._each(self.cpu_user_s)

    @property
    def requests_per_s(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds if self.seconds else 0.0

    @property
    def busy(self) -> float:
        """Share of its core that the proxy used."""
        return (self.cpu_user_s + self.cpu_system_s) / self.seconds if self.seconds else 0.0

    def _each(self, seconds: float) -> float:
        return 1e6 * seconds / self.requests if self.requests else math.inf


def fastest_quarter(windows: Sequence[Window]) -> list[Window]:
    """Return the quarter of the windows with the least CPU a request, at least one of them."""
    return sorted(windows, key=lambda window: window.cpu_us)[: -(-len(windows) // FASTEST_SHARE)]


@dataclass(frozen=True, slots=True)
class Figures:
    """The clean figures of some windows, and the spread of the main one."""

    cpu_us: float
    user_us: float
    requests_per_s: float
    busy: float
    p50_us: float
    p99_us: float
    p999_us: float
    median_us: float  # of the CPU microseconds of all windows
    least_us: float
    most_us: float
    errors: int
    windows: int


def figures(windows: Sequence[Window]) -> Figures:
    """Return the figures of at least one window.

    Raises:
        ValueError: There is no window.
    """
    if not windows:
        raise ValueError("no window to take figures from")
    clean = fastest_quarter(windows)
    costs = [window.cpu_us for window in windows]
    return Figures(
        cpu_us=median(window.cpu_us for window in clean),
        user_us=median(window.user_us for window in clean),
        requests_per_s=median(window.requests_per_s for window in clean),
        busy=median(window.busy for window in clean),
        p50_us=median(window.p50_us for window in clean),
        p99_us=median(window.p99_us for window in clean),
        p999_us=median(window.p999_us for window in clean),
        median_us=median(costs),
        least_us=min(costs),
        most_us=max(costs),
        errors=sum(window.errors for window in windows),
        windows=len(windows),
    )


Measure = Callable[[Figures], float]


def ratio(ours: Figures, theirs: Figures, measure: Measure) -> float:
    """Return ours as a multiple of theirs; endless where theirs is nothing."""
    return measure(ours) / measure(theirs) if measure(theirs) else math.inf


@dataclass(frozen=True, slots=True)
class Change:
    """How a figure differs between two results."""

    before: float
    after: float
    low: float  # the range in which after/before lies with CONFIDENCE
    high: float
    windows: int  # of the side that has fewer

    @property
    def factor(self) -> float:
        """after / before."""
        return self.after / self.before if self.before else math.inf

    @property
    def verdict(self) -> str:
        """cheaper, dearer, noise where the difference is too small to tell, or too few windows."""
        if self.windows < WINDOWS_TO_COMPARE:
            return "too few windows"
        if self.low <= 1 <= self.high or abs(self.factor - 1) < SMALLEST_DIFFERENCE:
            return "noise"
        return "cheaper" if self.factor < 1 else "dearer"


def change(
    before: Sequence[Window],
    after: Sequence[Window],
    base_before: Sequence[Window] = (),
    base_after: Sequence[Window] = (),
) -> Change:
    """Compare the clean CPU cost of two results.

    With the windows of a base (nginx in the same run) its cost is divided out, for between two
    runs the machine may have changed as a whole. The range comes from drawing the rounds again
    and again, with replacement: always with the same random numbers, so that the same files give
    the same verdict.
    """
    draw = random.Random(1)
    factors = sorted(
        _cost(_again(draw, after), _again(draw, base_after))
        / _cost(_again(draw, before), _again(draw, base_before))
        for _ in range(RESAMPLES)
    )
    tail = round((1 - CONFIDENCE) / 2 * RESAMPLES)
    return Change(
        before=_cost(before, base_before),
        after=_cost(after, base_after),
        low=factors[tail],
        high=factors[-tail - 1],
        windows=min(len(before), len(after)),
    )


def _again(draw: random.Random, windows: Sequence[Window]) -> Sequence[Window]:
    return draw.choices(windows, k=len(windows)) if windows else ()


def _cost(windows: Sequence[Window], base: Sequence[Window]) -> float:
    cost = figures(windows).cpu_us
    return cost / figures(base).cpu_us if base else cost
