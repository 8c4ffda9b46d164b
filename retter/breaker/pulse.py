"""Whether the application answers at all: silent for a moment, or hung.

Hung is neither busy nor idle: after a stall nothing is well before the application has answered.
"""

from math import inf

from retter.breaker import constants
from retter.breaker.baseline import Baseline
from retter.breaker.in_flight import Flight
from retter.breaker.routes import Route


class Pulse:
    """When the application answered, stalled, and went on. Seconds throughout."""

    __slots__ = ("_baseline", "passed_at", "stalled_at", "woke_at")

    def __init__(self, now: float, baseline: Baseline) -> None:
        self._baseline = baseline  # b0
        self.passed_at = now  # of the last success
        self.stalled_at = -inf  # when a stall was last seen
        self.woke_at = -inf  # when a silence ended

    @property
    def silence_s(self) -> float:
        """For how long an application that works may answer nothing."""
        baselines_s = constants.SILENCE_BASELINES * self._baseline.mean_s
        return max(constants.SILENCE_MIN_S, baselines_s)

    def is_silent(self, now: float) -> bool:
        """Say whether it pauses: what is late now is not late for a queue."""
        return now - self.passed_at > self.silence_s

    @property
    def hung(self) -> bool:
        """Whether a stall was seen, and nothing has been answered since: hung is not busy."""
        return self.passed_at < self.stalled_at

    def stalls(self, now: float, flight: Flight) -> bool:
        """Say whether the application hangs: several wait for long, and nothing is answered."""
        silent_s = now - self.passed_at
        if silent_s <= constants.STALL_MIN_S:
            return False
        permit = flight.oldest(constants.STALL_OLDEST)
        if permit is None:
            return False
        route = permit.route
        baselines_s = constants.STALL_BASELINES * max(route.expected_s, self._baseline.mean_s)
        stall_s = max(self._stall_least_s(route), baselines_s)
        if silent_s <= stall_s or now - permit.started_at <= stall_s:
            return False
        self.stalled_at = now
        return True

    def _stall_least_s(self, route: Route) -> float:
        if not self._baseline.samples:
            return constants.STALL_COLD_S
        known = route.baseline.samples >= constants.ROUTE_SAMPLES_TO_JUDGE
        return constants.STALL_MIN_S if known else constants.STALL_UNKNOWN_S
