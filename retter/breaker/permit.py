"""The results of `admit`: a permit to go upstream, now or later, or a rejection.

A permit is one object for each request, and is reported finished exactly once. It carries all that
the controller needs at the end of the request, so that no look-up is necessary.
"""

from enum import Enum
from math import inf
from typing import Final

from retter.base.reason import Reason
from retter.breaker.demand import NOBODY
from retter.breaker.opening import Opening
from retter.breaker.routes import Route
from retter.breaker.table import Row


class Kind(Enum):
    """Whether a request may be answered from the store."""

    GET = "get"
    OTHER = "other"  # every other method: always forwarded, in every state


class Phase(Enum):
    """The phase of a request with a permit."""

    QUEUED = "queued"  # waits for a place, or for the end of a pause
    ADMITTED = "admitted"  # has a place, `started` comes at once
    IN_FLIGHT = "in-flight"  # at the application
    DETACHED = "detached"  # at the application, and no longer counted: a stream or a tunnel
    DONE = "done"


class Rejection:
    """Do not forward: answer with the stored response, or 503 with Retry-After.

    Each controller makes its rejections once and returns the same objects again and again. `count`
    is how often.
    """

    __slots__ = ("count", "reason", "retry_after_s", "serve_stored")

    def __init__(self, reason: Reason, *, serve_stored: bool, retry_after_s: float) -> None:
        self.count = 0
        self.reason = reason
        self.serve_stored = serve_stored
        self.retry_after_s = retry_after_s

    def __repr__(self) -> str:
        answer = "stored" if self.serve_stored else f"503, retry after {self.retry_after_s} s"
        return f"<Rejection {self.reason}: {answer}>"


class Rejections:
    """All possible rejections, in the order of REJECTION_REASONS. Made once, used often."""

    def __init__(self, retry_after_s: float) -> None:
        self.stored, self.rejects = (
            [
                Rejection(reason, serve_stored=serve_stored, retry_after_s=retry_after_s)
                for reason in REJECTION_REASONS
            ]
            for serve_stored in (True, False)
        )

    def set_retry_after(self, retry_after_s: float) -> None:
        """Set Retry-After, but not of a pause: there it follows from the end of the pause."""
        for shed in self.stored + self.rejects:
            if shed.reason is not Reason.PAUSED:
                shed.retry_after_s = retry_after_s


REJECTION_REASONS: Final = (
    Reason.LIMIT, Reason.SINGLE_FLIGHT, Reason.FRESH_ENOUGH, Reason.QUEUE_FULL, Reason.OPEN,
    Reason.HALF_OPEN, Reason.ROUTE_OPEN, Reason.FORCED_OPEN, Reason.PAUSED,
    Reason.FAIR_SHARE,
)  # fmt: skip

# The lanes of the queue, first to last (lanes.py): known clients, unknown ones, and those that ask
# for too much. Requests that arrived while lanes were not assigned wait with the strangers.
KNOWN: Final = 0
STRANGER: Final = 1
HEAVY: Final = 2
LANES: Final = (KNOWN, STRANGER, HEAVY)
UNSORTED: Final = -1


class Permit:
    """The permission of one request to go upstream, from `admit` to `finished`.

    `holder` belongs to the caller. `reason` is the reason why the request was admitted, or later
    why its holder has to answer it without the application. All else belongs to the controller.
    """

    __slots__ = (
        "acts_at",
        "asker",
        "client",
        "ended_at",
        "first_byte_at",
        "generation",
        "has_stored",
        "holder",
        "is_cold",
        "is_get",
        "is_judged",
        "is_old",
        "is_reusable",
        "is_slow",
        "key",
        "lane",
        "phase",
        "probe",
        "queued_at",
        "rank",
        "reason",
        "route",
        "row",
        "since",
        "started_at",
        "ticket",
        "uncongested",
        "who",
    )

    def __init__(
        self,
        phase: Phase,
        reason: Reason,
        is_get: bool,
        route: Route,
        key: bytes,
        has_stored: bool,
        client: int,
    ) -> None:
        self.holder: object | None = None
        self.phase = phase
        self.reason = reason
        self.is_get = is_get
        self.route = route
        self.key = key
        self.has_stored = has_stored  # may be answered from the store
        self.client = client  # the number of the client, 0 if that is not known
        self.probe: Opening | None = None  # the opening that this probe may end
        self.lane = UNSORTED
        self.ticket = -1  # number of a valid ticket; below 0: none
        self.who: object | None = None  # the asker, kept to find the lane later
        self.since = inf  # when the ticket's holder tried first
        self.asker = NOBODY  # the client whose demand counts
        # queued_at: when the wait began. Set with phase QUEUED.
        # generation, rank, row, started_at, uncongested, is_cold: set by `started` and
        # `start_at_once`. ended_at: set by `finished_whole`.
        self.first_byte_at = -1.0  # below 0: not yet
        self.is_reusable = False  # made by `start_at_once`, so nothing but the sweep changes it
        self.is_old = False  # is swept: see acts_at
        self.is_judged = False  # counted as late before its answer came
        self.is_slow = False  # outlived its patience
        # acts_at: when the sweep examines it next. Set with is_old.

    queued_at: float
    acts_at: float
    generation: int
    rank: int
    row: Row
    started_at: float
    ended_at: float
    uncongested: bool
    is_cold: bool

    def __repr__(self) -> str:
        return f"<Permit {self.phase.value} {self.reason} {self.route.name!r} {self.key!r}>"
