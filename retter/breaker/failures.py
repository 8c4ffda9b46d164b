"""The error breaker: whether the application as a whole fails.

What a full pool or one bad page explains is not reported here. What one client meets counts for two
failures at most: one client cannot open the circuit for all.
"""

from retter.breaker import constants
from retter.breaker.constants import BreakerSettings
from retter.breaker.routes import Route, RouteTable
from retter.window import RollingWindow

UNKNOWN_CLIENT = 0      # each is taken for a client of its own


class Failures:
    """Outcomes of the last two seconds, and how many failures came in a row."""

    __slots__ = (
        "_by_client", "_cleared_at", "in_a_row", "passed_client", "recent", "refused_in_a_row",
        "route",
    )

    def __init__(self, now: float) -> None:
        self.recent = RollingWindow(
            now, buckets=constants.FAILURE_BUCKETS, bucket_s=constants.FAILURE_BUCKET_S
        )
        self.in_a_row = 0
        self.refused_in_a_row = 0
        self.route: Route | None = None       # of all failures in a row, if it is one
        self._by_client: dict[int, int] = {}  # failures that count, in this window
        self._cleared_at = now
        self.passed_client = UNKNOWN_CLIENT   # of the last success

    def passed(self, client: int) -> None:
        """Take in a success."""
        self.recent.record_success()
        if self.in_a_row:
            self.in_a_row = self.refused_in_a_row = 0
            self.route = None
        self.passed_client = client

    def advance(self, now: float) -> None:
        """Let old outcomes go."""
        self.recent.advance(now)
        if self._by_client and now - self._cleared_at >= constants.CLIENT_WINDOW_S:
            self._cleared_at = now
            self._by_client.clear()

    def failed(self, route: Route, client: int, *, refused: bool) -> bool:
        """Take in a failure; return False if enough of that client's count already.

        They all count while nobody else is answered well: then it may be everybody's.
        """
        if client != UNKNOWN_CLIENT:
            known = self._by_client.get(client, 0)
            if (
                known >= constants.CLIENT_FAILURES_MAX
                and self.recent.passed
                and self.passed_client != client
            ):
                return False
            self._by_client[client] = known + 1
        self.route = route if not self.in_a_row or self.route is route else None
        self.in_a_row += 1
        self.refused_in_a_row = self.refused_in_a_row + 1 if refused else 0
        self.recent.record_failure()
        return True

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
        if route is routes.other:
            return False
        own = route.outcomes
        others = self.recent.outcomes - own.outcomes
        others_failed = self.recent.failed - own.failed
        if (
            own.failed >= constants.ROUTE_FAILURES_MIN
            and own.failed >= constants.ROUTE_FAILURE_RATIO * own.outcomes
            and others > 0
            and others_failed < constants.ROUTE_WITNESS_RATIO * others
        ):
            return True
        # On a quiet site: all failures in a row are its own, and another route worked of late.
        return (
            self.route is route
            and self.in_a_row >= constants.ROUTE_FAILURES_MIN
            and routes.another_works(route, now)
        )

    def clear(self) -> None:
        """Judge afresh."""
        self.in_a_row = self.refused_in_a_row = 0
        self.route = None
        self._by_client.clear()
        self.recent.clear()
