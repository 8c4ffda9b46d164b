"""The limit of requests that the application can work on, learnt from its work rate.

Every answer is worth what it takes without a queue (its route's baseline), whatever it took today.
Worth per second is the number of busy workers, W: it grows with the load until all workers are
busy and then stands still, while the requests in flight, go on growing. So W gives the limit
directly, for any mix of quick and slow routes.
"""

from retter.breaker import constants


class WorkRateLimit:
    """Requests in flight, the windows over them, and the limit that follows."""

    __slots__ = (
        "_limit_start",
        "_window_at",
        "completions",
        "crowded_windows",
        "in_flight",
        "limit",
        "load",
        "old_others",
        "peak_work_rate",
        "shed_at",
        "windows",
        "work_rate",
        "work_s",
    )

    def __init__(self, now: float, limit_start: int) -> None:
        self._limit_start = limit_start
        self.in_flight = 0  # n
        self.old_others = 0  # z: other methods that outlived their patience
        self.load = 0.0  # m: in flight, less the share of z that is discounted
        self.limit = float(limit_start)  # L
        self.shed_at = now  # when a place was last missing
        self.work_rate = 0.0  # W
        self.peak_work_rate = 0.0  # Wpk
        self.windows = 0
        self.crowded_windows = 0  # in a row that closed with somebody waiting
        # of the running window
        self.completions = 0
        self.work_s = 0.0
        self._window_at = now

    # --- in flight ---

    def discount(self) -> None:
        """One request of another method outlived its patience.

        Slow exports must not starve the GETs, and yet they use the application: together they
        count for OLD_OTHERS_SHARE of the limit at most.
        """
        self.old_others += 1
        self.weigh()

    def set_limit(self, limit: float) -> None:
        """Set L; the discount follows it."""
        self.limit = limit
        self.weigh()

    def weigh(self) -> None:
        """Work out the load anew."""
        counted = constants.OLD_OTHERS_SHARE * self.limit
        self.load = self.in_flight - max(0.0, self.old_others - counted)

    # --- windows ---

    @staticmethod
    def limit_for(workers: float) -> float:
        """Return how many may be in flight at an application with so many busy workers."""
        return max(constants.HEADROOM * workers, 1.0) + constants.SPARE

    @property
    def closed_limit(self) -> float:
        """The limit of a closed circuit: what was possible lately, and never below the start."""
        return max(float(self._limit_start), self.limit_for(self.peak_work_rate))

    def window_due(self, now: float, baseline_s: float) -> bool:
        """Say whether the running window has seen enough, or lasted long enough."""
        age_s = now - self._window_at
        shortest_s = constants.WINDOW_BASELINES * baseline_s
        if self.completions >= constants.WINDOW_COMPLETIONS_MIN:
            return age_s >= max(constants.WINDOW_MIN_S, shortest_s)
        return age_s >= max(constants.WINDOW_MAX_S, shortest_s)

    def close_window(self, now: float, *, crowded: bool) -> None:
        """Fold the running window into the averages and begin the next.

        `crowded` if somebody waits: then the work rate is the most that can be had.
        """
        self.crowded_windows = self.crowded_windows + 1 if crowded else 0
        age_s = now - self._window_at
        if age_s > 0:
            weight = constants.WINDOW_WEIGHT if self.windows else 1.0
            self.work_rate += weight * (self.work_s / age_s - self.work_rate)
            faded = self.peak_work_rate * 0.5 ** (age_s / constants.PEAK_HALF_LIFE_S)
            self.peak_work_rate = max(self.work_rate, faded)
            self.windows += 1
        self.restart_window(now)

    def begin_anew(self, now: float) -> None:
        """Let the next window count for all: what was before says nothing about a full house."""
        self.restart_window(now)
        self.windows = 0

    def restart_window(self, now: float) -> None:
        """Forget the running window: what it saw is not typical."""
        self._window_at = now
        self.work_s = 0.0
        self.completions = 0
