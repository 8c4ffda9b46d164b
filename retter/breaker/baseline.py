"""The time of a response without queueing: a running mean a route and one for the application.

Only uncongested answers are samples (the caller decides which are), so that overload teaches
nothing: a baseline that followed the latency would call every queue normal.
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
        """Take in one uncongested answer. A freak counts at most as BASELINE_CLIP means."""
        mean_s = self.mean_s
        samples = self.samples = self.samples + 1
        if samples > constants.BASELINE_CLIP_AFTER and took_s > constants.BASELINE_CLIP * mean_s:
            took_s = constants.BASELINE_CLIP * mean_s
        weight = 1.0 / samples
        if weight < weight_min:
            weight = weight_min
        self.mean_s = mean_s + weight * (took_s - mean_s)


class ColdStart:
    """The application's mean until COLD_SAMPLES answers are in.

    The first answers to come back are the short ones, and their plain mean is far too small when
    service times vary. Time spent in flight divided by completions (Little's law) has no such
    bias, because it counts those that are still running.
    """

    __slots__ = ("_changed_at", "_in_flight", "_spent_s", "completions")

    def __init__(self, now: float) -> None:
        self._changed_at = now
        self._in_flight = 0
        self._spent_s = 0.0
        self.completions = 0

    def enter(self, now: float) -> None:
        """One more is in flight."""
        self._advance(now)
        self._in_flight += 1

    def leave(self, now: float, *, completed: bool) -> None:
        """One less is in flight; `completed` if the application answered it."""
        self._advance(now)
        self._in_flight -= 1
        self.completions += completed

    def mean_s(self) -> float:
        """Seconds an answer takes; the start value before the first."""
        if not self.completions or self._spent_s <= 0:
            return constants.BASELINE_START_S
        return self._spent_s / self.completions

    def _advance(self, now: float) -> None:
        if now > self._changed_at:
            self._spent_s += self._in_flight * (now - self._changed_at)
            self._changed_at = now


class ApplicationBaseline(Baseline):
    """b0: what an answer takes without a queue, over all routes."""

    __slots__ = ("cold",)

    def __init__(self, now: float) -> None:
        super().__init__()
        self.cold: ColdStart | None = ColdStart(now)  # until it is over `add` is not called
        self.mean_s = constants.BASELINE_START_S

    def cold_leave(self, now: float, *, completed: bool) -> None:
        """A request that started during the cold start has ended."""
        cold = self.cold
        if cold is None:
            return
        cold.leave(now, completed=completed)
        self.mean_s = cold.mean_s()
        self.samples = cold.completions
        if cold.completions >= constants.COLD_SAMPLES:
            self.cold = None


class Dips:
    """When to lower the cap for a moment, so that a few answers come without a queue.

    Under overload everything starts congested and the baselines stand still, right or wrong. A
    dip costs a few stored responses and heals them in both directions.
    """

    __slots__ = ("_due_at", "_samples", "_until", "begun")

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
        """LIMITING was entered: the first dip comes early, what is known may be wrong."""
        self._until = -inf
        self._samples = 0
        self._due_at = now + constants.DIP_FIRST_S

    def stop(self) -> None:
        """LIMITING was left."""
        self._until = -inf
        self._due_at = inf

    def sample(self, now: float, baseline_s: float) -> bool:
        """Take in that an uncongested answer came; return whether that ends a running dip.

        Enough of them put the next dip off, too.
        """
        self._samples += 1
        if self._samples < constants.DIP_SAMPLES:
            return False
        was_active = self.active
        self._put_off(now, baseline_s)
        return was_active

    def due(self, now: float, baseline_s: float) -> bool:
        """Begin or end a dip if it is time to; return whether that changed anything."""
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
