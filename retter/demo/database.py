"""The database of the shop: N connections, a queue in front of them, and the time of queries.

It decides when and how the queries of a page end; shop.py makes the page. It has no clock: `later`
(usually `loop.call_later`) runs a function after a number of seconds. The queries of a page whose
client has left are done like all others, as in a PHP or WSGI application, which notices that a
client has left only when it writes.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from math import exp, log
from random import Random
from typing import Any, Final, Protocol

from retter.demo.knobs import Condition, Knobs, Model

BIMODAL_MS: Final = (5.0, 800.0)
BIMODAL_SHORT_SHARE: Final = 0.8
LOGNORMAL_SIGMA: Final = 1.0
# With many concurrent pages, a query takes at most this many times as long as a single one. So even
# a collapsed application answers something.
COLLAPSE_FACTOR_MAX: Final = 20.0


class Result(Enum):
    """The result of the queries of a page."""

    DONE = "done"
    FAILED = "failed"  # the condition of the application, or of the route
    REFUSED = "refused"  # too many were waiting


class Later(Protocol):
    """Runs a function after a number of seconds, as `loop.call_later` does."""

    def __call__(self, delay: float, callback: Callable[..., object], *args: Any) -> object: ...


@dataclass(slots=True, eq=False)
class Job:
    """The queries of one page. They use one connection, one after the other."""

    path: str
    queries: int
    done: Callable[[Result], None]
    life: int = 0


@dataclass(slots=True)
class Figures:
    """The counters of the database since the start or the last reset."""

    in_work: int = 0
    waiting: int = 0
    longest_queue: int = 0
    most_inside: int = 0
    queries: int = 0
    failed: int = 0
    refused: int = 0


def collapse_factor(inside: int, connections: int) -> float:
    """Return how many times slower a query is with that many pages (in work and waiting).

    `1 + (inside - 2c) / 2c`, from 1 to 20. Up to twice the connections, nothing changes. Beyond,
    pages compete for locks, caches and memory. At five times the connections, the throughput is
    40 %. With still more pages, the throughput falls below a normal load. Then the application does
    not recover after the burst has ended (metastable failure).
    """
    crowd = (inside - 2 * connections) / (2 * connections)
    return min(COLLAPSE_FACTOR_MAX, 1.0 + max(0.0, crowd))


def mean_service_s(knobs: Knobs) -> float:
    """Return the mean seconds of a query on a healthy, uncrowded application."""
    if knobs.model is Model.BIMODAL:
        short, long = BIMODAL_MS
        return (BIMODAL_SHORT_SHARE * short + (1 - BIMODAL_SHORT_SHARE) * long) / 1000
    return knobs.service_ms / 1000


def capacity_rps(knobs: Knobs) -> float:
    """Return how many one-query pages a second the healthy application can make."""
    mean = mean_service_s(knobs)
    return knobs.connections / mean if mean else float("inf")


class Database:
    """Gives its connections to pages in the order of their arrival."""

    def __init__(self, knobs: Knobs, *, later: Later, random: Random) -> None:
        self.knobs = knobs
        self.figures = Figures()
        self._later = later
        self._random = random
        self._waiting: deque[Job] = deque()
        self._stuck: list[Job] = []  # jobs whose time is over while the application hangs
        self._life = 0  # timers from before a restart are ignored

    def submit(self, path: str, queries: int, done: Callable[[Result], None]) -> None:
        """Do that many queries of a page. `done` is called once, possibly before this returns."""
        figures, knobs = self.figures, self.knobs
        if figures.in_work < knobs.connections and not self._waiting:
            self._start(Job(path, queries, done, self._life))
            return
        if knobs.backlog is not None and len(self._waiting) >= knobs.backlog:
            figures.refused += 1
            self._refuse(Job(path, queries, done, self._life))
            return
        self._waiting.append(Job(path, queries, done, self._life))
        self._count()

    def turn(self, knobs: Knobs) -> None:
        """Use these knobs from now on. Jobs that hung continue if the application works again."""
        self.knobs = knobs
        if knobs.condition is not Condition.HUNG:
            stuck, self._stuck = self._stuck, []
            for job in stuck:
                self._end(job)
        self._start_waiting()

    def die(self) -> None:
        """Drop all jobs, as a killed process does. No `done` is called."""
        self._life += 1
        self._waiting.clear()
        self._stuck.clear()
        self.figures.in_work = 0
        self._count()

    def reset_figures(self) -> None:
        """Set the counters to 0; running jobs continue."""
        self.figures = Figures(in_work=self.figures.in_work)
        self._count()

    def _start(self, job: Job) -> None:
        self.figures.in_work += 1
        self._count()
        self._later(self._hold_s(job), self._time_over, job)

    def _refuse(self, job: Job) -> None:
        if delay_s := self.knobs.overflow_ms / 1000:
            self._later(delay_s, self._refused, job)
        else:
            job.done(Result.REFUSED)

    def _refused(self, job: Job) -> None:
        if job.life == self._life:
            job.done(Result.REFUSED)

    def _time_over(self, job: Job) -> None:
        if job.life != self._life:
            return
        if self.knobs.condition is Condition.HUNG:
            self._stuck.append(job)
        else:
            self._end(job)
            self._start_waiting()

    def _end(self, job: Job) -> None:
        figures = self.figures
        figures.in_work -= 1
        figures.queries += job.queries
        if self._fails(job.path):
            figures.failed += 1
            job.done(Result.FAILED)
        else:
            job.done(Result.DONE)

    def _start_waiting(self) -> None:
        while self._waiting and self.figures.in_work < self.knobs.connections:
            self._start(self._waiting.popleft())
        self.figures.waiting = len(self._waiting)

    def _count(self) -> None:
        figures = self.figures
        figures.waiting = waiting = len(self._waiting)
        figures.longest_queue = max(figures.longest_queue, waiting)
        figures.most_inside = max(figures.most_inside, waiting + figures.in_work)

    def _hold_s(self, job: Job) -> float:
        knobs = self.knobs
        hold = job.queries * self._service_s()
        if knobs.condition is Condition.SLOW:
            hold *= knobs.slow_factor
        return hold + _of_route(knobs.slow_routes_ms, job.path) / 1000

    def _service_s(self) -> float:
        knobs, random = self.knobs, self._random
        mean = knobs.service_ms / 1000
        if not mean and knobs.model is not Model.BIMODAL:
            return 0.0
        match knobs.model:
            case Model.FIXED:
                return mean
            case Model.EXPONENTIAL:
                return random.expovariate(1 / mean)
            case Model.BIMODAL:
                return BIMODAL_MS[random.random() >= BIMODAL_SHORT_SHARE] / 1000
            case Model.LOGNORMAL:
                return exp(random.gauss(log(mean) - LOGNORMAL_SIGMA**2 / 2, LOGNORMAL_SIGMA))
            case Model.COLLAPSE:
                inside = self.figures.in_work + len(self._waiting)
                factor = collapse_factor(inside, knobs.connections)
                return random.expovariate(1 / mean) * factor

    def _fails(self, path: str) -> bool:
        knobs = self.knobs
        share = _of_route(knobs.failing_routes, path)
        if knobs.condition is Condition.FAILING:
            share = max(share, knobs.failing_share)
        return share > 0 and self._random.random() < share


def _of_route(figures: Mapping[str, float], path: str) -> float:
    for prefix, figure in figures.items():
        if path.startswith(prefix):
            return figure
    return 0.0
