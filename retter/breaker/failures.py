"""The error breaker: whether the application as a whole fails.

Failures that a full pool or one bad page explains are not reported here. clients.py decides which
clients' failures count.
"""

from retter.breaker import constants
from retter.breaker.clients import Clients
from retter.breaker.routes import Route, RouteTable
from retter.breaker.settings import BreakerSettings
from retter.breaker.window import RollingWindow


class Failures:
    """Outcomes of the last two seconds, and the number of failures in a row."""

    def __init__(self, now: float) -> None:
        self.recent = RollingWindow(
            now, buckets=constants.FAILURE_BUCKETS, bucket_s=constants.FAILURE_BUCKET_S
        )
        self.in_a_row = 0
        self.refused_in_a_row = 0
        self.route: Route | None = None  # the route of all failures in a row, if it is the same
        self.clients = Clients(now)

    def end_row(self) -> None:
        """Record a success: it ends the failures in a row."""
        self.in_a_row = self.refused_in_a_row = 0
        self.route = None

    def advance(self, now: float) -> None:
        """Forget old outcomes."""
        self.recent.advance(now)
        self.clients.advance(now)

    def failed(self, route: Route, *, refused: bool) -> None:
        """Record a failure that counts."""
        self.route = route if not self.in_a_row or self.route is route else None
        self.in_a_row += 1
        self.refused_in_a_row = self.refused_in_a_row + 1 if refused else 0
        self.recent.failed += 1

    def many(self, settings: BreakerSettings) -> bool:
        """Return whether enough of the recent outcomes are failures to open the circuit."""
        return self.recent.failing(
            volume=settings.failure_volume, ratio=settings.failure_ratio
        ) or (self.in_a_row >= constants.FAILURES_IN_A_ROW and not self.recent.passed)

    def fails_alone(self, route: Route, routes: RouteTable, now: float) -> bool:
        """Return whether a route fails while the others work."""
        # On a quiet site: all failures in a row are of this route, and another one worked lately.
        return routes.fails_alone(route) or (
            self.route is route
            and route is not routes.other
            and self.in_a_row >= constants.ROUTE_FAILURES_MIN
            and routes.another_works(route, now)
        )

    def clear(self) -> None:
        """Forget all outcomes."""
        self.end_row()
        self.clients.clear()
        self.recent.clear()
