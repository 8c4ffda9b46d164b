"""What `admit` hands out: a permit to go upstream (now or later), or the refusal to.

A permit is one object per request and is reported finished exactly once. It carries all that the
controller needs to know at the end, so that nothing has to be looked up again.
"""

from enum import Enum
from typing import TYPE_CHECKING

from retter.base.reason import Reason

if TYPE_CHECKING:
    from retter.breaker.routes import Route
    from retter.breaker.table import Row


class Kind(Enum):
    """Whether a request may be answered from the store."""

    GET = "get"
    OTHER = "other"  # every other method: always forwarded, at once, in every state


class Mode(Enum):
    """What an operator asks of the circuit."""

    AUTO = "auto"
    OPEN = "open"  # hold it open: stored responses, and a trickle for what has none
    CLOSED = "closed"  # hold it closed: forward everything
    OBSERVE = "observe"  # decide and count, but forward everything


class Phase(Enum):
    """Where a request with a permit is."""

    QUEUED = "queued"  # waits for a place
    HELD = "held"  # waits for the end of a pause
    ADMITTED = "admitted"  # has a place, `started` comes at once
    IN_FLIGHT = "in-flight"  # at the application
    DETACHED = "detached"  # at the application, and no longer counted: a stream or a tunnel
    DONE = "done"


class Shed:
    """Do not forward: answer with the stored response, or 503 with Retry-After.

    Made once a controller and handed out again and again; only `count`, how often, changes.
    """

    __slots__ = ("count", "reason", "retry_after_s", "serve_stored")

    def __init__(self, reason: Reason, *, serve_stored: bool, retry_after_s: float) -> None:
        self.count = 0
        self.reason = reason
        self.serve_stored = serve_stored
        self.retry_after_s = retry_after_s

    def __repr__(self) -> str:
        answer = "stored" if self.serve_stored else f"503, retry after {self.retry_after_s} s"
        return f"<Shed {self.reason}: {answer}>"


class Refusal:
    """The two forms of one refusal: with and without a stored response to answer with."""

    __slots__ = ("reject", "stored")

    def __init__(self, reason: Reason, retry_after_s: float) -> None:
        self.stored = Shed(reason, serve_stored=True, retry_after_s=retry_after_s)
        self.reject = Shed(reason, serve_stored=False, retry_after_s=retry_after_s)


class Refusals:
    """All refusals there are, by reason. Made once a controller, handed out often."""

    __slots__ = ("by_reason",)

    def __init__(self, retry_after_s: float) -> None:
        self.by_reason = {reason: Refusal(reason, retry_after_s) for reason in REFUSAL_REASONS}

    def shed(self, reason: Reason, *, has_stored: bool) -> Shed:
        """Return the stored response's form, or the 503's."""
        refusal = self.by_reason[reason]
        return refusal.stored if has_stored else refusal.reject

    def set_retry_after(self, retry_after_s: float) -> None:
        """Follow another setting; a pause tells its own end."""
        for reason, refusal in self.by_reason.items():
            if reason is not Reason.PAUSED:
                refusal.stored.retry_after_s = refusal.reject.retry_after_s = retry_after_s


REFUSAL_REASONS = (
    Reason.LIMIT, Reason.SINGLE_FLIGHT, Reason.FRESH_ENOUGH, Reason.QUEUE_FULL, Reason.OPEN,
    Reason.HALF_OPEN, Reason.ROUTE_OPEN, Reason.FORCED_OPEN, Reason.PAUSED,
)  # fmt: skip

NO_PROBE = 0
CIRCUIT_PROBE = 1
ROUTE_PROBE = 2


class Permit:
    """One request's leave to go upstream, from `admit` to `finished`.

    `holder` belongs to the caller. `reason` is why it was admitted, and later why its holder has
    to answer otherwise. Everything else is the controller's.
    """

    __slots__ = (
        "acts_at",
        "answered",
        "client",
        "first_byte_at",
        "generation",
        "has_stored",
        "holder",
        "is_cold",
        "is_get",
        "is_judged",
        "is_old",
        "is_slow",
        "key",
        "phase",
        "probe",
        "queued_at",
        "rank",
        "reason",
        "route",
        "row",
        "started_at",
        "uncongested",
    )

    def __init__(
        self,
        phase: Phase,
        reason: Reason,
        is_get: bool,
        route: "Route",
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
        self.client = client  # a number for who asks, 0 if that is not known
        self.probe = NO_PROBE
        # queued_at: since when it waits. Set with phase QUEUED and HELD.
        # generation, rank, row, started_at, uncongested, is_cold: set by `started`.
        self.first_byte_at = -1.0  # below 0: not yet
        self.is_old = False  # is swept, see acts_at
        self.is_judged = False  # counted as late before its answer came
        self.is_slow = False  # outlived its patience
        self.answered = False  # its client has been answered from the store
        # acts_at: when the sweep looks at it next. Set with is_old.

    queued_at: float
    acts_at: float
    generation: int
    rank: int
    row: "Row"
    started_at: float
    uncongested: bool
    is_cold: bool

    @property
    def kind(self) -> Kind:
        """GET or OTHER, as given to `admit`."""
        return Kind.GET if self.is_get else Kind.OTHER

    def __repr__(self) -> str:
        return f"<Permit {self.phase.value} {self.reason} {self.route.name!r} {self.key!r}>"
