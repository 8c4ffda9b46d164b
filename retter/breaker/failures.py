"""The error breaker: whether the application as a whole fails.

What a full pool or one bad page explains is not reported here; whose failures count is clients.py.
"""

from retter.breaker import constants
from retter.breaker.clients import Clients
from retter.breaker.routes import Route, RouteTable
from retter.breaker.settings import BreakerSettings
from retter.breaker.window import RollingWindow


class Failures:
    """Outcomes of the last two seconds, and how many failures came in a row."""

    __slots__ = ("clients", "in_a_row", "recent", "refused_in_a_row", "route")

    def __init__(self, now: float) -> None:
        self.recent = RollingWindow(
            now, buckets=constants.FAILURE_BUCKETS, bucket_s=constants.FAILURE_BUCKET_S
        )
        self.in_a_row = 0
        self.refused_in_a_row = 0
        self.route: Route | None = None  # of all failures in a row, if it is one
        self.clients = Clients(now)

    def end_row(self) -> None:
        """A success after failures: they are not in a row any more."""
        self.in_a_row = self.refused_in_a_row = 0
        self.route = None

    def advance(self, now: float) -> None:
        """Let old outcomes go."""
        self.recent.advance(now)
        self.clients.advance(now)

    def failed(self, route: Route, *, refused: bool) -> None:
        """Take in a failure that counts."""
        self.route = route if not self.in_a_row or self.route is route else None
        self.in_a_row += 1
        self.refused_in_a_row = self.refused_in_a_row + 1 if refused else 0
        self.recent.failed += 1

    @property
    def nobody_listens(self) -> bool:
        """Whether connections are refused one after the other."""
        return self.refused_in_a_row >= constants.REFUSALS_IN_A_ROW

    def many(self, settings: BreakerSettings) -> bool:
        """Say whether so many of the recent outcomes are failures that the circuit opens."""
        return self.recent.failing(
            volume=settings.failure_volume, ratio=settings.failure_ratio
        ) or (self.in_a_row >= constants.FAILURES_IN_A_ROW and not self.recent.passed)

    def fails_alone(self, route: Route, routes: RouteTable, now: float) -> bool:
        """Say whether a route fails while the others work."""
        # On a quiet site: all failures in a row are its own, and another route worked of late.
        return routes.fails_alone(route) or (
            self.route is route
            and route is not routes.other
            and self.in_a_row >= constants.ROUTE_FAILURES_MIN
            and routes.another_works(route, now)
        )

    def clear(self) -> None:
        """Judge afresh."""
        self.end_row()
        self.clients.clear()
        self.recent.clear()
