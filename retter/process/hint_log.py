"""Log lines for hints (hints.py): each hint is logged once. Long polls are noticed here.

Of several workers, the first one gets the hints of all (admin/worker_sum.py), and logs them.
"""

from typing import Final

from retter.breaker import State
from retter.proxy.services import Services
from retter.telemetry.log import get_logger

log = get_logger()

# After this many long answers, a route counts as one of long polls: fewer may be chance.
LONG_ANSWERS_MIN: Final = 5


class HintLog:
    """Called once a second with the time."""

    def __init__(self, services: Services) -> None:
        self._hints = services.hints
        self._breaker = services.breaker
        self._logged = 0
        self._logs = services.place is None or services.place.leads

    def on_second(self, now: float) -> None:
        """Log new hints."""
        self._look_for_long_polls()
        if not self._logs:
            return
        given = list(self._hints.given.values())
        for advice in given[self._logged :]:
            log.info("hint", advice=advice)
        self._logged = len(given)

    def _look_for_long_polls(self) -> None:
        """Look for pages that take longer than the patience with any page, while some wait.

        If the application hangs, it does not answer; so it takes answers, and not time alone.
        """
        circuit = self._breaker.circuit
        for name, route in circuit.routes.by_name.items():
            if circuit.state is State.CLOSED and route.opening is None:
                continue
            answers = sum(route.latency.counts)
            if answers < LONG_ANSWERS_MIN or not name.startswith(b"GET "):
                continue
            mean_s = route.latency.total / answers
            if mean_s > circuit.settings.patience_max_s:
                self._hints.takes_long(name, mean_s)
