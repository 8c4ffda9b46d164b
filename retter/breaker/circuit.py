"""The circuit's state and its parts. Every decision reads them; the state changes here.

`CircuitBreaker` (breaker.py) is built on this class. `decide` (decide.py) reads it and changes
nothing. sweep.py does the work that is due at a certain time. snapshot.py shows the figures to
operators.
"""

from collections.abc import Callable
from math import floor, inf

from retter.breaker import constants
from retter.breaker.baseline import ApplicationBaseline, Dips
from retter.breaker.counts import Counts
from retter.breaker.elsewhere import Elsewhere
from retter.breaker.failures import Failures
from retter.breaker.fairness import Fairness
from retter.breaker.in_flight import Flight
from retter.breaker.lanes import Lanes
from retter.breaker.limit import WorkRateLimit
from retter.breaker.mode import HELD_CLOSED, HELD_OPEN, OBSERVE, FairnessMode, Mode
from retter.breaker.opening import Opening
from retter.breaker.permit import Permit, Rejections
from retter.breaker.pulse import Pulse
from retter.breaker.routes import Route, RouteTable
from retter.breaker.settings import BreakerSettings
from retter.breaker.states import (
    CLOSED,
    HALF_OPEN,
    LIMITING,
    OPEN,
    Signal,
    State,
    Transition,
    next_state,
)
from retter.breaker.table import ConcurrencyTable


class Circuit:
    """State, mode, places, and the parts that learn. It handles no requests itself."""

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
        self.forced_until: float | None = None  # when an operator's order ends, monotonic seconds
        self.state = CLOSED
        self.generation = 0
        self.limit = WorkRateLimit(now, settings.limit_start)
        self.baseline = ApplicationBaseline(now)
        self.table = ConcurrencyTable(now, settings.limit_start)
        self.dips = Dips()
        self.routes = RouteTable(now, self.baseline)
        self.flight = Flight()
        self.fairness: Fairness | None = None
        if settings.fairness is not FairnessMode.OFF:
            self.fairness = Fairness(secret, now)
        self.room = Lanes(self.fairness if settings.fairness is FairnessMode.ON else None)
        self.failures = Failures(now)
        self.opening = self.new_opening(now)  # the latest
        self.rejections = Rejections(settings.retry_after_s)
        self.counts = Counts()
        self.pulse = Pulse(now, self.baseline)
        self.paused_until: float | None = None  # set by an operator; monotonic seconds
        # Beside other workers: the judge if it is another process, and how many wait there.
        self.elsewhere: Elsewhere | None = None
        self.waiting_elsewhere = 0
        # set_cap sets these two; the hot path reads them.
        self.cap = self.calm = inf
        self.set_cap()
        if settings.mode is not Mode.AUTO:
            self.set_mode(now, settings.mode)

    def reconfigure(self, settings: BreakerSettings) -> None:
        """Use new settings from now on. The mode and everything learnt stay."""
        self.settings = settings
        self.rejections.set_retry_after(settings.retry_after_s)
        self.limit.limit_start = settings.limit_start
        self.set_cap()

    # --- places ---

    def set_cap(self) -> None:
        """Set `cap`, the number of places for GETs, and `calm`.

        While the load is below `calm`, a request whose route is not open is forwarded at once.
        """
        if self.mode is HELD_CLOSED:
            self.cap = inf
        else:
            self.cap = min(self._places(), self.settings.max_in_flight or inf)
        # Below `calm` in flight nothing is decided, and no client's demand is counted.
        if self.state is not CLOSED or self.paused_until is not None:
            self.calm = 0.0
        else:
            self.calm = self.cap if self.fairness is None else constants.LEARNT_SHARE * self.cap

    def _places(self) -> float:
        table = self.table
        if self.state is CLOSED:
            return min(constants.PACE * table.known_good, table.ceiling)
        if self.state is OPEN and self.mode is not HELD_OPEN:
            return 0.0
        places = min(max(self.limit.limit, self._proven_places), table.ceiling)
        if self.dips.active:
            # Rounded down, so that the request in the last place is uncongested too.
            return max(1.0, floor(constants.UNCONGESTED_RATIO * min(places, self.limit.limit)))
        return places

    @property
    def _proven_places(self) -> float:
        """The least number of places while LIMITING.

        While answers come in time with this many in flight, fewer places would leave workers idle.
        The work rate alone gives too few if slow requests happen to hold many workers, because they
        give few answers. A late edge below the proven rank is the stronger proof: somebody waited.
        Nothing is proven while the application hangs. During the cold start little is known about
        which answers are in time.
        """
        if self.state is not LIMITING or self.pulse.hung or self.baseline.cold is not None:
            return 0.0
        # A rank counts old requests of other methods in full, but the load does not.
        known = min(self.table.proven, self.table.late_from - 1.0)
        return known - (self.limit.in_flight - self.limit.load)

    @property
    def full_at(self) -> float:
        """The number in flight from which other methods wait: the ceiling, or this box's part."""
        settings = self.settings
        part = settings.max_in_flight if settings.is_part else 0
        return min(self.table.ceiling, part or inf)

    @property
    def concluded(self) -> bool:
        """Whether the number in flight has reached the known ceiling or the operator's limit."""
        limit = self.limit
        return limit.in_flight >= self.table.ceiling or (
            limit.load >= (self.settings.max_in_flight or inf)
        )

    @property
    def pace_s(self) -> float:
        """How long a GET waits at most while there is no sign of saturation."""
        wait_s = max(constants.PACE_WAIT_S, constants.PACE_WAIT_BASELINES * self.baseline.mean_s)
        return min(wait_s, self.settings.queue_wait_s)

    @property
    def last_start_s(self) -> float:
        """After this wait, the answer would probably come later than `queue_wait_s`."""
        wait_s = self.settings.queue_wait_s
        answer_s = constants.ANSWER_BASELINES * self.baseline.mean_s
        return max(constants.QUEUE_SHARE * wait_s, wait_s - answer_s)

    def stored_wait_s(self, lane: int) -> float:
        """Return how long a GET with a stored response waits for a fresh answer.

        It waits longer if other requests wait behind it. In that case its own lane has enough
        places, so this GET gets the next place and the wait is worth it.
        """
        mean_s = self.baseline.mean_s
        wait_s = max(constants.STORED_WAIT_S, constants.STORED_WAIT_BASELINES * mean_s)
        if self.room.waits_behind(lane):
            longer_s = constants.STORED_WAIT_BEFORE_BASELINES * mean_s
            wait_s = max(wait_s, min(longer_s, constants.STORED_WAIT_BEFORE_S))
        return wait_s

    @property
    def crowded(self) -> bool:
        """Whether there are more requests than places."""
        return self.waiting > 0 or (self.mode is OBSERVE and self.limit.load > self.cap)

    @property
    def waiting(self) -> int:
        """Number of requests that wait for a place, in all workers; none does during a pause."""
        return 0 if self.paused_until is not None else self.room.waiting + self.waiting_elsewhere

    # --- states ---

    def fire(self, now: float, signal: Signal) -> None:
        """Change the state, unless an operator holds the circuit open or closed."""
        if self.elsewhere is not None:
            self.elsewhere.fire(now, signal)
        elif self.mode is Mode.AUTO or self.mode is OBSERVE:
            self._move(now, signal)

    def _move(self, now: float, signal: Signal) -> None:
        before, after = self.state, next_state(self.state, signal)
        self.state = after
        self.counts.transitions += 1
        failures, successes = self.failures.recent.failed, self.failures.recent.passed
        self._enter(now, before, signal)
        self.set_cap()
        if self.elsewhere is not None:
            self.elsewhere.moved(after)  # the judge tells of the transition, once for all
            return
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
        """Set up the parts that belong to the new state, and nothing else."""
        limit = self.limit
        self.dips.stop()
        if self.state is CLOSED:
            limit.set_limit(limit.closed_limit)
        elif self.state is LIMITING:
            self.limit.shed_at = now
            self.dips.start_waiting(now)
            if signal is Signal.STALLED:
                limit.set_limit(constants.SPARE + 1)
            elif signal is Signal.SATURATED:
                if self.baseline.cold is None:
                    # Each request that is answered in time has a worker. During the cold start
                    # little is known about which answers are in time.
                    entry = min(self.cap, limit.limit_for(self.table.late_from - 1.0))
                    limit.set_limit(max(limit.limit, entry))
                limit.begin_anew(now)
        elif self.state is OPEN:
            # The wait grows after a half-open ramp that failed.
            wait_s = self.opening.longer_s if before is HALF_OPEN else None
            limit.set_limit(limit.closed_limit)  # used if an operator holds it open
            self.opening = self.new_opening(now, wait_s)
            self._begin_generation()
            self.routes.close_all()
        else:
            limit.set_limit(constants.RAMP_START)
            self.was_asked(now)
            self._begin_generation()

    def _begin_generation(self) -> None:
        """Ignore the results of requests that started before now."""
        self.generation += 1
        self.failures.clear()

    def set_mode(self, now: float, mode: Mode) -> None:
        """Set the mode that an operator chose: hold the circuit open or closed, or let it decide.

        Held OPEN: GETs with a stored response get it. GETs without one are forwarded up to the
        limit, wait, or get 503, as in LIMITING.

        Held CLOSED: everything is forwarded. A GET with a stored response still gets it when the
        application takes longer than the closed circuit's patience.
        """
        before, self.mode = self.mode, mode
        if mode is before:
            return
        if mode is HELD_OPEN:
            signal = Signal.FORCED_OPEN
        elif mode is HELD_CLOSED:
            signal = Signal.FORCED_CLOSED
        elif before is HELD_OPEN or before is HELD_CLOSED:
            signal = Signal.RELEASED
        else:
            return  # AUTO and OBSERVE use the same states
        self._begin_generation()
        self._move(now, signal)

    def pause(self, now: float, until: float) -> None:
        """Forward nothing until the time `until`: an operator replaces the application.

        GETs with a stored response get it. Other requests are held, HELD_MAX of them at most, and
        each for HELD_S_MAX seconds at most. Requests that are already in flight are not touched.
        """
        if self.paused_until is None:
            self.room.wait_anew(now)
        self.paused_until = until
        self.set_cap()

    def resume(self, now: float) -> int:
        """End a pause; return how many requests were held.

        GETs wait for a place now, other methods need none: the caller calls `take_ready`.
        """
        held, self.paused_until = self.held, None
        self.room.wait_anew(now)
        self.room.release_others(now, 0.0)
        self.set_cap()
        return held

    @property
    def held(self) -> int:
        """Number of requests that wait for the end of a pause."""
        return 0 if self.paused_until is None else self.room.waiting_without_stored

    def climb(self, now: float) -> None:
        """Raise the limit by one after a success while half-open.

        So the ramp doubles with each round trip.
        """
        self.was_asked(now)
        limit = self.limit
        limit.set_limit(limit.limit + 1.0)
        self.set_cap()
        if limit.limit >= constants.RAMP_START + constants.RAMP_SUCCESSES:
            self.fire(now, Signal.TRIALS_PASSED)

    def probe_wanted(self, now: float) -> bool:
        """Return whether RETTER should send a probe itself, because no client's request can."""
        if self.paused_until is not None or self.mode is HELD_OPEN or self.waiting:
            return False
        if self.state is OPEN:
            return self.opening.due(now - constants.NOBODY_CAME_S)
        return (
            (self.state is HALF_OPEN or (self.state is LIMITING and self.pulse.hung))
            and not self.limit.in_flight
            and self.opening.due(now)
        )

    def was_asked(self, now: float) -> None:
        """Postpone RETTER's own probe: the application was just asked, or it just answered.

        Called while the circuit is not OPEN.
        """
        self.opening.probe_at = now + self.settings.open_min_s

    def send_probe(self, now: float, permit: Permit, opening: Opening) -> None:
        """Send a probe: it finds out whether the open circuit or route works again."""
        self.counts.probes += 1
        permit.probe = opening
        opening.send(now)
        if self.elsewhere is not None:
            self.elsewhere.probed(now, permit)

    def open_route(self, now: float, route: Route) -> None:
        """Open the breaker of this route: of its GETs only probes go upstream."""
        route.opening = self.new_opening(now)

    def new_opening(self, now: float, wait_s: float | None = None) -> Opening:
        """Return an opening that begins now, with the shortest wait unless another is given."""
        settings = self.settings
        return Opening(now, settings.open_min_s if wait_s is None else wait_s, settings.open_max_s)
