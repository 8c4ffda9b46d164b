"""Models of a web application with a finite capacity."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import log
from random import Random
from typing import Any, Protocol

from benchmarks.simulation.engine import Engine
from retter.base.errors import Outcome

REFUSAL_S = 0.001  # what it takes to answer without working
POOL_ERROR_S = 0.005  # and to find out that no connection is to be had


class Work(Protocol):
    """A request, as the application sees it."""

    route: bytes
    is_get: bool


Sampler = Callable[[Random, bytes], float]


def exponential(mean_s: float) -> Sampler:
    """Service times without memory."""
    return lambda rng, route: rng.expovariate(1 / mean_s)


def constant(took_s: float) -> Sampler:
    """All take the same."""
    return lambda rng, route: took_s


def bimodal(slow_routes: frozenset[bytes], short_s: float, long_s: float) -> Sampler:
    """Most routes are quick, some take very long, and each always the same."""
    return lambda rng, route: long_s if route in slow_routes else short_s


def mixed(short_s: float, long_s: float, long_share: float) -> Sampler:
    """Quick and very long ones, and nothing tells beforehand which."""
    return lambda rng, route: rng.expovariate(
        1 / (long_s if rng.random() < long_share else short_s)
    )


def lognormal(mean_s: float, sigma: float = 1.5) -> Sampler:
    """A heavy tail: the slowest per cent takes some thirty times the median."""
    mu = log(mean_s) - sigma * sigma / 2
    return lambda rng, route: rng.lognormvariate(mu, sigma)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something is wrong from `begin` to `end`."""

    begin: float
    end: float
    kind: str  # hang, refuse, slow, fail, unavailable or shift
    route: bytes | None = None  # all if None
    amount: float = 0.0  # slow: seconds more; fail, unavailable: share of 500s, 503s;
    # shift: factor


@dataclass(frozen=True, kw_only=True)
class Model:
    """The properties of an application."""

    workers: int = 8
    service: Sampler = field(default_factory=lambda: exponential(0.05))
    mean_s: float = 0.05
    backlog: int | None = None  # waiting beyond the workers; 503 above it
    collapses: bool = False  # each request in it beyond 2 a worker slows all others down
    faults: tuple[Fault, ...] = ()
    away_s: float = 0.0  # mean time of an answer on its way, while its place is free already
    # Connections to the database, from a moment on; a request that finds none is answered 500.
    pool: tuple[tuple[float, int], ...] = ()

    @property
    def capacity(self) -> float:
        """Answers a second when all workers are busy, or the pool of the beginning."""
        return self.capacity_at(0.0)

    def connections(self, now: float) -> int:
        """How many requests the pool takes at that moment."""
        return [size for since, size in self.pool if since <= now][-1]

    def capacity_at(self, now: float) -> float:
        """Answers a second at that moment."""
        places = min(self.workers, self.connections(now)) if self.pool else self.workers
        return places / self.mean_s


class Application:
    """Workers that take requests first in first out, whether or not anyone waits for the answer."""

    def __init__(
        self, engine: Engine, model: Model, rng: Random, answered: Callable[[Any, Outcome], None]
    ) -> None:
        self._engine = engine
        self._model = model
        self._rng = rng
        self._deliver = answered
        self._backlog: deque[Any] = deque()
        self.busy = 0
        self.busy_with_others = 0  # of these, with other methods
        self._busy_s = 0.0
        self._busy_changed_at = 0.0
        self.in_it = 0
        self.peak = 0
        self.arrivals: list[tuple[float, bool]] = []  # when, whether a GET
        for fault in model.faults:
            if fault.kind == "hang":
                engine.at(fault.end, self._wake)

    def arrive(self, request: Any) -> None:
        """A request comes in."""
        engine, model = self._engine, self._model
        self.arrivals.append((engine.now, request.is_get))
        if self._fault("refuse", request.route) or (
            model.backlog is not None and self.in_it - model.workers >= model.backlog
        ):
            engine.at(engine.now + REFUSAL_S, self._refuse, request)
            return
        if model.pool and self.in_it >= model.connections(engine.now):
            engine.at(engine.now + POOL_ERROR_S, self._without_connection, request)
            return
        self.in_it += 1
        self.peak = max(self.peak, self.in_it)
        self._backlog.append(request)
        self._wake(None)

    def _answered(self, request: Any, outcome: Outcome) -> None:
        away_s = self._model.away_s
        if not away_s:
            self._deliver(request, outcome)
            return
        at = self._engine.now + self._rng.expovariate(1 / away_s)
        self._engine.at(at, lambda _: self._deliver(request, outcome))

    def _refuse(self, request: Any) -> None:
        refused = self._fault("refuse", request.route)
        self._answered(request, Outcome.REFUSED if refused else Outcome.OVERLOAD)

    def _without_connection(self, request: Any) -> None:
        self._answered(request, Outcome.ERROR)

    def _serve(self, request: Any) -> None:
        engine, model = self._engine, self._model
        self._count_busy(1)
        self.busy_with_others += not request.is_get
        service_s = model.service(self._rng, request.route)
        if shift := self._fault("shift", None):
            service_s *= shift.amount
        if model.collapses:
            service_s *= max(1.0, self.in_it / (2 * model.workers))
        if slow := self._fault("slow", request.route):
            service_s += slow.amount
        end = engine.now + service_s
        for fault in model.faults:
            if fault.kind == "hang" and engine.now < fault.begin < end:
                end += fault.end - fault.begin
        engine.at(end, self._finish, request)

    def _finish(self, request: Any) -> None:
        self._count_busy(-1)
        self.busy_with_others -= not request.is_get
        self.in_it -= 1
        outcome = Outcome.OK
        for kind, bad in (("fail", Outcome.ERROR), ("unavailable", Outcome.OVERLOAD)):
            fault = self._fault(kind, request.route)
            if fault is not None and self._rng.random() < fault.amount:
                outcome = bad
        self._wake(None)  # first come, first served: before the answer brings the next request
        self._answered(request, outcome)

    def _count_busy(self, change: int) -> None:
        self._busy_s = self.busy_s
        self._busy_changed_at = self._engine.now
        self.busy += change

    @property
    def busy_s(self) -> float:
        """Worker seconds spent so far."""
        return self._busy_s + self.busy * (self._engine.now - self._busy_changed_at)

    def _wake(self, _: object) -> None:
        while self._backlog and self.busy < self._model.workers:
            if self._fault("hang", None):
                return
            self._serve(self._backlog.popleft())

    def _fault(self, kind: str, route: bytes | None) -> Fault | None:
        for fault in self._model.faults:
            if (
                fault.kind == kind
                and fault.begin <= self._engine.now < fault.end
                and (fault.route is None or fault.route == route)
            ):
                return fault
        return None
