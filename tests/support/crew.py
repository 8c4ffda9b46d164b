"""Several breakers over one memory, beside a naive model: plain lists of what is where."""

from math import inf

from retter.base.errors import Outcome
from retter.base.reason import Reason
from retter.breaker import (
    Asker,
    BreakerSettings,
    Kind,
    Mode,
    Permit,
    Phase,
    Rejection,
    State,
    Transition,
)
from retter.judgement.breaker import SILENT_S, SharedBreaker
from retter.judgement.memory import IN_FLIGHT, Memory, bytes_needed

TICK_S = 0.05


class Worker:
    """One worker: its breaker, and what the model knows of its requests."""

    def __init__(self, breaker: SharedBreaker, now: float) -> None:
        self.breaker = breaker
        self.ticked_at = now
        self.in_flight: list[Permit] = []
        self.detached: list[Permit] = []
        self.queued: list[Permit] = []


class Crew:
    """The workers of one RETTER. A killed one is None until it comes back."""

    def __init__(self, workers: int, settings: BreakerSettings | None = None) -> None:
        self.now = 100.0
        self.settings = settings or BreakerSettings()
        self.memory = Memory(bytearray(bytes_needed(workers)), workers)
        self.transitions: list[tuple[int, Transition]] = []
        self.followed: list[list[State]] = [[] for _ in range(workers)]  # as each was told
        self.log: list[str] = []
        self.gone: dict[int, tuple[int, float]] = {}  # in flight at the death, last sign of life
        self.workers: list[Worker | None] = [None] * workers
        for index in range(workers):
            self.begin(index)

    def begin(self, index: int) -> Worker:
        """Start a worker."""

        def note(transition: Transition) -> None:
            self.transitions.append((index, transition))

        breaker = SharedBreaker(
            self.settings,
            self.now,
            note,
            self.followed[index].append,
            b"secret",
            self.memory,
            index,
        )
        worker = self.workers[index] = Worker(breaker, self.now)
        self.gone.pop(index, None)
        return worker

    def __getitem__(self, index: int) -> Worker:
        worker = self.workers[index]
        assert worker is not None, f"worker {index} is dead"
        return worker

    @property
    def alive(self) -> list[int]:
        """The workers that have a process."""
        return [index for index, worker in enumerate(self.workers) if worker is not None]

    @property
    def leader(self) -> SharedBreaker:
        """The only breaker that leads."""
        (leader,) = [self[index].breaker for index in self.alive if self[index].breaker.leads]
        return leader

    def kill(self, index: int, *, noticed: bool = True) -> None:
        """End a worker at once; `noticed` if its parent sees it."""
        worker = self[index]
        self.workers[index] = None
        if noticed:
            self.memory.vacate(index)
        else:
            self.gone[index] = len(worker.in_flight), worker.ticked_at

    # --- what a proxy does ---

    def admit(
        self,
        index: int,
        kind: Kind = Kind.GET,
        key: bytes = b"k",
        *,
        stored: float | None = 1.0,
        route: bytes = b"GET /",
        client: int = 0,
        asker: Asker | None = None,
    ) -> Permit | Rejection:
        """Ask a worker, and start at once what may start."""
        worker = self[index]
        breaker = worker.breaker
        made = breaker.admit(self.now, kind, route, key, stored, client, asker)
        self.log.append(f"{index} {made!r}")
        if isinstance(made, Rejection):
            assert kind is Kind.GET, "other methods are never shed"
            assert made.serve_stored == (stored is not None)
        elif made.phase is Phase.QUEUED:
            worker.queued.append(made)
        else:
            circuit = breaker.circuit
            if kind is Kind.GET and made.reason is not Reason.PROBE and circuit.mode is Mode.AUTO:
                trial = stored is not None and circuit.table.ceiling < inf
                assert circuit.limit.in_flight == self.in_flight_as_seen_by(index)
                assert circuit.limit.load < circuit.cap + trial, "admitted above the cap"
            self._start(index, made)
        return made

    def _start(self, index: int, permit: Permit) -> None:
        self[index].breaker.started(self.now, permit)
        self[index].in_flight.append(permit)

    def finish(self, index: int, permit: Permit, outcome: Outcome = Outcome.OK) -> None:
        """A request ends, and those of its worker that waited may start."""
        worker = self[index]
        (worker.in_flight if permit in worker.in_flight else worker.detached).remove(permit)
        worker.breaker.finished(self.now, permit, outcome)
        self.start_ready(index)

    def detach(self, index: int, permit: Permit) -> None:
        """A request becomes a stream."""
        worker = self[index]
        worker.breaker.detach(self.now, permit)
        worker.in_flight.remove(permit)
        worker.detached.append(permit)

    def start_ready(self, index: int) -> None:
        """Start those that waited and may go now."""
        worker = self[index]
        if worker.breaker.waiting:
            for permit in worker.breaker.take_ready(self.now):
                worker.queued.remove(permit)
                self._start(index, permit)

    def tick(self, *indices: int) -> None:
        """Let one tick pass, for these workers or for all that live."""
        self.now += TICK_S
        for index in indices or self.alive:
            self.tick_one(index)

    def tick_one(self, index: int) -> None:
        """Let the clock of one worker run."""
        worker = self[index]
        worker.ticked_at = self.now
        for permit in worker.breaker.tick(self.now):
            self.log.append(f"{index} late {permit!r}")
            if permit.phase is Phase.DONE:
                worker.queued.remove(permit)
            else:
                assert permit.reason is Reason.PATIENCE
        for permit in [one for one in worker.in_flight if one.phase is Phase.DETACHED]:
            worker.in_flight.remove(permit)
            worker.detached.append(permit)
        self.start_ready(index)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        for _ in range(round(seconds / TICK_S)):
            self.tick()

    def serve(self, index: int, count: int, took_s: float = TICK_S, **request: object) -> None:
        """Let requests come and be answered one by one."""
        for _ in range(count):
            permit = self.admit(index, **request)  # type: ignore[arg-type]
            for _ in range(round(took_s / TICK_S)):
                self.tick()
            if isinstance(permit, Permit):
                self.finish(index, permit)

    # --- what must hold ---

    def in_flight_as_seen_by(self, index: int) -> int:
        """Return what a worker has to count: its own, and those of all that show signs of life."""
        seen_at = self[index].ticked_at  # when it looked around last
        count = len(self[index].in_flight)
        for other, worker in enumerate(self.workers):
            if other == index:
                continue
            if worker is not None:
                its, at = len(worker.in_flight), worker.ticked_at
            elif other in self.gone:
                its, at = self.gone[other]
            else:
                continue
            # One that began after the last look around is not known yet.
            count += its * (seen_at - at <= SILENT_S and other in self.known_to(index))
        return count

    def known_to(self, index: int) -> list[int]:
        """Return the other workers that a worker counts."""
        return self[index].breaker.others_living

    def check(self) -> None:
        """Compare with the model."""
        for index in self.alive:
            worker = self[index]
            own = self.memory.words[self.memory.slots[index].word + IN_FLIGHT]
            assert own == len(worker.in_flight) >= 0
            assert worker.breaker.waiting == len(worker.queued)
            circuit = worker.breaker.circuit
            assert circuit.limit.in_flight >= own
            assert (circuit.elsewhere is None) is worker.breaker.leads

    def settle(self) -> None:
        """Let all workers see each other: then one leads, the lowest."""
        if self.gone:
            self.run(SILENT_S)
        self.tick()
        self.tick()
        leaders = [index for index in self.alive if self[index].breaker.leads]
        assert leaders == self.alive[:1]

    def states(self) -> set[State]:
        """The states by which the workers decide."""
        return {self[index].breaker.circuit.state for index in self.alive}
