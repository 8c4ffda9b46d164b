"""The service time: how long an answer takes without queueing.

There is one running mean for each route and one for the application. Only uncongested answers are
samples; the caller decides which answers are uncongested. So overload does not change a baseline: a
baseline that followed the latency would treat every queue as normal.
"""

from math import inf

from retter.breaker import constants


class Baseline:
    """An exponentially weighted mean whose first samples count fully."""

    __slots__ = ("mean_s", "samples")

    def __init__(self) -> None:
        self.mean_s = 0.0
        self.samples = 0

    def add(self, took_s: float, weight_min: float) -> None:
        """Add one uncongested answer. An outlier counts as BASELINE_CLIP means at most."""
        mean_s = self.mean_s
        samples = self.samples = self.samples + 1
        if samples > constants.BASELINE_CLIP_AFTER and took_s > constants.BASELINE_CLIP * mean_s:
            took_s = constants.BASELINE_CLIP * mean_s
        weight = 1.0 / samples
        if weight < weight_min:
            weight = weight_min
        self.mean_s = mean_s + weight * (took_s - mean_s)


class ColdStart:
    """The application's mean service time until enough answers have arrived: see `over`.

    The first answers to arrive are the short ones. Their plain mean is far too small when service
    times vary. Time spent in flight divided by completions (Little's law) has no such bias,
    because it also counts the requests that are still in flight.
    """

    def __init__(self, now: float) -> None:
        self._changed_at = now
        self._in_flight = 0
        self.spent_s = 0.0
        self.completions = 0

    def enter(self, now: float) -> None:
        """Count one more request in flight."""
        self._advance(now)
        self._in_flight += 1

    def leave(self, now: float, *, completed: bool) -> None:
        """Count one request less in flight; `completed` if the application answered it."""
        self._advance(now)
        self._in_flight -= 1
        self.completions += completed

    @property
    def over(self) -> bool:
        """Whether there are enough answers: COLD_SAMPLES, and more if more are in flight.

        The time of those in flight is counted, but not yet their answers. If all answers take
        equally long, the mean is too high by that: by an eighth at most, with SMALL in flight for
        COLD_SAMPLES answers.
        """
        enough = max(1.0, self._in_flight / constants.SMALL) * constants.COLD_SAMPLES
        return self.completions >= enough

    def mean_s(self) -> float:
        """Mean seconds that an answer takes; the start value before the first answer."""
        if not self.completions or self.spent_s <= 0:
            return constants.BASELINE_START_S
        return self.spent_s / self.completions

    def _advance(self, now: float) -> None:
        if now > self._changed_at:
            self.spent_s += self._in_flight * (now - self._changed_at)
            self._changed_at = now


class ApplicationBaseline(Baseline):
    """b0: the mean service time over all routes."""

    __slots__ = ("cold",)

    def __init__(self, now: float) -> None:
        super().__init__()
        self.cold: ColdStart | None = ColdStart(now)  # `add` is called after the cold start only
        self.mean_s = constants.BASELINE_START_S

    def cold_leave(self, now: float, *, completed: bool) -> None:
        """Record the end of a request that started during the cold start."""
        cold = self.cold
        if cold is None:
            return
        cold.leave(now, completed=completed)
        self._learn_from(cold)

    def cold_elsewhere(self, spent_s: float, completions: int) -> None:
        """Add the cold-start figures of other workers since the last call."""
        cold = self.cold
        if cold is not None:
            cold.spent_s += spent_s
            cold.completions += completions
            self._learn_from(cold)

    def _learn_from(self, cold: ColdStart) -> None:
        self.mean_s = cold.mean_s()
        self.samples = cold.completions
        if cold.over:
            self.cold = None


class Dips:
    """Dips: the cap is lowered for a moment, so that a few answers come without queueing.

    Under overload every request starts congested, so the baselines do not change, even if they are
    wrong. A dip corrects baselines that are too high and those that are too low. Its price: a few
    more requests are answered with a stored response.
    """

    def __init__(self) -> None:
        self._due_at = inf
        self._until = -inf
        self._samples = 0
        self.begun = 0

    @property
    def active(self) -> bool:
        """Whether the cap is lowered now."""
        return self._until > -inf

    def start_waiting(self, now: float) -> None:
        """LIMITING was entered: the first dip comes early, because the baselines may be wrong."""
        self._until = -inf
        self._samples = 0
        self._due_at = now + constants.DIP_FIRST_S

    def stop(self) -> None:
        """LIMITING was left."""
        self._until = -inf
        self._due_at = inf

    def sample(self, now: float, baseline_s: float) -> bool:
        """Count an uncongested answer; return whether it ends a running dip.

        DIP_SAMPLES uncongested answers also postpone the next dip.
        """
        self._samples += 1
        if self._samples < constants.DIP_SAMPLES:
            return False
        was_active = self.active
        self._put_off(now, baseline_s)
        return was_active

    def due(self, now: float, baseline_s: float) -> bool:
        """Begin or end a dip if it is due; return whether that changed anything."""
        if self.active:
            if now < self._until:
                return False
            self._put_off(now, baseline_s)
            return True
        if now < self._due_at:
            return False
        self.begun += 1
        self._samples = 0
        self._until = now + max(constants.DIP_MIN_S, constants.DIP_BASELINES * baseline_s)
        return True

    def _put_off(self, now: float, baseline_s: float) -> None:
        self._samples = 0
        self._until = -inf
        self._due_at = now + min(
            constants.DIP_EVERY_MAX_S,
            max(constants.DIP_EVERY_MIN_S, constants.DIP_EVERY_BASELINES * baseline_s),
        )
