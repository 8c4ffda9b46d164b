"""What one of several workers tells the others of its figures."""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from retter.admin.transitions import TransitionHistory
from retter.admin.watch import Watch
from retter.admin.whole import Point, plus, points_plus, sample_plus
from retter.admin.worker_figures import Board, Figures
from retter.admin.worker_sum import Whole
from retter.proxy.proxy import Proxy
from retter.proxy.services import Services

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from retter.admin.api import Api
    from retter.admin.metrics import ProxyCollector

_COUNTED: Final = ("counter", "histogram")


def points_of(families: "Iterable[Metric]", *, counted: bool) -> Iterator[Point]:
    """Yield the samples of counters and histograms, or of gauges."""
    for family in families:
        if (family.type in _COUNTED) is counted:
            for sample in family.samples:
                yield sample.name, tuple(sorted(sample.labels.items())), sample.value


class Reporter:
    """Tells the figures of this worker once a second."""

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

    def on_second(self, now: float) -> None:
        """Write the present figures."""
        self._board.write(self.figures(now))

    def figures(self, now: float) -> Figures:
        """Return the figures of this worker, and what earlier ones at its place have counted."""
        from retter.admin.state import own_parts, totals

        before = self._board.before
        sample = self._watch.history.own(now, whole=True)
        counted, gauges = self._points()
        if before:
            sample = sample_plus(sample, before["sample"])
            counted = points_plus(counted, before["counted"])
        said = totals(self._services, self._transitions)
        parts = own_parts(self._services, self._watch.history)
        return {
            "at": now,
            "pid": os.getpid(),
            "sample": sample,
            "counted": counted,
            "gauges": gauges,
            "totals": plus(said, before["totals"]) if before else said,
            "document": parts,
        }

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
    """Tell the figures of this worker from now on; return what tells them at once.

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
    if leads:
        whole = Whole(services, board)
        whole.tell = lambda: reporter.on_second(services.loop.time())
        if api is not None:
            api.whole = whole
        watch.history.add_others = whole.add_samples
        watch.history.begin_again(services.loop.time())
    proxy.ticker.on_second.append(reporter.on_second)
    return reporter.on_second
