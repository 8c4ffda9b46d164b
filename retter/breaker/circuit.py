"""The circuit's state and its parts: what every decision reads, and how the state changes.

`CircuitBreaker` (breaker.py) is built on this class. `decide` (decide.py) reads it and changes
nothing; `sweep.py` does what time makes due; `report.py` shows it to operators.
"""

from collections.abc import Callable
from math import floor, inf
from typing import Final

from retter.breaker import constants
from retter.breaker.baseline import ApplicationBaseline, Dips
from retter.breaker.counts import Counts
from retter.breaker.failures import Failures
from retter.breaker.fairness import Fairness
from retter.breaker.in_flight import Flight
from retter.breaker.lanes import Lanes
from retter.breaker.limit import WorkRateLimit
from retter.breaker.mode import FairnessMode, Mode
from retter.breaker.opening import Opening
from retter.breaker.permit import Permit, Rejections
from retter.breaker.pulse import Pulse
from retter.breaker.queue import WaitingRoom
from retter.breaker.routes import Route, RouteTable
from retter.breaker.settings import BreakerSettings
from retter.breaker.states import Signal, State, Transition, next_state
from retter.breaker.table import ConcurrencyTable

_CLOSED: Final = State.CLOSED
_LIMITING: Final = State.LIMITING
_OPEN: Final = State.OPEN
_HALF_OPEN: Final = State.HALF_OPEN
_HELD_OPEN: Final = Mode.OPEN
_HELD_CLOSED: Final = Mode.CLOSED
_OBSERVE: Final = Mode.OBSERVE


class Circuit:
    """State, mode, places, and the parts that learn. No request passes through here."""

    __slots__ = (
        "_on_transition",
        "baseline",
        "calm",
        "cap",
        "counts",
        "dips",
        "failures",
        "fairness",
        "flight",
        "generation",
        "limit",
        "mode",
        "opening",
        "paused_until",
        "pulse",
        "rejections",
        "room",
        "routes",
        "settings",
        "state",
        "table",
    )

    def __init__(
        self,
        settings: BreakerSettings,
        now: float,
        on_transition: Callable[[Transition], None] | None = None,
        secret: bytes = b"",
    ) -> None:
        self.settings = settings
        self._on_transition = on_transition
        self.mode = Mode.AUTO
        self.state = _CLOSED
        self.generation = 0
        self.limit = WorkRateLimit(now, settings.limit_start)
        self.baseline = ApplicationBaseline(now)
        self.table = ConcurrencyTable(now, settings.limit_start)
        self.dips = Dips()
        self.routes = RouteTable(now, self.baseline)
        self.flight = Flight()
        self.fairness: Fairness | None = None
        self.room = WaitingRoom()
        if settings.fairness is not FairnessMode.OFF:
            self.fairness = Fairness(secret, now)
            if settings.fairness is FairnessMode.ON:
                self.room = Lanes(self.fairness.demand, self.fairness.tickets)
        self.failures = Failures(now)
        self.opening = Opening(now, settings.open_min_s, settings.open_max_s)  # the last
        self.rejections = Rejections(settings.retry_after_s)
        self.counts = Counts()
        self.pulse = Pulse(now, self.baseline)
        self.paused_until: float | None = None  # by an operator; monotonic seconds
        # The attributes that the hot path reads: see set_cap.
        self.cap = self.calm = inf
        self.set_cap()
        if settings.mode is not Mode.AUTO:
            self.set_mode(now, settings.mode)

    def reconfigure(self, settings: BreakerSettings) -> None:
        """Decide by other settings from now on. The mode stays, and what has been learnt."""
        self.settings = settings
        self.rejections.set_retry_after(settings.retry_after_s)
        self.set_cap()

    # --- places ---

    def set_cap(self) -> None:
        """Set the number of places for GETs, and below how many in flight a GET passes straight."""
        if self.mode is _HELD_CLOSED:
            self.cap = inf
        else:
            self.cap = min(self._places(), self.settings.max_in_flight or inf)
        # Below so many in flight nothing is decided, nor counted for whom.
        if self.state is not _CLOSED or self.paused_until is not None:
            self.calm = 0.0
        else:
            self.calm = self.cap if self.fairness is None else constants.LEARNT_SHARE * self.cap

    def _places(self) -> float:
        table = self.table
        if self.state is _CLOSED:
            return min(constants.PACE * table.known_good, table.ceiling)
        if self.state is _OPEN and self.mode is not _HELD_OPEN:
            return 0.0
        places = min(self.limit.limit, table.ceiling)
        if self.dips.active:
            # Rounded down, so that who takes the last place is uncongested too.
            return max(1.0, floor(constants.UNCONGESTED_RATIO * min(places, self.limit.limit)))
        return places

    @property
    def concluded(self) -> bool:
        """Whether so many are in flight that more are known to be too many."""
        limit = self.limit
        return limit.in_flight >= self.table.ceiling or (
            limit.load >= (self.settings.max_in_flight or inf)
        )

    @property
    def pace_s(self) -> float:
        """How long a GET waits at most while nothing speaks of saturation."""
        wait_s = max(constants.PACE_WAIT_S, constants.PACE_WAIT_BASELINES * self.baseline.mean_s)
        return min(wait_s, self.settings.queue_wait_s)

    def stored_wait_s(self, lane: int) -> float:
        """Return how long a GET that can be answered at once should wait for a fresh answer.

        Longer where others wait behind it: there is enough for those in its lane, so it waits for
        the next place, and not for nothing.
        """
        mean_s = self.baseline.mean_s
        wait_s = max(constants.STORED_WAIT_S, constants.STORED_WAIT_BASELINES * mean_s)
        if self.room.waits_behind(lane):
            longer_s = constants.STORED_WAIT_BEFORE_BASELINES * mean_s
            wait_s = max(wait_s, min(longer_s, constants.STORED_WAIT_BEFORE_S))
        return wait_s

    @property
    def crowded(self) -> bool:
        """Whether more want to go upstream than there are places."""
        return self.room.waiting > 0 or (self.mode is _OBSERVE and self.limit.load > self.cap)

    # --- states ---

    def fire(self, now: float, signal: Signal) -> None:
        """Change the state, unless an operator holds it."""
        if self.mode is Mode.AUTO or self.mode is _OBSERVE:
            self._move(now, signal)

    def _move(self, now: float, signal: Signal) -> None:
        before, after = self.state, next_state(self.state, signal)
        self.state = after
        self.counts.transitions += 1
        failures, successes = self.failures.recent.failed, self.failures.recent.passed
        self._enter(now, before, signal)
        self.set_cap()
        if self._on_transition is None:
            return
        limit = self.limit
        self._on_transition(
            Transition(
                at=now,
                before=before,
                after=after,
                cause=signal,
                generation=self.generation,
                in_flight=limit.in_flight,
                limit=limit.limit,
                ceiling=self.table.ceiling,
                work_rate=limit.work_rate,
                baseline_s=self.baseline.mean_s,
                failures=failures,
                successes=successes,
                waiting=self.room.waiting,
            )
        )

    def _enter(self, now: float, before: State, signal: Signal) -> None:
        """Set up what belongs to the new state, and nothing else."""
        limit = self.limit
        self.dips.stop()
        if self.state is _CLOSED:
            limit.set_limit(limit.closed_limit)
        elif self.state is _LIMITING:
            self.limit.shed_at = now
            self.dips.start_waiting(now)
            if signal is Signal.STALLED:
                limit.set_limit(constants.SPARE + 1)
            elif signal is Signal.SATURATED:
                if self.baseline.cold is None:
                    # All that are answered in time have a worker each. Before, little is known of
                    # what is in time.
                    entry = min(self.cap, limit.limit_for(self.table.late_from - 1.0))
                    limit.set_limit(max(limit.limit, entry))
                limit.begin_anew(now)
        elif self.state is _OPEN:
            # After a failed ramp the wait grows.
            shortest_s = self.settings.open_min_s
            wait_s = self.opening.longer_s if before is _HALF_OPEN else shortest_s
            limit.set_limit(limit.closed_limit)  # for who holds it open
            self.opening = Opening(now, wait_s, self.settings.open_max_s)
            self._begin_generation()
            self.routes.close_all()
        else:
            limit.set_limit(constants.RAMP_START)
            self.was_asked(now)
            self._begin_generation()

    def _begin_generation(self) -> None:
        """Ignore the results of requests that were sent before now."""
        self.generation += 1
        self.failures.clear()

    def set_mode(self, now: float, mode: Mode) -> None:
        """Follow an operator: hold the circuit open or closed, or let it decide.

        Held OPEN: GETs with a stored response get it; those without one are forwarded up to the
        limit, wait, or get 503, as while limiting. Held CLOSED: everything is forwarded; a GET
        with a stored response that is later than the closed patience is still answered with it.
        """
        before, self.mode = self.mode, mode
        if mode is before:
            return
        if mode is _HELD_OPEN:
            signal = Signal.FORCED_OPEN
        elif mode is _HELD_CLOSED:
            signal = Signal.FORCED_CLOSED
        elif before is _HELD_OPEN or before is _HELD_CLOSED:
            signal = Signal.RELEASED
        else:
            return  # AUTO and OBSERVE decide alike
        self._begin_generation()
        self._move(now, signal)

    def pause(self, now: float, until: float) -> None:
        """Let nothing go upstream until then: an operator exchanges the application.

        GETs with a stored response get it. What else comes is held, up to HELD_MAX requests and
        HELD_S_MAX seconds each. What is upstream already is left alone.
        """
        self.paused_until = until
        self.room.hold_without_stored(now)
        self.set_cap()

    def resume(self, now: float) -> int:
        """End a pause; who was held goes on in order: look at `take_ready`. Return how many."""
        self.paused_until = None
        held = self.room.held
        self.room.release_held(now)
        self.set_cap()
        return held

    def climb(self, now: float) -> None:
        """Half-open: every success makes room for one more, so the ramp doubles a round trip."""
        self.was_asked(now)
        limit = self.limit
        limit.set_limit(limit.limit + 1.0)
        self.set_cap()
        if limit.limit >= constants.RAMP_START + constants.RAMP_SUCCESSES:
            self.fire(now, Signal.TRIALS_PASSED)

    def probe_wanted(self, now: float) -> bool:
        """Say whether the application should be asked, and no visitor comes to do it."""
        if self.paused_until is not None or self.mode is _HELD_OPEN or self.room.waiting:
            return False
        if self.state is _OPEN:
            return self.opening.due(now - constants.NOBODY_CAME_S)
        return (
            (self.state is _HALF_OPEN or (self.state is _LIMITING and self.pulse.hung))
            and not self.limit.in_flight
            and self.opening.due(now)
        )

    def was_asked(self, now: float) -> None:
        """Not OPEN, and asked or answered just now: RETTER itself need not ask for a while."""
        self.opening.probe_at = now + self.settings.open_min_s

    def send_probe(self, now: float, permit: Permit, opening: Opening) -> None:
        """It is to find out whether what is open works again."""
        self.counts.probes += 1
        permit.probe = opening
        opening.send(now)

    def open_route(self, now: float, route: Route) -> None:
        """Let no GET of this route upstream, but for probes."""
        route.opening = Opening(now, self.settings.open_min_s, self.settings.open_max_s)
