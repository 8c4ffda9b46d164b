"""Determines once a second the situation, when it began, and the incident that it belongs to.

The sentences are situation.py's; here are the figures that they follow from.
"""

import time
from collections.abc import Callable
from itertools import islice
from typing import Any, Final

from retter.admin.busiest import BusiestPages
from retter.admin.controls import Controls
from retter.admin.history import History, Sample
from retter.admin.incidents import Incident, Incidents, Totals
from retter.admin.situation import TONES, Facts, Situation, derive
from retter.base.reason import Reason
from retter.breaker import State
from retter.proxy.services import Services
from retter.proxy.ticker import Ticker

# A better situation is shown when it has lasted this long: a second without an error is no end.
CALMER_S: Final = 3.0
OLDEST_LOOKED_AT: Final = 16  # of the exchanges: they stand nearly in the order of their age
DESCRIPTORS_SHARE: Final = 0.95  # so many in use: they are what is missing

_REASONS: Final = tuple(reason.value for reason in Reason)
_UPSTREAM_TIMEOUT: Final = _REASONS.index(Reason.UPSTREAM_TIMEOUT.value)
_NO_DESCRIPTORS: Final = Reason.NO_DESCRIPTORS.value

OnChange = Callable[[Situation, Situation], None]  # before, after


class Watch:
    """The situation of one proxy."""

    def __init__(self, services: Services, ticker: Ticker, controls: Controls) -> None:
        self._services = services
        self._controls = controls
        self.history = History(services, ticker)
        self.incidents = Incidents()
        self.busiest = BusiestPages()
        self.on_change: list[OnChange] = []
        self.on_incident_over: list[Callable[[Incident], None]] = []
        now = services.loop.time()
        self._asked_at = self._answered_at = now  # of the last request, of the last answer
        self._bad_at = now  # of the last request that failed
        self._waits_from = now  # begin of the first request without an answer after the last answer
        self._timeouts = 0  # of the application, until its last answer
        self._last = self.history.now(now)
        self.situation = derive(self._facts(now, self._last))
        self.since = time.time()
        self._state = services.breaker.circuit.state
        self._fits_at = now  # when the situation fitted last

    def on_second(self, now: float) -> None:
        """Record the second that is over, and determine the situation."""
        self.history.sample(now)
        self.busiest.look([work.url for work in self._services.exchanges if work.connected])
        self.look(now)
        before, totals = _totals(self.history.before()), _totals(self._last)
        over = self.incidents.note(self.situation, now, time.time(), before, totals)
        if over is not None:
            for callback in self.on_incident_over:
                callback(over)

    def look(self, now: float) -> Situation:
        """Return the situation at this moment."""
        sample = self.history.now(now)
        if sample.requests != self._last.requests:
            self._asked_at = now
        oldest_s = self._oldest_s(now)
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
        found = derive(self._facts(now, sample))
        before = self.situation
        if found.row == before.row or self._is_shown_now(before, found, now):
            self._fits_at = now
            self.situation = found
            self._state = self._services.breaker.circuit.state
            if found.row != before.row:
                self.since = time.time()
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
        }

    # -- the figures --------------------------------------------------------------------------

    def _facts(self, now: float, sample: Sample) -> Facts:
        services, then = self._services, self.history.before()
        breaker, pool, clients = services.breaker.snapshot(now), services.pool, services.clients
        forced, forced_s = self._controls.forced(now)
        _, paused_s = self._controls.paused(now)
        errors = {
            name: count - old
            for name, count, old in zip(_REASONS, sample.errors, then.errors, strict=True)
            if count > old
        }
        turned_away = sample.turned_away - then.turned_away
        scarce = self._are_descriptors_scarce()
        trouble, aside = self._disk(sample, then)
        # Answers that come too late for their clients count for the breaker alone.
        answered_at = max(self._answered_at, services.breaker.circuit.pulse.passed_at)
        return Facts(
            upstream=services.settings.upstream,
            state=breaker.state.value,
            in_flight=breaker.in_flight,
            limit=breaker.limit,
            waiting=breaker.waiting,
            held=breaker.held,
            routes_open=tuple([name.decode("latin-1") for name in breaker.routes_open]),
            forced=forced,
            forced_s=forced_s,
            paused_s=paused_s,
            draining=services.draining,
            successor=services.handed_over,
            connections=len(clients.connections),
            fault=pool.fault,
            met=pool.contacts > 0,
            oldest_s=self._oldest_s(now),
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
            store_full=services.store.crowding()[1],
            evicted=sample.evicted - then.evicted,
            no_descriptors=errors.get(_NO_DESCRIPTORS, 0) + (turned_away if scarce else 0),
            turned_away=0 if scarce else turned_away,
            log_lost=sample.log_lost - then.log_lost,
            log_trouble="" if services.access_log is None else services.access_log.trouble,
            disk_aside=aside,
            disk_trouble=trouble,
            shared_trouble="" if services.far is None else services.far.away(now),
            out_of_memory=sample.memory_errors - then.memory_errors,
            lag_s=self.history.loop_lag_s,
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
        from retter.admin.turns import heaviest_client

        return heaviest_client(self._services, self.history, now)

    def _disk(self, sample: Sample, then: Sample) -> tuple[str, str]:
        """Return why the disk is not used or written, and why a database was set aside lately."""
        disk = self._services.disk
        if disk is None:
            return "", ""
        failing = disk.figures.last_failure if sample.commit_failures > then.commit_failures else ""
        return disk.trouble or failing, disk.set_aside


def _totals(sample: Sample) -> Totals:
    return Totals(sample.gets, sample.others, sample.spared)


def _went_wrong(sample: Sample) -> int:
    gets, others = sample.gets, sample.others
    return sum(sample.errors) + sum(gets[2:]) + sum(others[2:])
