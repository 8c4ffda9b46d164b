"""How many requests the application can work on: the limit learnt from its work rate.

Every answer is worth what it takes without a queue (its route's baseline), whatever it took today.
Worth per second is the number of busy workers, W: it grows with the load until all workers are
busy and then stands still, while the requests in flight, N, go on growing. So W gives the limit
directly, for any mix of quick and slow routes, and N against W shows a queue that no latency
threshold has to guess.

The ceiling C is for applications that refuse work above some number in flight (a backlog, a pool):
it falls when they do and creeps up again when they do not.
"""

from math import inf

from retter.breaker import constants


class WorkRateLimit:
    """Requests in flight, the windows over them, and the limit and ceiling that follow."""

    __slots__ = (
        "_area", "_ceiling_hit_at", "_ceiling_spared", "_changed_at", "_limit_start",
        "_window_at", "ceiling", "completions", "in_flight", "limit", "load", "mean_in_flight",
        "old_others", "peak_work_rate", "windows", "work_rate", "work_s",
    )

    def __init__(self, now: float, limit_start: int) -> None:
        self._limit_start = limit_start
        self.in_flight = 0                  # n
        self.old_others = 0                 # z: other methods that outlived their patience
        self.load = 0.0                     # m: in flight, less the share of z that is discounted
        self.limit = float(limit_start)     # L
        self.ceiling = inf                  # C
        self.work_rate = 0.0                # W
        self.peak_work_rate = 0.0           # Wpk
        self.mean_in_flight = 0.0           # N
        self.windows = 0
        # of the running window
        self.completions = 0
        self.work_s = 0.0
        self._area = 0.0                    # integral of the load over time
        self._changed_at = now
        self._window_at = now
        self._ceiling_hit_at = -inf
        self._ceiling_spared = False        # hit in this window already

    # --- in flight ---

    def enter(self, now: float) -> None:
        """One request more is in flight."""
        self._area += self.load * (now - self._changed_at)
        self._changed_at = now
        self.in_flight += 1
        self.load += 1

    def leave(self, now: float, *, discounted: bool) -> None:
        """One request less is in flight; `discounted` if it was an old one of another method."""
        self._area += self.load * (now - self._changed_at)
        self._changed_at = now
        self.in_flight -= 1
        if self.old_others:
            self.old_others -= discounted
            self._weigh()
        else:
            self.load -= 1

    def discount(self, now: float) -> None:
        """One request of another method outlived its patience.

        Slow exports must not starve the GETs, and yet they use the application: together they
        count for OLD_OTHERS_SHARE of the limit at most.
        """
        self._area += self.load * (now - self._changed_at)
        self._changed_at = now
        self.old_others += 1
        self._weigh()

    def set_limit(self, now: float, limit: float) -> None:
        """Set L; the discount follows it."""
        self._area += self.load * (now - self._changed_at)
        self._changed_at = now
        self.limit = limit
        self._weigh()

    def _weigh(self) -> None:
        counted = constants.OLD_OTHERS_SHARE * self.limit
        self.load = self.in_flight - max(0.0, self.old_others - counted)

    # --- windows ---

    @property
    def target(self) -> float:
        """What the limit should be for the work rate of now."""
        return max(constants.HEADROOM * self.work_rate, 1.0) + constants.SPARE

    @property
    def closed_limit(self) -> float:
        """The limit of a closed circuit: what was possible lately, and never below the start."""
        return max(
            float(self._limit_start),
            constants.HEADROOM * self.peak_work_rate + constants.SPARE,
        )

    @property
    def entry_limit(self) -> float:
        """The limit when limiting begins: the work rate of now may not have reached its peak."""
        if not self.windows:
            return self.limit
        believed = max(self.work_rate, constants.ENTRY_PEAK_SHARE * self.peak_work_rate)
        return min(self.limit, max(constants.HEADROOM * believed, 1.0) + constants.SPARE)

    @property
    def queueing_in_flight(self) -> float:
        """More in flight than this means a queue in the application."""
        return constants.QUEUEING * self.work_rate + constants.SPARE

    def window_due(self, now: float, baseline_s: float) -> bool:
        """Say whether the running window has seen enough, or lasted long enough."""
        age_s = now - self._window_at
        shortest_s = constants.WINDOW_BASELINES * baseline_s
        if self.completions >= constants.WINDOW_COMPLETIONS_MIN:
            return age_s >= max(constants.WINDOW_MIN_S, shortest_s)
        return age_s >= max(constants.WINDOW_MAX_S, shortest_s)

    def close_window(self, now: float) -> None:
        """Fold the running window into the averages and begin the next."""
        age_s = now - self._window_at
        if age_s > 0:
            area = self._area + self.load * (now - self._changed_at)
            weight = constants.WINDOW_WEIGHT if self.windows else 1.0
            self.work_rate += weight * (self.work_s / age_s - self.work_rate)
            self.mean_in_flight += weight * (area / age_s - self.mean_in_flight)
            faded = self.peak_work_rate * 0.5 ** (age_s / constants.PEAK_HALF_LIFE_S)
            self.peak_work_rate = max(self.work_rate, faded)
            self.windows += 1
            self._raise_ceiling(now, age_s)
        self.restart_window(now)

    def restart_window(self, now: float) -> None:
        """Forget the running window: what it saw is not typical."""
        self._window_at = self._changed_at = now
        self._area = self.work_s = 0.0
        self.completions = 0
        self._ceiling_spared = False

    # --- the failure ceiling ---

    def lower_ceiling(self, now: float, rank: int) -> bool:
        """Take in that the application failed its `rank`-th request in flight.

        Returns whether that says something about its capacity: not when so few were in flight
        that capacity cannot be the reason.
        """
        if rank <= max(constants.SPARE, self.peak_work_rate):
            return False
        self._ceiling_hit_at = now
        if not self._ceiling_spared:
            self._ceiling_spared = True
            cut = constants.CEILING_CUT * min(self.ceiling, rank)
            self.ceiling = max(constants.SPARE + 1, cut)
        return True

    def _raise_ceiling(self, now: float, window_s: float) -> None:
        if self.ceiling == inf or now - self._ceiling_hit_at < constants.CEILING_HOLD_S:
            return
        growth = max(constants.CEILING_GROWTH_MIN, constants.CEILING_GROWTH * self.ceiling)
        self.ceiling += growth * window_s
        if self.ceiling > constants.CEILING_FORGET * max(
            self.limit, self.peak_work_rate, self._limit_start
        ):
            self.ceiling = inf
