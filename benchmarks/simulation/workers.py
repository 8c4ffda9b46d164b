"""Several workers of one RETTER before one application: their breakers share one memory.

`Workers` stands where the proxy's breaker stands, and gives each request to one of them: by its
client, as the kernel does by address, or by chance where no client is told apart.
"""

from collections.abc import Callable
from random import Random
from typing import Final, Protocol

from benchmarks.simulation.ablation import Chosen
from benchmarks.simulation.engine import Engine
from benchmarks.simulation.load import Kill
from benchmarks.simulation.run import Run
from retter.base.errors import Outcome
from retter.base.reason import Reason
from retter.breaker import (
    Asker,
    BreakerSettings,
    CircuitBreaker,
    Kind,
    Permit,
    Phase,
    Rejection,
    Transition,
)
from retter.breaker.circuit import Circuit
from retter.breaker.snapshot import Snapshot
from retter.judgement.breaker import SharedBreaker
from retter.judgement.memory import Memory, bytes_needed

TICK_S: Final = 0.05
# A worker in which requests wait looks for a free place so often: another worker may have left one.
LOOK_S: Final = 0.01
NEVER: Final = float("inf")
_SEED: Final = 20


class Host(Protocol):
    """The proxy in which the workers are."""

    engine: Engine

    def answer_late(self, permits: list[Permit]) -> None: ...
    def probe(self, breaker: CircuitBreaker) -> None: ...
    def start_ready(self) -> None: ...


class Workers:
    """Some breakers that share one judgement, as one."""

    def __init__(self, now: float, run: Run, workers: int, *, by_client: bool) -> None:
        self._run = run
        self._dice = Random(_SEED)
        self._by_client = by_client
        self._memory = Memory(bytearray(bytes_needed(workers)), workers)
        self.breakers: list[CircuitBreaker] = [self._make(now, one) for one in range(workers)]
        self.down_until = [-NEVER] * workers
        self._of: dict[Permit, int] = {}  # which worker gave a permit
        self._chosen = 0
        self._ended = False
        self.circuit = self.breakers[0].circuit

    def _make(self, now: float, index: int) -> CircuitBreaker:
        def note(transition: Transition) -> None:
            said = (transition.at, transition.after.value, transition.cause.value)
            self._run.transitions.append(said)

        settings = BreakerSettings(fairness=Chosen.fairness)
        return SharedBreaker(settings, now, note, None, b"simulated", self._memory, index)

    # --- the clock ---

    def begin(self, proxy: Host) -> None:
        """Let each worker tick, at moments of its own."""
        workers, now = len(self.breakers), proxy.engine.now
        for index in range(workers):
            proxy.engine.at(now + (1 + index / workers) * TICK_S, self._tick, (proxy, index))
            proxy.engine.at(now + (1 + index / workers) * LOOK_S, self._look, (proxy, index))

    def end(self) -> None:
        """End all workers."""
        self._ended = True

    def _tick(self, what: tuple[Host, int]) -> None:
        proxy, index = what
        if self._ended:
            return
        now = proxy.engine.now
        proxy.engine.at(now + TICK_S, self._tick, what)
        if now < self.down_until[index]:
            return
        breaker = self._use(index)
        proxy.answer_late(breaker.tick(now))
        proxy.probe(breaker)
        self._look_in(proxy, index)

    def _look(self, what: tuple[Host, int]) -> None:
        proxy, index = what
        if not self._ended:
            proxy.engine.at(proxy.engine.now + LOOK_S, self._look, what)
            if proxy.engine.now >= self.down_until[index]:
                self._look_in(proxy, index)

    def _look_in(self, proxy: Host, index: int) -> None:
        breaker = self._use(index)
        if breaker.waiting:
            proxy.start_ready()

    def _use(self, index: int) -> CircuitBreaker:
        self._chosen = index
        breaker = self.breakers[index]
        self.circuit = breaker.circuit
        return breaker

    # --- the death of a worker ---

    def kill(self, kill: Kill, now: float) -> list[Permit]:
        """End a worker at once; return the permits that it leaves."""
        self.down_until[kill.worker] = now + kill.back_after_s
        if kill.noticed:
            self._memory.vacate(kill.worker)
        left = [permit for permit, one in self._of.items() if one == kill.worker]
        for permit in left:
            del self._of[permit]
        return left

    def come_back(self, index: int, now: float) -> None:
        """Begin a killed worker anew."""
        self.breakers[index] = self._make(now, index)

    # --- the interface of a breaker ---

    def choose(self, client: int) -> float:
        """Choose the worker for the next request; return until when that worker is down."""
        if client and self._by_client:
            self._chosen = hash((client, _SEED)) % len(self.breakers)
        else:
            self._chosen = self._dice.randrange(len(self.breakers))
        return self.down_until[self._chosen]

    @property
    def judge(self) -> Circuit:
        """The circuit of the worker that leads, or of the one that is to lead next."""
        for index, breaker in enumerate(self.breakers):
            assert isinstance(breaker, SharedBreaker)
            if breaker.leads and self.down_until[index] <= self.down_until[0]:
                return breaker.circuit
        return self.breakers[-1].circuit

    def admit(
        self,
        now: float,
        kind: Kind,
        route: bytes,
        key: bytes,
        stored_age_s: float | None,
        client: int = 0,
        asker: Asker | None = None,
    ) -> Permit | Rejection:
        """Let the chosen worker decide."""
        decision = self._use(self._chosen).admit(now, kind, route, key, stored_age_s, client, asker)
        if isinstance(decision, Permit):
            self._of[decision] = self._chosen
        return decision

    def _breaker_of(self, permit: Permit) -> CircuitBreaker:
        return self._use(self._of.get(permit, self._chosen))

    def started(self, now: float, permit: Permit) -> None:
        """Tell the worker that gave the permit."""
        self._of.setdefault(permit, self._chosen)
        self._breaker_of(permit).started(now, permit)

    def first_byte(self, now: float, permit: Permit) -> None:
        """Tell the worker that gave the permit."""
        self._breaker_of(permit).first_byte(now, permit)

    def finished(self, now: float, permit: Permit, outcome: Outcome) -> None:
        """Tell the worker that gave the permit."""
        self._breaker_of(permit).finished(now, permit, outcome)
        del self._of[permit]

    def take_ready(self, now: float) -> list[Permit]:
        """Return those who may go, of the worker that was spoken to last."""
        return self._use(self._chosen).take_ready(now)

    def decide_again(
        self, now: float, permit: Permit, is_stored: Callable[[], bool]
    ) -> Reason | None:
        """Ask the worker that gave the permit."""
        return self._breaker_of(permit).decide_again(now, permit, is_stored)

    @property
    def waiting(self) -> int:
        """How many wait in the worker that was spoken to last."""
        if self.down_until[self._chosen] > -NEVER:
            return 0  # while it may be down, it looks for itself
        return self.breakers[self._chosen].waiting

    def probe(self, now: float, route: bytes, key: bytes) -> Permit | None:
        """Nothing: each worker probes on its own tick."""
        return None

    def tick(self, now: float) -> list[Permit]:
        """Nothing: each worker has its own clock. Permits that are done are forgotten."""
        for permit in [one for one in self._of if one.phase is Phase.DONE]:
            del self._of[permit]
        self.circuit = self.judge
        return []

    def snapshot(self, now: float) -> Snapshot:
        """Return the figures of the leader, which are those of all."""
        for breaker in self.breakers:
            if breaker.circuit is self.judge:
                return breaker.snapshot(now)
        raise AssertionError("one of them judges")
