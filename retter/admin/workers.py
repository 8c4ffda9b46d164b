"""Reports the figures of one of several workers to the others."""

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from retter.admin.transitions import TRIPS_TOLD, Event, TransitionHistory
from retter.admin.watch import Watch
from retter.admin.whole import Point, counts_of, plus, points_plus, sample_plus
from retter.admin.worker_figures import Board, Figures
from retter.admin.worker_sum import Whole
from retter.judgement.breaker import SharedBreaker
from retter.proxy.proxy import Proxy
from retter.proxy.services import Services

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from retter.admin.api import Api
    from retter.admin.metrics import ProxyCollector

_COUNTED: Final = ("counter", "histogram")

# The rate of a worker's requests is taken over this many seconds, like the rate of all.
RATE_S: Final = 10

# Of a change of the circuit's state all figures are told, mostly 2 KB; the names of open routes may
# be more. A worker has 128 KiB for all that it tells.
TRIPS_BYTES_MAX: Final = 24 * 1024


def points_of(families: "Iterable[Metric]", *, counted: bool) -> Iterator[Point]:
    """Yield the samples of counters and histograms, or of gauges."""
    for family in families:
        if (family.type in _COUNTED) is counted:
            for sample in family.samples:
                yield sample.name, tuple(sorted(sample.labels.items())), sample.value


class Reporter:
    """Writes the figures of this worker once a second."""

    def __init__(
        self,
        services: Services,
        watch: Watch,
        transitions: TransitionHistory,
        board: Board,
        *,
        metrics: bool,
    ) -> None:
        self._services = services
        self._watch = watch
        self._transitions = transitions
        self._board = board
        self._metrics = metrics
        self._collector: ProxyCollector | None = None
        breaker, now = services.breaker, services.loop.time()
        assert isinstance(breaker, SharedBreaker), "there are several workers"
        self._breaker = breaker
        self._since = watch.clock.now() - (now - services.started_at)
        watch.clock.on_set.append(self._clock_is_set)
        # The requests of this process, second by second, with the time of each.
        self._asked: deque[tuple[float, int]] = deque([(now, 0)], RATE_S + 1)
        # The previous worker may have belonged to another RETTER; then this is no restart.
        before = board.before.get("worker", {})
        again = before.get("supervisor") == os.getppid()
        self._restarts = before["restarts"] + 1 if again else 0
        self._told_trips: tuple[list[Event], list[Event]] = [], []  # the last ones; those with room
        # When the first process of this supervisor began at this place, monotonic seconds.
        self._began_at = before["began_at"] if again else services.started_at

    def on_second(self, now: float) -> None:
        """Record the last second, and write the present figures."""
        self._asked.append((now, self._services.counters.requests))
        self.write(now)

    def _clock_is_set(self, moved_s: float) -> None:
        self._since += moved_s

    def write(self, now: float) -> None:
        """Write the present figures."""
        self._board.write(self.figures(now))

    @property
    def leader_place(self) -> int:
        """The place of the worker that judges for all."""
        return self._breaker.leader_place

    @property
    def judges(self) -> bool:
        """Whether this worker judges for all."""
        return self._breaker.leads

    def row(self) -> Figures:
        """Return the figures of this worker alone."""
        (began, before), (now, requests) = self._asked[0], self._asked[-1]
        return {
            "requests_rate": round((requests - before) / max(now - began, 1.0), 2),
            "in_flight": self._breaker.own_in_flight,
            "since": round(self._since, 3),
            "restarts": self._restarts,
        }

    def figures(self, now: float) -> Figures:
        """Return the figures of this worker, with the counts of earlier ones at its place."""
        from retter.admin.lately import lanes, lately
        from retter.admin.legacy_health import health_figures
        from retter.admin.state import own_parts, totals

        before = self._board.before
        sample = self._watch.history.own(now, whole=True)
        counted, gauges = self._points()
        if before:
            sample = sample_plus(sample, before["sample"])
            counted = points_plus(counted, before["counted"])
        said = totals(self._services, self._transitions)
        by_lane = lanes(self._services)
        parts = own_parts(self._services, self._watch.history)
        counts = counts_of(parts)
        health = health_figures(self._services)
        if before:
            health = plus(health, {**before["health"], "amounts": {}})
        return {
            "at": now,
            "pid": os.getpid(),
            "sample": sample,
            "counted": counted,
            "gauges": gauges,
            "totals": plus(said, before["totals"]) if before else said,
            "lanes": plus(by_lane, before["lanes"]) if before else by_lane,
            "counts": plus(counts, before["counts"]) if before else counts,
            "trips": self._trips(before.get("trips", [])),
            "lately": lately(self._services, self._watch, now),
            "health": health,
            "document": parts,
            "worker": {**self.row(), "supervisor": os.getppid(), "began_at": self._began_at},
        }

    def _trips(self, before: list[Event]) -> list[Event]:
        """Return the last changes of the circuit's state that were recorded at this place."""
        trips = [*before, *self._transitions.told()][-TRIPS_TOLD:]
        if trips != self._told_trips[0]:
            fitting, room = list[Event](), TRIPS_BYTES_MAX
            for trip in reversed(trips):
                room -= len(json.dumps(trip))
                if room < 0:
                    break
                fitting.insert(0, trip)
            self._told_trips = trips, fitting
        return self._told_trips[1]

    def _points(self) -> tuple[list[Point], list[Point]]:
        if not self._metrics:
            return [], []
        try:
            from retter.admin.metrics import ProxyCollector
        except ImportError:
            return [], []
        if self._collector is None:
            self._collector = ProxyCollector(self._services, self._watch.history, self._transitions)
        families = list(self._collector.collect())
        return [*points_of(families, counted=True)], [*points_of(families, counted=False)]


def tell_figures(
    proxy: Proxy,
    watch: Watch,
    transitions: TransitionHistory,
    *,
    leads: bool,
    api: "Api | None" = None,
    metrics: bool = True,
) -> Callable[[float], None]:
    """Report the figures of this worker from now on; return a function that does so at once.

    Args:
        leads: This worker adds up the figures of all.
        api: Of the leading worker, if it answers operators.
        metrics: Somebody may ask for metrics.
    """
    services = proxy.services
    place = services.place
    assert place is not None, "there are several workers"
    board = Board(place.shared, place.place)
    reporter = Reporter(services, watch, transitions, board, metrics=metrics)
    transitions.judges = lambda: reporter.judges
    if leads:
        whole = Whole(services, board)
        whole.tell = lambda: reporter.write(services.loop.time())
        whole.row = reporter.row
        whole.leader_place = lambda: reporter.leader_place
        if api is not None:
            api.whole = whole
        watch.history.add_others = whole.add_samples
        watch.history.add_lanes = whole.add_lanes
        watch.history.others_lately = whole.others_lately
        transitions.others = whole.others_trips
        watch.history.begin_again(services.loop.time())
        proxy.ticker.on_second.append(lambda _: whole.take_hints())
    reporter.write(services.loop.time())  # one that dies in its first second was there, too
    proxy.ticker.on_second.append(reporter.on_second)
    return reporter.write
