"""One log line for a minute with failures, instead of a line for each failure.

A minute in which the application answered everything has no line. Lines that the access log had to
drop count as failures.
"""

from retter.base.counters import LATENCY_BOUNDS_S, by_reason, quantile, spared, totals
from retter.breaker import State
from retter.proxy.services import Services
from retter.telemetry.log import get_logger

EVERY_S = 60

log = get_logger()


class Digest:
    """Called once a second; writes once a minute if there is something to report."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._seconds = 0
        self._look()

    def _look(self) -> None:
        counters = self._services.counters
        self._totals = totals(counters)
        self._requests = counters.requests
        self._gone = counters.clients_gone
        self._gave_up = counters.gave_up_get + counters.gave_up_other
        self._spared = spared(counters)
        self._dropped = counters.access_lines_dropped
        self._latency = self._services.breaker.latency().counts
        self._why = self._reasons()

    def _reasons(self) -> dict[str, int]:
        """Return why the application did not answer, by reason."""
        counters = self._services.counters
        found = by_reason(counters.stored)
        for counts in (counters.refused, counters.upstream_errors):
            for reason, number in counts.items():
                if number:
                    found[reason.value] = found.get(reason.value, 0) + number
        return found

    def on_second(self, now: float) -> None:
        """Count the seconds, and write when it is time."""
        self._seconds += 1
        if self._seconds < EVERY_S:
            return
        self._seconds = 0
        then, why, latency = self._totals, self._why, self._latency
        requests, gone, dropped = self._requests, self._gone, self._dropped
        gave_up, spared_then = self._gave_up, self._spared
        self._look()
        fresh, stored, refused, failed = (b - a for a, b in zip(then, self._totals, strict=True))
        breaker = self._services.breaker
        dropped = self._dropped - dropped
        gave_up = self._gave_up - gave_up
        if (
            not (stored or refused or failed or gave_up or dropped)
            and breaker.circuit.state is State.CLOSED
        ):
            return
        # A route that was forgotten takes its counts with it.
        counts = [max(0, b - a) for a, b in zip(latency, self._latency, strict=True)]
        p99_s = quantile(LATENCY_BOUNDS_S, counts, 0.99)
        figures = breaker.snapshot(now)
        reasons = {
            name: number - why.get(name, 0)
            for name, number in self._why.items()
            if number > why.get(name, 0)
        }
        log.warning(
            "digest", seconds=EVERY_S, state=breaker.circuit.state.value,
            requests=self._requests - requests, fresh=fresh, stored=stored, refused=refused,
            failed=failed, reasons=reasons, clients_gone=self._gone - gone,
            gave_up=gave_up, spared=self._spared - spared_then,
            p99_ms=None if p99_s is None else round(p99_s * 1000, 1),
            limit=round(figures.limit, 1), in_flight=figures.in_flight, waiting=figures.waiting,
            **({"access_lines_dropped": dropped} if dropped else {}),
        )  # fmt: skip
