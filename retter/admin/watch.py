"""Determines once a second the situation, when it began, and the incident that it belongs to.

The sentences are situation.py's; here are the figures that they follow from.
"""

from collections.abc import Callable
from itertools import islice
from math import inf
from typing import Any, Final, NamedTuple

from retter.admin.busiest import BusiestPages
from retter.admin.controls import Controls
from retter.admin.history import History, Sample
from retter.admin.incidents import Incident, Incidents, Totals
from retter.admin.set_clock import SetClock
from retter.admin.situation import TONES, Facts, Situation, derive
from retter.base.reason import Reason
from retter.breaker import State
from retter.proxy.services import Services
from retter.proxy.ticker import Ticker

# A better situation is shown when it has lasted this long: a second without an error is no end.
CALMER_S: Final = 3.0
OLDEST_LOOKED_AT: Final = 16  # of the exchanges: they stand nearly in the order of their age
DESCRIPTORS_SHARE: Final = 0.95  # with more in use, failed connections are due to a lack of them

_REASONS: Final = tuple(reason.value for reason in Reason)
_UPSTREAM_TIMEOUT: Final = _REASONS.index(Reason.UPSTREAM_TIMEOUT.value)
_NO_DESCRIPTORS: Final = Reason.NO_DESCRIPTORS.value


class OwnFacts(NamedTuple):
    """What one process knows of its own; the situation of several workers follows from all."""

    held: int
    connections: int
    fault: str  # why no connection to the application can be made
    fault_at: float  # when that was noticed
    reached_at: float  # when a new connection was noticed last
    met: bool
    oldest_s: float
    store_full: float
    scarce: bool  # descriptors
    log_trouble: str
    disk_trouble: str
    disk_failing: str
    shared_trouble: str
    lag_s: float


def together(own: OwnFacts, others: list[OwnFacts]) -> OwnFacts:
    """Return the facts of all workers."""
    every = [own, *others]
    return OwnFacts(
        sum([one.held for one in every]),
        sum([one.connections for one in every]),
        fault_of(every),
        own.fault_at,
        own.reached_at,
        any(one.met for one in every),
        max([one.oldest_s for one in every]),
        max([one.store_full for one in every]),
        any(one.scarce for one in every),
        _first([one.log_trouble for one in every]),
        _first([one.disk_trouble for one in every]),
        _first([one.disk_failing for one in every]),
        _first([one.shared_trouble for one in every]),
        max([one.lag_s for one in every]),
    )


def fault_of(every: list[OwnFacts]) -> str:
    """Return why no worker can make a connection; "" if one of them has made a later one.

    A worker without requests has no fault, whatever the application does.
    """
    for one in every:
        reached_at = max([it.reached_at for it in every if it is not one], default=-inf)
        if one.fault and one.fault_at >= reached_at:
            return one.fault
    return ""


def _first(words: list[str]) -> str:
    return next((one for one in words if one), "")


OnChange = Callable[[Situation, Situation], None]  # before, after


class Watch:
    """The situation of one proxy."""

    def __init__(self, services: Services, ticker: Ticker, controls: Controls) -> None:
        self._services = services
        self._controls = controls
        self.history = History(services, ticker)
        self.clock = SetClock()
        self.clock.on_set.append(self._clock_is_set)
        self.incidents = Incidents()
        self.busiest = BusiestPages()
        self.on_change: list[OnChange] = []
        self.on_incident_over: list[Callable[[Incident], None]] = []
        now = services.loop.time()
        self._fault_at = self._reached_at = -inf
        self._contacts = 0
        self._asked_at = self._answered_at = now  # of the last request, of the last answer
        self._bad_at = now  # of the last request that failed
        self._waits_from = now  # begin of the first request without an answer after the last answer
        self._timeouts = 0  # of the application, until its last answer
        self._last = self.history.now(now)
        self.situation = derive(self._facts(now, self._last, self.own_facts(now)))
        self.since = self.clock.now()
        self._state = services.breaker.circuit.state
        self._fits_at = now  # when the situation fitted last

    def on_second(self, now: float) -> None:
        """Record the second that is over, and determine the situation."""
        self.clock.look()
        self.history.sample(now)
        self.busiest.look([work.url for work in self._services.exchanges if work.connected])
        self.look(now)
        before, totals = _totals(self.history.before()), _totals(self._last)
        over = self.incidents.note(self.situation, now, self.clock.now(), before, totals)
        if over is not None:
            for callback in self.on_incident_over:
                callback(over)

    def _clock_is_set(self, moved_s: float) -> None:
        self.since += moved_s
        self.incidents.clock_is_set(moved_s)

    def look(self, now: float) -> Situation:
        """Return the situation at this moment."""
        sample = self.history.now(now)
        if sample.requests != self._last.requests:
            self._asked_at = now
        facts = self.all_facts(now)
        oldest_s = facts.oldest_s
        answered = sample.answered != self._last.answered
        if answered or self._services.breaker.circuit.pulse.passed_at > self._answered_at:
            self._answered_at = now
            self._timeouts = sample.errors[_UPSTREAM_TIMEOUT]
            self._waits_from = now
        elif not oldest_s and self._timeouts == sample.errors[_UPSTREAM_TIMEOUT]:
            self._waits_from = now  # no request waits, and none has failed after a wait
        self._waits_from = min(self._waits_from, now - oldest_s)
        if _went_wrong(sample) != _went_wrong(self._last):
            self._bad_at = now
        self._last = sample
        found = derive(self._facts(now, sample, facts))
        before = self.situation
        if found.row == before.row or self._is_shown_now(before, found, now):
            self._fits_at = now
            self.situation = found
            self._state = self._services.breaker.circuit.state
            if found.row != before.row:
                self.since = self.clock.now()
                for callback in self.on_change:
                    callback(before, found)
        return self.situation

    def _is_shown_now(self, before: Situation, found: Situation, now: float) -> bool:
        """Whether a new situation is shown at once."""
        if "off" in (before.tone, found.tone):
            return True
        if self._services.breaker.circuit.state is not self._state:
            return True
        calmer = TONES.index(found.tone) < TONES.index(before.tone)
        return not calmer or now - self._fits_at >= CALMER_S

    def document(self, now: float) -> dict[str, Any]:
        """Return the situation in the types of JSON."""
        situation = self.look(now)
        return {
            "row": situation.row,
            "tone": situation.tone,
            "now": situation.now,
            "visitors": situation.visitors,
            "retter": situation.retter,
            "you": situation.you,
            "also": list(situation.also),
            "rows_beside": list(situation.rows_beside),
            "since": round(self.since, 3),
            # A browser's clock may be another one.
            "lasted_s": round(self.clock.now() - self.since, 1),
        }

    # -- the figures --------------------------------------------------------------------------

    def own_facts(self, now: float) -> OwnFacts:
        """Return what this process knows of its own."""
        services = self._services
        pool, disk = services.pool, services.disk
        if pool.contacts != self._contacts:
            self._contacts, self._reached_at = pool.contacts, now
        if not pool.fault:
            self._fault_at = -inf
        elif self._fault_at == -inf:
            self._fault_at = now
        return OwnFacts(
            services.breaker.circuit.held,
            len(services.clients.connections),
            pool.fault,
            # JSON has no infinity.
            max(-1.0, self._fault_at),
            max(-1.0, self._reached_at),
            pool.contacts > 0,
            self._oldest_s(now),
            services.store.crowding()[1],
            self._are_descriptors_scarce(),
            "" if services.access_log is None else services.access_log.trouble,
            "" if disk is None else disk.trouble,
            "" if disk is None else disk.figures.last_failure,
            "" if services.far is None else services.far.away(now),
            self.history.loop_lag_s,
        )

    def all_facts(self, now: float) -> OwnFacts:
        """Return what all workers know of their own."""
        told = [OwnFacts(*one["facts"]) for one in self.history.others_lately()]
        return together(self.own_facts(now), told)

    def _facts(self, now: float, sample: Sample, of_all: OwnFacts) -> Facts:
        services, then = self._services, self.history.before()
        breaker = services.breaker.snapshot(now)
        forced, forced_s = self._controls.forced(now)
        _, paused_s = self._controls.paused(now)
        errors = {
            name: count - old
            for name, count, old in zip(_REASONS, sample.errors, then.errors, strict=True)
            if count > old
        }
        turned_away = sample.turned_away - then.turned_away
        scarce, failing = of_all.scarce, sample.commit_failures > then.commit_failures
        # Answers that come too late for their clients count for the breaker alone.
        answered_at = max(self._answered_at, services.breaker.circuit.pulse.passed_at)
        return Facts(
            upstream=services.settings.upstream,
            state=breaker.state.value,
            in_flight=breaker.in_flight,
            limit=breaker.limit,
            waiting=services.breaker.circuit.waiting,
            held=of_all.held,
            routes_open=tuple([name.decode("latin-1") for name in breaker.routes_open]),
            forced=forced,
            forced_s=forced_s,
            paused_s=paused_s,
            draining=services.draining,
            successor=services.handed_over,
            connections=of_all.connections,
            fault=of_all.fault,
            met=of_all.met,
            oldest_s=of_all.oldest_s,
            silent_s=now - answered_at,
            unanswered_s=now - max(answered_at, self._waits_from),
            timed_out=sample.errors[_UPSTREAM_TIMEOUT] > self._timeouts,
            errors=errors,
            well_s=now - self._bad_at,
            gets=sample.gets.since(then.gets),
            others=sample.others.since(then.others),
            requests=sample.requests,
            idle_s=now - self._asked_at,
            heaviest=self._heaviest(now, breaker.state),
            would_shed=sample.would_shed - then.would_shed,
            store_full=of_all.store_full,
            evicted=sample.evicted - then.evicted,
            no_descriptors=errors.get(_NO_DESCRIPTORS, 0) + (turned_away if scarce else 0),
            turned_away=0 if scarce else turned_away,
            log_lost=sample.log_lost - then.log_lost,
            log_trouble=of_all.log_trouble,
            disk_aside="" if services.disk is None else services.disk.set_aside,
            disk_trouble=of_all.disk_trouble or (of_all.disk_failing if failing else ""),
            shared_trouble=of_all.shared_trouble,
            out_of_memory=sample.memory_errors - then.memory_errors,
            lag_s=of_all.lag_s,
        )

    def _oldest_s(self, now: float) -> float:
        oldest = islice(self._services.exchanges, OLDEST_LOOKED_AT)
        return max([now - exchange.started_at for exchange in oldest], default=0.0)

    def _are_descriptors_scarce(self) -> bool:
        clients, pool = self._services.clients, self._services.pool
        used = len(clients.connections) + pool.open + pool.dialling
        return 0 < DESCRIPTORS_SHARE * clients.descriptors_max <= used

    def _heaviest(self, now: float, state: State) -> tuple[str, float] | None:
        if state is not State.LIMITING:
            return None
        try:
            from retter.admin.turns import heaviest_client
        except OSError:
            return None  # no descriptor is left to read it with; the next look tries again
        return heaviest_client(self._services, self.history, now)


def _totals(sample: Sample) -> Totals:
    return Totals(sample.gets, sample.others, sample.spared)


def _went_wrong(sample: Sample) -> int:
    gets, others = sample.gets, sample.others
    return sum(sample.errors) + sum(gets[2:]) + sum(others[2:])
