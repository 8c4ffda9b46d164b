"""The limit on requests in flight, learnt from the application's work rate.

Every answer counts as the work of its route's baseline (its service time without queueing), however
long it really took. The work in a second is the number of busy workers, W. W grows with the load
until all workers are busy. Then W stays the same while the number of requests in flight goes on
growing. So W gives the limit directly, for any mix of quick and slow routes.
"""

from retter.breaker import constants


class WorkRateLimit:
    """Requests in flight, the measuring windows, and the limit computed from them."""

    def __init__(self, now: float, limit_start: int) -> None:
        self.limit_start = limit_start
        self.in_flight = 0  # n
        self.old_others = 0  # z: other methods that outlived their patience
        self.load = 0.0  # m: in flight, less the share of z that is discounted
        self.limit = float(limit_start)  # L
        self.shed_at = now  # when a request last found no place
        self.work_rate = 0.0  # W
        self.others_rate = 0.0  # the part of W that other methods took
        self.peak_work_rate = 0.0  # Wpk
        self.windows = 0
        self.crowded_windows = 0  # windows in a row that closed while requests waited
        # Of the running window:
        self.completions = 0
        self.work_s = 0.0
        self.others_work_s = 0.0  # the part of it for other methods
        self._window_at = now

    # --- in flight ---

    def discount(self) -> None:
        """Record that a request of another method outlived its patience.

        Such requests (slow exports) must not starve the GETs, but they do use the application.
        Therefore together they count for OLD_OTHERS_SHARE of the limit at most.
        """
        self.old_others += 1
        self.weigh()

    def set_limit(self, limit: float) -> None:
        """Set L, and compute the load again, because the discount depends on L."""
        self.limit = limit
        self.weigh()

    def weigh(self) -> None:
        """Compute the load."""
        counted = constants.OLD_OTHERS_SHARE * self.limit
        self.load = self.in_flight - max(0.0, self.old_others - counted)

    # --- windows ---

    @staticmethod
    def limit_for(workers: float) -> float:
        """Return how many may be in flight at an application with `workers` busy workers."""
        return max(constants.HEADROOM * workers, 1.0) + constants.SPARE

    @property
    def closed_limit(self) -> float:
        """The limit of a closed circuit: from the recent peak work rate, at least `limit_start`."""
        return max(float(self.limit_start), self.limit_for(self.peak_work_rate))

    @property
    def gets_rate(self) -> float:
        """The workers that are left for GETs; at least 1, because it is a divisor."""
        return max(1.0, self.work_rate - self.others_rate)

    def window_due(self, now: float, baseline_s: float) -> bool:
        """Return whether the running window has enough answers, or has lasted long enough."""
        age_s = now - self._window_at
        shortest_s = constants.WINDOW_BASELINES * baseline_s
        if self.completions >= constants.WINDOW_COMPLETIONS_MIN:
            return age_s >= max(constants.WINDOW_MIN_S, shortest_s)
        return age_s >= max(constants.WINDOW_MAX_S, shortest_s)

    def close_window(self, now: float, *, crowded: bool) -> None:
        """Add the running window to the averages and begin the next one.

        `crowded` if requests wait: then the work rate is the application's capacity.
        """
        self.crowded_windows = self.crowded_windows + 1 if crowded else 0
        age_s = now - self._window_at
        if age_s > 0:
            weight = constants.WINDOW_WEIGHT if self.windows else 1.0
            self.work_rate += weight * (self.work_s / age_s - self.work_rate)
            self.others_rate += weight * (self.others_work_s / age_s - self.others_rate)
            faded = self.peak_work_rate * 0.5 ** (age_s / constants.PEAK_HALF_LIFE_S)
            self.peak_work_rate = max(self.work_rate, faded)
            self.windows += 1
        self.restart_window(now)

    def begin_anew(self, now: float) -> None:
        """Restart the average: windows before saturation do not show the capacity."""
        self.restart_window(now)
        self.windows = 0

    def restart_window(self, now: float) -> None:
        """Discard the running window, because its answers are not typical, and begin a new one."""
        self._window_at = now
        self.work_s = self.others_work_s = 0.0
        self.completions = 0
