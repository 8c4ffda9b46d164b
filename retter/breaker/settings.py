"""The few numbers of the overload control that an operator may set."""

from dataclasses import dataclass

from retter.breaker import constants
from retter.breaker.mode import FairnessMode, Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """The settings of the breaker. `ValueError` names the field, its value and all allowed ones."""

    mode: Mode = Mode.AUTO
    max_in_flight: int = 0  # a hard limit for GETs in every state; 0 = none
    is_part: bool = False  # of several boxes' places: with more, one takes the others'
    limit_start: int = 8  # in flight while nothing is known yet: a small server's workers
    patience_min_s: float = 0.5  # people accept this wait for a fresh page
    patience_max_s: float = 5.0  # people give up after about this time
    patience_closed_s: float = 5.0  # a closed circuit waits longer: only one request is late
    queue_wait_s: float = 2.0  # a GET without a stored response waits this long, then gets 503
    queue_max: int = 10_000  # requests that may wait; each costs 2 KB
    write_wait_s: float = 2.0  # other methods wait this long at a ceiling, then are forwarded
    retry_after_s: float = 2.0
    failure_ratio: float = 0.5  # the circuit opens if this share of the outcomes in 2 s fail
    failure_volume: int = 10  # and if there are at least this many
    open_min_s: float = 1.0  # wait between two probes at first
    open_max_s: float = 5.0  # and at most
    fairness: FairnessMode = FairnessMode.OFF  # whether requests wait in lanes
    fresh_for_s: float = 0.0  # while limiting, a younger stored response is used at once

    def __post_init__(self) -> None:
        self._check("max_in_flight", self.max_in_flight >= 0, "0 (none) or more")
        self._check("limit_start", self.limit_start >= 1, "1 or more")
        self._check("patience_min_s", self.patience_min_s > 0, "more than 0 s")
        self._check(
            "patience_max_s",
            self.patience_max_s >= self.patience_min_s,
            f"at least patience_min_s ({self.patience_min_s} s)",
        )
        self._check(
            "patience_closed_s",
            self.patience_closed_s >= self.patience_min_s,
            f"at least patience_min_s ({self.patience_min_s} s)",
        )
        self._check("queue_wait_s", self.queue_wait_s >= 0, "0 s or more")
        self._check("queue_max", self.queue_max >= 0, "0 (nobody waits) or more")
        self._check("write_wait_s", self.write_wait_s >= 0, "0 s (never wait) or more")
        self._check("retry_after_s", self.retry_after_s >= 0, "0 s or more")
        self._check("failure_ratio", 0 < self.failure_ratio <= 1, "more than 0, at most 1")
        self._check("failure_volume", self.failure_volume >= 1, "1 or more")
        self._check("open_min_s", self.open_min_s > 0, "more than 0 s")
        self._check(
            "open_max_s",
            self.open_max_s >= self.open_min_s,
            f"at least open_min_s ({self.open_min_s} s)",
        )
        self._check("fresh_for_s", self.fresh_for_s >= 0, "0 s or more")

    def patience_s(self, usual_s: float) -> float:
        """Return how long a GET may take while the application is in trouble."""
        wait_s = max(self.patience_min_s, constants.PATIENCE_BASELINES * usual_s)
        return min(self.patience_max_s, wait_s)

    def patience_while_closed_s(self, usual_s: float) -> float:
        """Return how long a GET may take while the application works well."""
        return max(self.patience_closed_s, constants.PATIENCE_BASELINES * usual_s)

    def _check(self, field: str, good: bool, allowed: str) -> None:
        if not good:
            raise ValueError(f"{field} is {getattr(self, field)!r}; allowed: {allowed}")
