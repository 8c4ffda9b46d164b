"""Whether the application answers at all. It may be silent for a moment, or hung.

A hung application is neither busy nor idle. After a stall it counts as hung until it has answered.
"""

from math import inf

from retter.breaker import constants
from retter.breaker.baseline import Baseline
from retter.breaker.in_flight import Flight
from retter.breaker.routes import Route


class Pulse:
    """The times at which the application answered, stalled and continued, in seconds."""

    def __init__(self, now: float, baseline: Baseline) -> None:
        self._baseline = baseline  # b0
        self.passed_at = now  # time of the last success
        self.stalled_at = -inf  # when a stall was last seen
        self.woke_at = -inf  # when a silence ended

    @property
    def silence_s(self) -> float:
        """How long a working application may give no answer."""
        baselines_s = constants.SILENCE_BASELINES * self._baseline.mean_s
        return max(constants.SILENCE_MIN_S, baselines_s)

    def is_silent(self, now: float) -> bool:
        """Return whether the application pauses: answers are late now, but not from queueing."""
        return now - self.passed_at > self.silence_s

    @property
    def hung(self) -> bool:
        """Whether a stall was seen, and no good answer has come since."""
        return self.passed_at < self.stalled_at

    def stalls(self, now: float, flight: Flight) -> bool:
        """Return whether the application hangs: several requests take long, and no answer comes."""
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
