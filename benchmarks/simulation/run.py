"""The result of one simulation: all answers, and the state over time."""

from dataclasses import dataclass, field

from benchmarks.simulation.application import Model


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to a client: how is fresh, stored or error (a 5xx, also one of RETTER's own)."""

    arrived_at: float
    took_s: float
    is_get: bool
    how: str
    route: bytes
    age_s: float  # of the stored response
    status: int
    without_stored: bool  # there never was a stored response for it
    who: str


@dataclass(slots=True)
class Sample:
    """The state once a tick, for time lines."""

    at: float
    limit: float
    cap: float
    in_flight: int
    state: str
    busy_s: float  # worker seconds that the application has spent
    ceiling: float
    busy_with_others: int  # workers that serve other methods


@dataclass(kw_only=True)
class Run:
    """The record of one simulation."""

    model: Model
    answers: list[Answer] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    transitions: list[tuple[float, str, str]] = field(default_factory=list)
    upstream_gets: list[float] = field(default_factory=list)
    peaks: list[tuple[float, int]] = field(default_factory=list)  # in flight after each start
    failed_gets: list[float] = field(default_factory=list)  # when the application failed one
    leaked: int = 0
